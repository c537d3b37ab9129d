"""Rolls usage up into spans of four hours and days, so that long ranges are few rows.

An hour after a span has ended it is rolled up, in three steps, each a transaction or several:

1. `kept_until` moves behind it: from then on whoever writes its buckets, late events or voids,
   does the same to its rollups. This waits for the folds that are under way, and lets later ones
   wait for it, a few times a day for as long as a fold takes.
2. The rollups of all series are made from the buckets, SERIES_MAX at a time.
3. `rolled_until` moves behind it: now questions read the rollups.

Replicas take turns; one that is killed anywhere leaves to the others what it has not done.
"""

import asyncio
from datetime import datetime, timedelta

import structlog
from prometheus_client import Gauge

from services.aggregator import rollup_repository
from services.aggregator.rollup_repository import RollupState
from services.aggregator.spans import BLOCK, DAY, block_start
from services.kit import clock
from services.kit.database import Database
from services.kit.errors import UnavailableError

log = structlog.get_logger()

# Nearly all events have come by then. A later one costs more to count.
ROLL_AFTER = timedelta(hours=1)
INTERVAL_S = 60.0
# While some are rolled up late events wait for it, so it takes little time: of the usual four hours
# many at once, of years only a few.
SERIES_MAX = 500
SERIES_DAYS_MAX = 1_000
# Most of the time is for others.
PAUSE_S = 0.01

_BEHIND = Gauge("usageflow_rollups_behind_seconds", "Age of the oldest span to be rolled up")


class Roller:
    """The loop. Any number of replicas may run it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Do a round a minute until cancelled."""
        while True:
            try:
                await self.round()
            except UnavailableError as error:
                log.debug("rollups_wait", error=error.message)
            await asyncio.sleep(INTERVAL_S)

    async def round(self) -> bool:
        """Roll up all that is due; whether there was anything. UnavailableError."""
        return await self.roll_up(block_start(clock.now() - ROLL_AFTER))

    async def roll_up(self, due: datetime) -> bool:
        """Roll up all that lies before `due`, the start of a span of four hours."""
        worked = False
        # A pass that others have begun may end earlier.
        while (state := await self._read()).rolled_until < due:
            _BEHIND.set((due - state.rolled_until).total_seconds())
            if state.kept_until == state.rolled_until:
                async with self._database.transaction() as connection:
                    await rollup_repository.keep_until(connection, due)
            while await self._roll_up_next():
                worked = True
                await asyncio.sleep(PAUSE_S)
        _BEHIND.set(0)
        if worked:
            log.info("rolled_up", until=due.isoformat())
        return worked

    async def _roll_up_next(self) -> bool:
        async with self._database.transaction() as connection:
            state = await rollup_repository.read_state(connection)
            limit = series_at_once(state)
            return await rollup_repository.roll_up_next(connection, limit)

    async def _read(self) -> RollupState:
        async with self._database.transaction() as connection:
            return await rollup_repository.read_state(connection)


def series_at_once(state: RollupState) -> int:
    """How many series are rolled up in a transaction."""
    days = (state.kept_until - state.rolled_until + BLOCK) // DAY + 1
    # Nobody has usage of all the years before the first pass.
    return max(min(SERIES_MAX, SERIES_DAYS_MAX // min(days, 100)), 1)
