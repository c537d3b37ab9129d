"""What has to be done now and then: remember the watermark, and forget what is of no more use.

The inbox may forget a batch only when it can't be counted again. ingest's watermark says that all
it accepted before that instant has been applied; so every batch accepted before `inbox_horizon`,
which never passes the watermark, has been applied, and the fold refuses such a batch when the
inbox does not know it any more. The two days on top are for batches that NATS brings once more:
they stay known and are told apart from the ones that never came.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeAlias

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import fold_repository
from services.aggregator.quotas.change_repository import CHANGES_KEEP_S, prune_changes
from services.aggregator.quotas.repository import prune_reservations
from services.aggregator.quotas.threshold_repository import prune_reached
from services.aggregator.watermark import WatermarkSource
from services.kit import clock
from services.kit.database import Database
from services.kit.errors import UnavailableError

log = structlog.get_logger()

# Forgets up to so many rows from before an instant; returns how many.
Prune: TypeAlias = Callable[[AsyncConnection, datetime, int], Awaitable[int]]

INBOX_KEEP_DAYS = 2
# An event may be up to 400 days late.
REACHED_KEEP_DAYS = 401
PRUNE_ROWS_MAX = 5_000
# A round forgets at most 1,000,000 batches: more than a minute of any load brings.
PRUNE_STEPS_MAX = 200
INTERVAL_S = 60.0


class Maintenance:
    """The loop. Any number of replicas may run it."""

    def __init__(self, database: Database, watermark: WatermarkSource) -> None:
        self._database = database
        self._watermark = watermark

    async def run(self) -> None:
        """Do a round a minute until cancelled."""
        while True:
            try:
                await self.round()
            except UnavailableError as error:
                log.debug("maintenance_waits", error=error.message)
            await asyncio.sleep(INTERVAL_S)

    async def round(self) -> int:
        """One round; returns how many batches were forgotten. UnavailableError."""
        watermark = await self._watermark.ask()
        async with self._database.transaction() as connection:
            await fold_repository.note_watermark(connection, watermark)
        before = min(watermark, clock.now() - timedelta(days=INBOX_KEEP_DAYS))
        forgotten = await self._prune(fold_repository.prune_inbox, before)
        if forgotten:
            log.info("inbox_pruned", batches=forgotten, before=before.isoformat())
        # Behind the watermark committed units are counted as usage.
        await self._prune(prune_reservations, before)
        # No event of such a period is taken any more.
        await self._prune(prune_reached, clock.now() - timedelta(days=REACHED_KEEP_DAYS))
        async with self._database.transaction() as connection:
            await prune_changes(connection, CHANGES_KEEP_S)
        return forgotten

    async def _prune(self, prune: Prune, before: datetime) -> int:
        """In steps, each a transaction; returns how many rows."""
        forgotten = 0
        for _step in range(PRUNE_STEPS_MAX):
            async with self._database.transaction() as connection:
                pruned = await prune(connection, before, PRUNE_ROWS_MAX)
            forgotten += pruned
            if pruned < PRUNE_ROWS_MAX:
                break
        return forgotten
