"""Batches as messages, and as the outbox whose messages are rebuilt from the events themselves."""

from collections.abc import Sequence
from uuid import UUID

from usageflow.events.v1 import events_pb2

from services.ingest import repository, voids_repository
from services.ingest.domain import Event
from services.ingest.event_columns import event_columns
from services.ingest.events import StoredBatch
from services.kit.database import Database
from services.kit.outbox import OutboxMessage, PendingMessage

BATCH_SUBJECT = "usageflow.events.batch"
CONSUMER = "aggregator"
# Reading and building them holds the event loop for some tens of milliseconds.
LOAD_EVENTS_MAX = 5_000


def message_of(stored: StoredBatch) -> OutboxMessage:
    """The EventBatch of what was committed: the same bytes whenever it is made."""
    batch = _head(stored)
    for tenant, events in stored.batch.events.by_id().by_tenant().items():
        batch.tenants.add(
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            columns=event_columns(events),
        )
    return _message(batch)


def void_message_of(stored: StoredBatch) -> OutboxMessage:
    """The EventBatch of voids, whose events `stored` holds: the same bytes whenever it is made."""
    batch = _head(stored)
    for tenant, events in stored.batch.events.by_id().by_tenant().items():
        batch.tenants.add(
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            voided_events=map(_usage_event, events),
        )
    return _message(batch)


def _head(stored: StoredBatch) -> events_pb2.EventBatch:
    batch = events_pb2.EventBatch(batch_id=str(stored.batch.batch_id))
    batch.accept_time.FromDatetime(stored.accept_time)
    return batch


def _message(batch: events_pb2.EventBatch) -> OutboxMessage:
    return OutboxMessage(batch.batch_id, BATCH_SUBJECT, batch.SerializeToString())


def _usage_event(event: Event) -> events_pb2.UsageEvent:
    return events_pb2.UsageEvent(
        event_id=event.event_id,
        metric=event.metric,
        amount=event.amount,
        customer_id=event.customer_id,
        time_unix_micros=event.time_micros,
        metadata_json=event.metadata_json,
    )


class BatchOutbox:
    """A kit.outbox.OutboxSource over event_batches: pending is what aggregator has not applied."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pending(self, limit: int) -> list[PendingMessage]:
        """Batches that may be sent and are not confirmed, oldest first."""
        async with self._database.transaction() as connection:
            batches = await repository.unapplied_batches(connection, limit)
        return [
            PendingMessage(str(batch.batch_id), batch.age_s, anyones=batch.voids)
            for batch in batches
        ]

    async def load(self, message_ids: Sequence[str]) -> list[OutboxMessage]:
        """Their messages, rebuilt: the oldest, at most LOAD_EVENTS_MAX events and as many voids.

        The relay asks again for those that are left out.
        """
        batch_ids = [UUID(message_id) for message_id in message_ids]
        async with self._database.transaction() as connection:
            batches = await repository.load_batches(connection, batch_ids, LOAD_EVENTS_MAX)
            voids = await voids_repository.load_batches(connection, batch_ids, LOAD_EVENTS_MAX)
        return [*map(message_of, batches), *map(void_message_of, voids)]

    async def confirm(self, message_ids: Sequence[str]) -> None:
        """Aggregator has applied them."""
        batch_ids = [UUID(message_id) for message_id in message_ids]
        async with self._database.transaction() as connection:
            await repository.confirm_batches(connection, batch_ids)
