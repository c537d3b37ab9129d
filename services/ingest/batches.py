"""Batches as messages, and as the outbox whose messages are rebuilt from the events themselves."""

from collections.abc import Sequence
from operator import attrgetter
from uuid import UUID

from usageflow.events.v1 import events_pb2

from services.ingest import repository, voids_repository
from services.ingest.domain import Event, StoredBatch, Tenant
from services.ingest.event_message import delimited, usage_events
from services.kit.database import Database
from services.kit.outbox import OutboxMessage, PendingMessage

BATCH_SUBJECT = "usageflow.events.batch"
CONSUMER = "aggregator"
# Reading and building them holds the event loop for some tens of milliseconds.
LOAD_EVENTS_MAX = 5_000

_event_id = attrgetter("event_id")
_metric = attrgetter("metric")

_TENANTS = events_pb2.EventBatch.DESCRIPTOR.fields_by_name["tenants"].number
_EVENT_FIELDS = {field.name: field.number for field in events_pb2.TenantEvents.DESCRIPTOR.fields}


def message_of(stored: StoredBatch) -> OutboxMessage:
    """The EventBatch of what was committed: the same bytes whenever it is made."""
    return _message(stored, "events")


def void_message_of(stored: StoredBatch) -> OutboxMessage:
    """The EventBatch of voids, whose events `stored` holds: the same bytes whenever it is made."""
    return _message(stored, "voided_events")


def _message(stored: StoredBatch, field: str) -> OutboxMessage:
    (batch_id, events), accept_time = stored
    head = events_pb2.EventBatch(batch_id=str(batch_id))
    head.accept_time.FromDatetime(accept_time)
    parts = [head.SerializeToString()]
    for tenant, tenant_events in sorted(_by_tenant(sorted(events, key=_event_id)).items()):
        group = events_pb2.TenantEvents(
            organization_id=tenant.organization_id,
            mode=tenant.mode,  # type: ignore[arg-type] # the proto's number
        )
        content = group.SerializeToString() + usage_events(_EVENT_FIELDS[field], tenant_events)
        if field == "events":
            metrics = sorted(set(map(_metric, tenant_events)))
            content += events_pb2.TenantEvents(metrics=metrics).SerializeToString()
        parts.append(delimited(_TENANTS, content))
    return OutboxMessage(str(batch_id), BATCH_SUBJECT, b"".join(parts))


def _by_tenant(events: list[Event]) -> dict[Tenant, list[Event]]:
    # Mostly all are of one tenant, and that is one object (Tenant.of): not compared by content.
    if events and all(event.tenant is events[0].tenant for event in events):
        return {events[0].tenant: events}
    by_tenant: dict[Tenant, list[Event]] = {}
    for event in events:
        by_tenant.setdefault(event.tenant, []).append(event)
    return by_tenant


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
