"""Whether a service can do its work now: what its health check says to load balancers.

Only its own database decides. NATS is transport: without it everything is still stored, and sent
later. Another service that is away is that one's own to report.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog
from asyncpg.exceptions import InterfaceError, PostgresError
from prometheus_client import Gauge

from services.kit.errors import UnavailableError

log = structlog.get_logger()

# A database that stops answering is told of within the sum of the two.
CHECK_INTERVAL_S = 1.0
CHECK_TIMEOUT_S = 2.0

_READY = Gauge("usageflow_ready", "1 while the health check says SERVING")
_SESSION = {"application_name": "usageflow-readiness", "jit": "off"}
_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on'"


class DatabaseCheck:
    """Asks PostgreSQL whether it answers and takes writes.

    It has a connection of its own: a pool whose connections are all busy is not a database that is
    away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None  # asyncpg.Connection, whose methods have no types

    async def __call__(self) -> None:
        """Return when it does; UnavailableError, within CHECK_TIMEOUT_S, when it does not."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                read_only = await self._ask()
        except Exception as error:
            self.close()
            raise UnavailableError(f"The database is away: {error!r}") from error
        if read_only:
            self.close()  # the next one may lead to another server
            raise UnavailableError("The database is read-only")

    async def _ask(self) -> bool:
        if self._connection is not None:
            try:
                return bool(await self._connection.fetchval(_READ_ONLY))
            except (OSError, PostgresError, InterfaceError):
                # One connection was lost; that says nothing yet about PostgreSQL.
                self.close()
        connect: Any = asyncpg.connect
        self._connection = await connect(self._url, server_settings=_SESSION)
        return bool(await self._connection.fetchval(_READ_ONLY))

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class ReadinessLoop:
    """Runs a check every CHECK_INTERVAL_S and tells `report` when its outcome changes."""

    def __init__(
        self, check: Callable[[], Awaitable[None]], report: Callable[[bool], Awaitable[None]]
    ) -> None:
        self._check = check
        self._report = report
        self._ready: bool | None = None

    async def look(self) -> None:
        """Check once."""
        try:
            await self._check()
        except UnavailableError as error:
            await self._became(False, error.message)
        else:
            await self._became(True, "")

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self.look()

    async def _became(self, ready: bool, reason: str) -> None:
        if ready == self._ready:
            return
        if not ready:
            log.warning("not_ready", reason=reason)
        elif self._ready is False:
            log.info("ready_again")
        self._ready = ready
        _READY.set(ready)
        await self._report(ready)
