"""Moves test clocks on: from one thing that is due to the next, until they have arrived.

A clock shows the instant of what is being done, so all of it happens at its time and in its order,
by the code that does it in live mode too. Each step is a commit: whoever is killed in the middle,
the next look of any replica goes on from there (docs/adr/0043-test-clocks.md).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from services.invoicer.clock_times import ClockTimes
from services.invoicer.repository import clocks
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError

log = structlog.get_logger()

CLOCKS_A_LOOK_MAX = 1_000


class Advancer:
    """Moves the clocks of all organizations; any number of replicas may."""

    def __init__(
        self,
        database: Database,
        times: ClockTimes,
        grace: timedelta,
        others: Sequence[Callable[[], Awaitable[int]]] = (),
    ) -> None:
        """`grace`: how long a period that is over waits. `others` do what is due besides closing,
        or have it done; each returns how much it did.
        """
        self._others = others
        self._database = database
        self._times = times
        self._grace = grace

    async def advance(self) -> int:
        """Move each clock that has nothing left to do where it is by one step; how many moved, and
        how much else was done.
        """
        await self._tell()
        async with self._database.transaction() as connection:
            found = await clocks.advancing(connection, limit=CLOCKS_A_LOOK_MAX)
        # All of these look for themselves now and then; here somebody waits.
        if found and (done := sum([await other() for other in self._others])):
            return done
        return sum([await self._step(tenant, clock_id) for tenant, clock_id in found])

    async def _tell(self) -> None:
        """Tell what has changed; what can't be told now is told with another look."""
        async with self._database.transaction() as connection:
            untold = await clocks.untold(connection, limit=CLOCKS_A_LOOK_MAX)
        for tenant, clock in untold:
            try:
                await self._times.tell(tenant, clock)
            except DomainError as error:
                log.warning("test_clock_not_told", clock_id=clock.id, error=error.message)
                continue
            async with self._database.transaction() as connection:
                await clocks.note_told(connection, tenant, clock)

    async def _step(self, tenant: TenantKey, clock_id: str) -> bool:
        async with self._database.transaction() as connection:
            clock = await clocks.lock_advancing(connection, tenant, clock_id)
            if clock is None:
                return False
            due = await clocks.next_due(connection, tenant, clock, self._grace)
            if due is not None and due <= clock.time:
                # It is being done, or waits until its usage is complete.
                return False
            if due is not None and due <= clock.target_time:
                moved = replace(clock, time=due)
            else:
                moved = replace(clock, time=clock.target_time, ready=True)
            await clocks.update_clock(connection, tenant, moved)
            return True
