"""Batches as messages, and as the outbox whose messages are rebuilt from the events themselves."""

from collections.abc import Sequence
from operator import attrgetter
from uuid import UUID

from usageflow.events.v1 import events_pb2

from services.ingest import repository
from services.ingest.domain import Event, StoredBatch, Tenant
from services.kit.database import Database
from services.kit.outbox import OutboxMessage, PendingMessage

BATCH_SUBJECT = "usageflow.events.batch"
CONSUMER = "aggregator"
# Reading and building them holds the event loop for some tens of milliseconds.
LOAD_EVENTS_MAX = 5_000

_event_id = attrgetter("event_id")


def message_of(stored: StoredBatch) -> OutboxMessage:
    """The EventBatch of what was committed: the same bytes whenever it is made."""
    (batch_id, events), accept_time = stored
    message = events_pb2.EventBatch(batch_id=str(batch_id))
    message.accept_time.FromDatetime(accept_time)
    by_tenant: dict[Tenant, list[Event]] = {}
    for event in sorted(events, key=_event_id):
        by_tenant.setdefault(event.tenant, []).append(event)
    for tenant, tenant_events in sorted(by_tenant.items()):
        group = message.tenants.add(
            organization_id=tenant.organization_id,
            mode=tenant.mode,
        )
        add = group.events.add
        for event in tenant_events:
            add(
                event_id=event.event_id,
                metric=event.metric,
                amount=event.amount,
                customer_id=event.customer_id,
                time_unix_micros=event.time_micros,
                metadata_json=event.metadata_json,
            )
    return OutboxMessage(str(batch_id), BATCH_SUBJECT, message.SerializeToString())


class BatchOutbox:
    """A kit.outbox.OutboxSource over event_batches: pending is what aggregator has not applied."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pending(self, limit: int) -> list[PendingMessage]:
        """Batches that are not confirmed, oldest first."""
        async with self._database.transaction() as connection:
            batches = await repository.unapplied_batches(connection, limit)
        return [PendingMessage(str(batch_id), age_s) for batch_id, age_s in batches]

    async def load(self, message_ids: Sequence[str]) -> list[OutboxMessage]:
        """Their messages, rebuilt from the events: the oldest, at most LOAD_EVENTS_MAX events.

        The relay asks again for those that are left out.
        """
        batch_ids = [UUID(message_id) for message_id in message_ids]
        async with self._database.transaction() as connection:
            batches = await repository.load_batches(connection, batch_ids, LOAD_EVENTS_MAX)
        return [message_of(stored) for stored in batches]

    async def confirm(self, message_ids: Sequence[str]) -> None:
        """Aggregator has applied them."""
        batch_ids = [UUID(message_id) for message_id in message_ids]
        async with self._database.transaction() as connection:
            await repository.confirm_batches(connection, batch_ids)
