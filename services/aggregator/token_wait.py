"""Usage questions that carry a usage token wait here until what it stands for has been counted.

What this replica counts needs no polling: the folder tells after its commit. What another replica
has counted, or this one before it was started again, is found in the inbox: one look for all who
wait, at once for a newcomer and every POLL_S after that. Whoever waits without batch ids, or for
long (a batch may be so old that the inbox has forgotten it), is also helped by a watermark.

A token says nothing about anybody's usage: whoever sends somebody else's, or a made up one, waits,
and is then answered as without it or told to try again.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime

import structlog
from prometheus_client import Histogram

from services.aggregator import usage_repository
from services.aggregator.watermark import NewWatermarkSource
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError, NotYetError, UnavailableError
from services.kit.usage_token import UsageToken
from services.kit.waiting import happens

log = structlog.get_logger()

POLL_S = 0.1
WATERMARK_AFTER_S = 0.5
RETRY_AFTER_S = 1.0
WAITING_MAX = 512
# Nobody can take all the places with tokens that never come true.
WAITING_PER_TENANT_MAX = 64
COUNTED_REMEMBERED_MAX = 4_096

_SECONDS = Histogram("usageflow_usage_token_wait_seconds", "Time that usage questions waited")


class _Waiting:
    """One question."""

    __slots__ = ("accept_time", "done", "has_ids", "missing", "since_s")

    def __init__(self, token: UsageToken, missing: set[str]) -> None:
        self.accept_time = token.accept_time
        self.has_ids = bool(token.batch_ids)
        self.missing = missing
        self.since_s = time.monotonic()
        self.done = asyncio.get_running_loop().create_future()

    def found(self, batch_ids: Collection[str]) -> None:
        """These batches have been counted."""
        self.missing.difference_update(batch_ids)
        if self.has_ids and not self.missing:
            self.finish()

    def passed(self, instant: datetime | None) -> None:
        """All that was accepted before `instant` has been counted."""
        if instant is not None and self.accept_time < instant:
            self.finish()

    def finish(self, error: DomainError | None = None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def wants_watermark(self) -> bool:
        return not self.has_ids or time.monotonic() - self.since_s >= WATERMARK_AFTER_S


class TokenWait:
    """Where questions with a token wait; bounded in number and time."""

    def __init__(
        self, database: Database, watermark: NewWatermarkSource, wait_s_max: float
    ) -> None:
        self._database = database
        self._watermark = watermark
        self._wait_s_max = wait_s_max
        self._waiting: dict[_Waiting, TenantKey] = {}
        self._waiting_of: Counter[TenantKey] = Counter()
        # In the order in which they were counted.
        self._counted: dict[str, None] = {}
        # Set while anybody waits.
        self.somebody_waits = asyncio.Event()
        self._newcomer = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def counted(self, batch_ids: Collection[str]) -> None:
        """These batches are in the database: their transaction has committed."""
        self._counted.update(dict.fromkeys(batch_ids))
        excess = max(len(self._counted) - COUNTED_REMEMBERED_MAX, 0)
        for batch_id in list(itertools.islice(self._counted, excess)):
            del self._counted[batch_id]
        for waiting in self._waiting:
            waiting.found(batch_ids)

    async def until_counted(self, tenant: TenantKey, token: UsageToken) -> None:
        """Return when a snapshot taken from now on has all that the token stands for.

        NotYetError after `wait_s_max`, or at once when too many wait. UnavailableError: the
        database is away.
        """
        missing = {str(batch_id) for batch_id in token.batch_ids}
        missing.difference_update(self._counted)
        if token.batch_ids and not missing:
            return
        waiting = _Waiting(token, missing)
        with self._place(tenant, waiting), _SECONDS.time():
            self._look()
            try:
                async with asyncio.timeout(self._wait_s_max):
                    await waiting.done
            except TimeoutError:
                message = "What the usage token stands for has not been counted yet; try again"
                raise NotYetError(message, retry_after_s=RETRY_AFTER_S) from None

    @contextlib.contextmanager
    def _place(self, tenant: TenantKey, waiting: _Waiting) -> Iterator[None]:
        if len(self._waiting) >= WAITING_MAX or self._waiting_of[tenant] >= WAITING_PER_TENANT_MAX:
            message = "Too many usage questions wait for what their token stands for; try again"
            raise NotYetError(message, retry_after_s=RETRY_AFTER_S)
        self._waiting[waiting] = tenant
        self._waiting_of[tenant] += 1
        self.somebody_waits.set()
        try:
            yield
        finally:
            del self._waiting[waiting]
            self._waiting_of[tenant] -= 1
            if not self._waiting_of[tenant]:
                del self._waiting_of[tenant]
            if not self._waiting:
                self.somebody_waits.clear()

    def _look(self) -> None:
        self._newcomer.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on())

    async def _look_on(self) -> None:
        """Look until nobody waits."""
        try:
            while self._waiting:
                self._newcomer.clear()
                await self._look_once()
                await happens(self._newcomer, POLL_S)
        except UnavailableError as error:
            self._fail_all(error)
        except Exception:
            log.exception("token_wait_failed")
            self._fail_all(UnavailableError("Something went wrong here; it was logged"))
        finally:
            self._looking = None

    async def _look_once(self) -> None:
        asked = {batch_id for waiting in self._waiting for batch_id in waiting.missing}
        async with self._database.transaction() as connection:
            counted, horizon = await usage_repository.find_counted(connection, asked)
        everybody = list(self._waiting)
        for waiting in everybody:
            waiting.found(counted)
            waiting.passed(horizon)
        left = [waiting for waiting in everybody if not waiting.done.done()]
        if any(waiting.wants_watermark() for waiting in left):
            try:
                watermark = await self._watermark.ask_anew()
            except UnavailableError:
                return
            for waiting in left:
                waiting.passed(watermark)

    def _fail_all(self, error: UnavailableError) -> None:
        for waiting in self._waiting:
            waiting.finish(UnavailableError(error.message, retry_after_s=error.retry_after_s))
