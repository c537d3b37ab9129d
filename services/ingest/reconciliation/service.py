"""Counts what was accepted, and gives batches out once more: what aggregated usage is held against.

A few at a time, each on one of the pool's connections for as long as its caller reads.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from uuid import UUID

from usageflow.events.v1 import events_pb2

from services.ingest.batches import BatchOutbox
from services.ingest.reconciliation import repository
from services.ingest.reconciliation.repository import CountedHour, EventRange, FoundBatch
from services.kit.database import Database
from services.kit.errors import FieldChecks

RUNNING_MAX = 1
ROWS_PER_MESSAGE_MAX = 1_000
RANGE_MAX = timedelta(hours=24)
BATCHES_MAX = 1_000


class Reconciliation:
    """What aggregator's reconciliation and audits ask of ingest."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._outbox = BatchOutbox(database)
        self._running = asyncio.Semaphore(RUNNING_MAX)

    async def count_events(self, wanted: EventRange) -> AsyncGenerator[list[CountedHour]]:
        """By tenant, metric and hour, all of one moment. InvalidArgumentError, UnavailableError."""
        _check(wanted)
        async with self._running, self._database.transaction() as connection:
            found = repository.count_events(connection, wanted, ROWS_PER_MESSAGE_MAX)
            async with aclosing(found) as parts:  # type: ignore[type-var] # it is a generator
                async for part in parts:
                    yield part

    async def find_batches(self, wanted: EventRange) -> AsyncGenerator[list[FoundBatch]]:
        """Those that hold the events, then those that hold voids of them."""
        _check(wanted)
        async with self._running, self._database.transaction() as connection:
            found = repository.find_batches(connection, wanted, ROWS_PER_MESSAGE_MAX)
            async with aclosing(found) as parts:  # type: ignore[type-var] # it is a generator
                async for part in parts:
                    yield part

    async def get_batches(self, batch_ids: Sequence[str]) -> AsyncGenerator[events_pb2.EventBatch]:
        """The batches as they were committed; those that retention has dropped are left out."""
        _check_ids(batch_ids)
        left = dict.fromkeys(batch_ids)
        while left:
            loaded = await self._outbox.load(list(left))
            if not loaded:
                return
            for message in loaded:
                left.pop(message.message_id, None)
                yield events_pb2.EventBatch.FromString(message.payload)


def _check(wanted: EventRange) -> None:
    checks = FieldChecks()
    checks.require(wanted.start < wanted.end, "from", "must be before to")
    hours = RANGE_MAX // timedelta(hours=1)
    checks.require(
        wanted.end - wanted.start <= RANGE_MAX, "to", f"must be at most {hours} hours after from"
    )
    checks.require("\0" not in (wanted.metric or ""), "metric", "must not contain U+0000")
    checks.done()


def _check_ids(batch_ids: Sequence[str]) -> None:
    checks = FieldChecks()
    few = 1 <= len(batch_ids) <= BATCHES_MAX
    checks.require(few, "batchIds", f"must be from 1 to {BATCHES_MAX:,} ids")
    checks.require(all(map(_is_uuid, batch_ids)), "batchIds", "each must be a UUID in text form")
    checks.done()


def _is_uuid(batch_id: str) -> bool:
    try:
        return str(UUID(batch_id)) == batch_id
    except ValueError:
        return False
