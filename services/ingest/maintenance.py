"""What has to be done from time to time, by any one replica."""

import asyncio

import structlog
from asyncpg.exceptions import LockNotAvailableError
from sqlalchemy.exc import DBAPIError

from services.ingest import repository
from services.kit.database import Database
from services.kit.errors import UnavailableError

log = structlog.get_logger()

# At 50,000 events/s this is 50 MB of rows, which a batch's rebuilding or a list has to read more.
SUMMARIZE_EVERY_S = 10.0


class Maintenance:
    """Keeps the block range index close behind the writers.

    PostgreSQL's own autosummarize waits for an autovacuum worker, a minute or more, and forgets
    what does not fit into its short list. Rebuilding a batch of 1,000 among 3 million events took
    281 ms before the ranges were summarized and 17 ms after.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Do it every SUMMARIZE_EVERY_S seconds until cancelled."""
        while True:
            await asyncio.sleep(SUMMARIZE_EVERY_S)
            try:
                await self.summarize()
            except UnavailableError as error:
                log.debug("maintenance_waits", error=error.message)

    async def summarize(self) -> int:
        """Summarize what is new; how many block ranges, 0 when somebody else is at it."""
        try:
            async with self._database.transaction() as connection:
                return await repository.summarize_block_ranges(connection)
        except DBAPIError as error:
            if isinstance(getattr(error.orig, "__cause__", None), LockNotAvailableError):
                return 0
            raise
