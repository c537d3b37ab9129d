"""What has to be done now and then: forget what is old, and tell how far behind deliveries are.

Deliveries that are done, with their attempts and events, are kept for the retention. The inbox is
kept for longer than its sender could still ask: invoicer's outbox keeps a message until the inbox
has confirmed it, and asks every second; a message sent again after INBOX_KEEP_DAYS of silence would
be delivered once more, unless its event is still stored.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit import clock
from services.kit.database import Database
from services.kit.errors import UnavailableError
from services.notifier import pruning_repository as pruning

log = structlog.get_logger()

INBOX_KEEP_DAYS = 90
PRUNE_ROWS_MAX = 2_000  # in one transaction
PRUNE_STEPS_MAX = 200  # in one round, of each kind
INTERVAL_S = 15.0

_OVERDUE_S = Gauge(
    "usageflow_webhook_overdue_seconds", "How long the delivery that is most overdue has been due"
)
_ENDPOINTS = Gauge("usageflow_webhook_endpoints", "Endpoints by state", ["state"])

Prune = Callable[[AsyncConnection, datetime, int], Awaitable[int]]


class Maintenance:
    """The loop. Any number of replicas may run it."""

    def __init__(self, database: Database, retention_days: int) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days)

    async def run(self) -> None:
        """Do a round every 15 s until cancelled."""
        while True:
            try:
                await self.round()
            except UnavailableError as error:
                log.debug("maintenance_waits", error=error.message)
            await asyncio.sleep(INTERVAL_S)

    async def round(self) -> dict[str, int]:
        """One round; returns how much of each kind was forgotten. UnavailableError."""
        now = clock.now()
        before = now - self._retention
        await self._prune(pruning.end_pending_of_disabled, now)
        forgotten = {
            "deliveries": await self._prune(pruning.prune_deliveries, before),
            "events": await self._prune(pruning.prune_events, before),
            "secrets": await self._prune(pruning.prune_secrets, now),
            "inbox": await self._prune(
                pruning.prune_inbox, now - max(self._retention, timedelta(days=INBOX_KEEP_DAYS))
            ),
        }
        if any(forgotten.values()):
            log.info("old_rows_pruned", **forgotten)
        await self._measure(now)
        return forgotten

    async def _prune(self, prune: Prune, before: datetime) -> int:
        forgotten = 0
        for _step in range(PRUNE_STEPS_MAX):
            async with self._database.transaction() as connection:
                pruned = await prune(connection, before, PRUNE_ROWS_MAX)
            forgotten += pruned
            if pruned < PRUNE_ROWS_MAX:
                break
        return forgotten

    async def _measure(self, now: datetime) -> None:
        async with self._database.transaction() as connection:
            due_time = await pruning.most_overdue(connection)
            states = await pruning.endpoint_states(connection, now)
        overdue = now - due_time if due_time else timedelta()
        _OVERDUE_S.set(max(overdue.total_seconds(), 0))
        for state, count in states.items():
            _ENDPOINTS.labels(state).set(count)
