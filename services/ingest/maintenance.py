"""What every replica does from time to time: learn of segments, open the next one in time, and keep
block ranges close behind the writers.
"""

import asyncio

import structlog
from asyncpg.exceptions import LockNotAvailableError
from sqlalchemy.exc import DBAPIError

from services.ingest import segment_repository as repository
from services.ingest.segments import Segments
from services.kit.database import Database
from services.kit.errors import UnavailableError

log = structlog.get_logger()

# At 50,000 events/s a segment may grow that much beyond its size, and a lookup has to do without
# the filter of a segment that was just closed.
CHECK_EVERY_S = 0.5
# At 100,000 events/s this is 20 MB of rows, which a batch's rebuilding or a list has to read more.
SUMMARIZE_EVERY_CHECKS = 2


class Maintenance:
    """Replicas may do it at the same time: the database lets one of them rotate."""

    def __init__(self, database: Database, segments: Segments, *, segment_events_max: int) -> None:
        self._database = database
        self._segments = segments
        self._segment_events_max = segment_events_max

    async def run(self) -> None:
        """Do it until cancelled."""
        checks = 0
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            checks += 1
            try:
                await self.rotate_if_full()
                await self._segments.refresh()
                if checks % SUMMARIZE_EVERY_CHECKS == 0:
                    await self.summarize()
            except UnavailableError as error:
                log.debug("maintenance_waits", error=error.message)

    async def rotate_if_full(self) -> None:
        """Open the next segment when the open one holds enough."""
        async with self._database.transaction() as connection:
            segment, events = await repository.open_segment_size(connection)
        if events >= self._segment_events_max:
            await self.rotate(segment)

    async def rotate(self, full: int) -> bool:
        """Close segment `full` and open the next one; False when somebody else did, or is at it."""
        try:
            async with self._database.transaction() as connection:
                rotated = await repository.rotate(connection, full)
        except DBAPIError as error:
            if _is_locked(error):
                log.info("segment_busy", segment=full)
                return False
            raise
        if rotated:
            log.info("segment_closed", segment=full)
        return rotated

    async def summarize(self) -> int:
        """Summarize what is new; how many block ranges, 0 when somebody else is at it.

        PostgreSQL's own autosummarize waits for an autovacuum worker, a minute or more, and forgets
        what does not fit into its short list. Rebuilding a batch of 1,000 among 3 million events
        took 281 ms before the ranges were summarized and 17 ms after.
        """
        try:
            async with self._database.transaction() as connection:
                return await repository.summarize_block_ranges(connection)
        except DBAPIError as error:
            if _is_locked(error):
                return 0
            raise


def _is_locked(error: DBAPIError) -> bool:
    return isinstance(getattr(error.orig, "__cause__", None), LockNotAvailableError)
