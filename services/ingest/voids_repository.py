"""The SQL of voids. Each function works inside the caller's transaction.

A void is never changed, so what was read once stays true. Everything about an event is found by its
id, in `events` as in `event_voids`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Text,
    any_,
    bindparam,
    cast,
    func,
    literal,
    select,
    text,
    types,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import CollectionAggregate

from services.ingest.domain import Event, Tenant
from services.ingest.events import Batch, Events, StoredBatch
from services.ingest.tables import event_batches, event_voids, events
from services.kit import clock


async def prefer_indexes(connection: AsyncConnection) -> None:
    """Let this transaction find events by id only: an open segment has no statistics, and a plan
    that reads one as a whole would take minutes.
    """
    await connection.execute(text("SET LOCAL enable_seqscan = off"))


class VoidableEvent(NamedTuple):
    """An event that exists, and how many bytes its metadata take."""

    event_id: bytes
    metadata_bytes: int


@dataclass(frozen=True, slots=True)
class Void:
    """A void as it is stored, and the batch that it travels in."""

    event_id: bytes
    batch_id: UUID
    void_time: datetime


async def find_voidable(
    connection: AsyncConnection, tenant: Tenant, event_ids: Iterable[bytes]
) -> list[VoidableEvent]:
    """Those of the tenant's events with these ids that exist and are not void, by id."""
    columns = events.c
    query = (
        select(columns.event_id, func.octet_length(func.coalesce(columns.metadata, "")))
        .where(
            columns.event_id == _any_of(event_ids),
            columns.organization_id == UUID(bytes=tenant.organization),
            columns.mode == tenant.mode,
            ~select(event_voids).where(event_voids.c.event_id == columns.event_id).exists(),
        )
        .order_by(columns.event_id)
    )
    rows = await connection.execute(query)
    return [VoidableEvent(event_id.bytes, size) for event_id, size in rows]


# In the order of their ids: two transactions with the same events wait, and never deadlock. Void
# and batch have the time at which the transaction began, as the batches of events have.
_INSERT_VOIDS = text("""
WITH voided AS (
    INSERT INTO event_voids (event_id, organization_id, batch_id, event_batch_id, mode, event_time,
        void_time, amount, metric, customer_id, metadata, key_id, reason)
    SELECT event_id, organization_id, wanted.batch_id, events.batch_id, mode, event_time,
        now() + :clock_offset, amount, metric, customer_id, metadata, :key_id, :reason
    FROM events JOIN unnest(:event_ids, :batch_ids) AS wanted (event_id, batch_id) USING (event_id)
    WHERE organization_id = :organization_id AND mode = :mode
        AND event_id = ANY (:event_ids)
    ORDER BY event_id
    ON CONFLICT (event_id) DO NOTHING
    RETURNING batch_id
)
INSERT INTO event_batches (batch_id, accept_time, event_count, void_count)
SELECT batch_id, now() + :clock_offset, 0, count(*) FROM voided GROUP BY batch_id
""").bindparams(
    bindparam("clock_offset", type_=types.Interval),
    bindparam("event_ids", type_=ARRAY(types.UUID)),
    bindparam("batch_ids", type_=ARRAY(types.UUID)),
    bindparam("organization_id", type_=types.UUID),
)


async def insert_voids(
    connection: AsyncConnection,
    tenant: Tenant,
    batches: Mapping[bytes, UUID],
    *,
    key_id: str,
    reason: str,
) -> None:
    """Void the tenant's events (id to the batch of its void) that are not void yet.

    A transaction that is just voiding one of them is waited for: its void stays, ours is none.
    """
    await connection.execute(
        _INSERT_VOIDS,
        {
            "clock_offset": clock.offset(),
            "event_ids": [UUID(bytes=event_id) for event_id in batches],
            "batch_ids": list(batches.values()),
            "organization_id": UUID(bytes=tenant.organization),
            "mode": tenant.mode,
            "key_id": key_id,
            "reason": reason,
        },
    )


async def find_voids(
    connection: AsyncConnection, tenant: Tenant, event_ids: Iterable[bytes]
) -> dict[bytes, Void]:
    """The voids of those of the tenant's events that are void, by event id."""
    columns = event_voids.c
    query = select(columns.event_id, columns.batch_id, columns.void_time).where(
        columns.event_id == _any_of(event_ids),
        columns.organization_id == UUID(bytes=tenant.organization),
        columns.mode == tenant.mode,
    )
    found = (
        Void(row.event_id.bytes, row.batch_id, row.void_time)
        for row in await connection.execute(query)
    )
    return {void.event_id: void for void in found}


async def load_batches(
    connection: AsyncConnection, batch_ids: Sequence[UUID], voids_max: int
) -> list[StoredBatch]:
    """The oldest of these batches of voids, as many as hold `voids_max`, but at least one.

    Each with the events that it voids, as they were accepted. Batches of events are left out.
    """
    batches = event_batches.c
    query = (
        select(batches.batch_id, batches.accept_time, batches.void_count)
        .where(
            batches.batch_id == any_(literal(list(batch_ids), ARRAY(types.UUID))),
            batches.void_count > 0,
        )
        .order_by(batches.accept_time, batches.batch_id)
    )
    accept_times: dict[UUID, datetime] = {}
    count = 0
    for batch_id, accept_time, void_count in await connection.execute(query):
        count += void_count
        if accept_times and count > voids_max:
            break
        accept_times[batch_id] = accept_time
    contents = await _load_voided(connection, list(accept_times)) if accept_times else {}
    return [
        StoredBatch(Batch(batch_id, Events.of(contents[batch_id])), accept_time)
        for batch_id, accept_time in accept_times.items()
    ]


async def _load_voided(
    connection: AsyncConnection, batch_ids: Sequence[UUID]
) -> dict[UUID, list[Event]]:
    columns = event_voids.c
    query = select(
        columns.batch_id,
        columns.event_id,
        columns.organization_id,
        columns.mode,
        columns.metric,
        cast(columns.amount, Text).label("amount"),
        columns.customer_id,
        cast(func.extract("epoch", columns.event_time) * 1_000_000, BigInteger).label("time"),
        columns.metadata,
    ).where(columns.batch_id == any_(literal(list(batch_ids), ARRAY(types.UUID))))
    voided: dict[UUID, list[Event]] = {}
    for row in await connection.execute(query):
        event = Event(
            event_id=row.event_id.bytes,
            tenant=Tenant(row.organization_id.bytes, row.mode),
            metric=row.metric,
            amount=row.amount,
            customer_id=row.customer_id or "",
            time_micros=row.time,
            time_sent=True,
            metadata_json=row.metadata or "",
        )
        voided.setdefault(row.batch_id, []).append(event)
    return voided


def _any_of(event_ids: Iterable[bytes]) -> CollectionAggregate[bool]:
    """One parameter however many ids: the statement stays the same, and so does its plan."""
    return any_(literal([UUID(bytes=event_id) for event_id in event_ids], ARRAY(types.UUID)))
