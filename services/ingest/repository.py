"""All SQL of ingest but that which stores events (writer.py).

Each function works inside the caller's transaction.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Interval,
    Row,
    Select,
    Text,
    any_,
    cast,
    func,
    literal,
    select,
    text,
    tuple_,
    types,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import CollectionAggregate

from services.ingest.domain import (
    Batch,
    Event,
    EventFilter,
    EventPosition,
    StoredBatch,
    StoredEvent,
    Tenant,
)
from services.ingest.tables import event_batches, events
from services.kit import clock

SUMMARIZE_LOCK_TIMEOUT_MS = 200

# How far a list looks back in its first, second, .. query; then it looks at everything.
_WINDOWS = [timedelta(minutes=minutes) for minutes in (1, 16, 256, 4_096, 65_536)]
_NEWEST_FIRST = (events.c.event_time.desc(), events.c.event_id.desc())


async def find_event(
    connection: AsyncConnection, tenant: Tenant, event_id: bytes
) -> StoredEvent | None:
    """The tenant's event with this id, or None."""
    query = _events_of(tenant).where(events.c.event_id == UUID(bytes=event_id))
    found = await _fetch(connection, query)
    return found[0] if found else None


async def list_events(
    connection: AsyncConnection,
    tenant: Tenant,
    wanted: EventFilter,
    after: EventPosition | None,
    limit: int,
) -> list[StoredEvent]:
    """Up to `limit` of the tenant's events, newest first, after position `after`.

    Looks at a minute first, then at ever longer stretches of time, so that the block ranges of
    the index on event_time are enough: a page reads the newest blocks, not the whole table.
    """
    query = _filtered(_events_of(tenant), wanted, after).order_by(*_NEWEST_FIRST)
    # Without this a table that was never analyzed is read as a whole.
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
    upper = after.event_time if after else wanted.to_time or clock.now()
    found: list[StoredEvent] = []
    for window in _windows(upper, wanted.from_time):
        page = query.where(*window).limit(limit - len(found))
        found += await _fetch(connection, page)
        if len(found) == limit:
            break
    return found


def _windows(upper: datetime, lower: datetime | None) -> Iterator[list[ColumnElement[bool]]]:
    """Conditions that cut time before `lower`, or all of it, into pieces: the newest first.

    The first one has no upper end: events may lie somewhat ahead of the clock.
    """
    later: datetime | None = None
    for width in _WINDOWS:
        earlier = upper - width
        if lower is not None and earlier <= lower:
            break
        yield _between(earlier, later)
        later = earlier
    yield _between(lower, later)


def _between(earlier: datetime | None, later: datetime | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if earlier is not None:
        conditions.append(events.c.event_time >= earlier)
    if later is not None:
        conditions.append(events.c.event_time < later)
    return conditions


def _filtered(query: Select[Any], wanted: EventFilter, after: EventPosition | None) -> Select[Any]:
    if wanted.customer_id is not None:
        query = query.where(events.c.customer_id == wanted.customer_id)
    if wanted.metric is not None:
        query = query.where(events.c.metric == wanted.metric)
    if wanted.to_time is not None:
        query = query.where(events.c.event_time < wanted.to_time)
    if after is not None:
        position = tuple_(events.c.event_time, events.c.event_id)
        query = query.where(
            # The first condition follows from the second; an index can use it.
            events.c.event_time <= after.event_time,
            position < tuple_(literal(after.event_time), literal(UUID(bytes=after.event_id))),
        )
    return query


def _events_of(tenant: Tenant) -> Select[Any]:
    return select(events).where(
        events.c.organization_id == UUID(bytes=tenant.organization), events.c.mode == tenant.mode
    )


async def _fetch(connection: AsyncConnection, page: Select[Any]) -> list[StoredEvent]:
    """The page's events, newest first, each with the time its batch was accepted."""
    found = page.subquery()
    columns = found.c
    query = (
        select(
            columns.event_id,
            columns.metric,
            cast(columns.amount, Text).label("amount"),
            columns.customer_id,
            columns.event_time,
            columns.metadata,
            event_batches.c.accept_time,
        )
        .join(event_batches, event_batches.c.batch_id == columns.batch_id)
        .order_by(columns.event_time.desc(), columns.event_id.desc())
    )
    return [_stored_event(row) for row in await connection.execute(query)]


def _stored_event(row: Row[Any]) -> StoredEvent:
    return StoredEvent(
        event_id=row.event_id.bytes,
        metric=row.metric,
        amount=row.amount,
        customer_id=row.customer_id or "",
        event_time=row.event_time,
        metadata_json=row.metadata or "",
        accept_time=row.accept_time,
    )


async def watermark(connection: AsyncConnection) -> datetime:
    """Everything committed before this instant has been applied (see README, "Watermark")."""
    unapplied = select(func.min(event_batches.c.accept_time)).where(
        event_batches.c.apply_time.is_(None)
    )
    query = select(func.coalesce(unapplied.scalar_subquery(), _now()))
    instant: datetime = (await connection.execute(query)).scalar_one()
    return instant


async def unapplied_batches(connection: AsyncConnection, limit: int) -> list[tuple[UUID, float]]:
    """Batches that aggregator has not confirmed, oldest first, and their age in seconds."""
    age = func.extract("epoch", _now() - event_batches.c.accept_time)
    query = (
        select(event_batches.c.batch_id, age)
        .where(event_batches.c.apply_time.is_(None))
        .order_by(event_batches.c.accept_time, event_batches.c.batch_id)
        .limit(limit)
    )
    return [(batch_id, float(age_s)) for batch_id, age_s in await connection.execute(query)]


async def confirm_batches(connection: AsyncConnection, batch_ids: Sequence[UUID]) -> None:
    """Aggregator has applied these."""
    await connection.execute(
        update(event_batches)
        .where(event_batches.c.batch_id == _any_of(batch_ids), event_batches.c.apply_time.is_(None))
        .values(apply_time=_now())
    )


async def load_batches(
    connection: AsyncConnection, batch_ids: Sequence[UUID], events_max: int
) -> list[StoredBatch]:
    """The oldest of these batches, as many as hold `events_max` events, but at least one."""
    columns = event_batches.c
    query = (
        select(columns.batch_id, columns.accept_time, columns.event_count)
        .where(columns.batch_id == _any_of(batch_ids))
        .order_by(columns.accept_time, columns.batch_id)
    )
    accept_times: dict[UUID, datetime] = {}
    count = 0
    for batch_id, accept_time, event_count in await connection.execute(query):
        count += event_count
        if accept_times and count > events_max:
            break
        accept_times[batch_id] = accept_time
    contents = await _load_events(connection, list(accept_times))
    return [
        StoredBatch(Batch(batch_id, contents[batch_id]), accept_time)
        for batch_id, accept_time in accept_times.items()
    ]


async def _load_events(
    connection: AsyncConnection, batch_ids: Sequence[UUID]
) -> dict[UUID, list[Event]]:
    micros = cast(func.extract("epoch", events.c.event_time) * 1_000_000, BigInteger)
    query = (
        select(
            events.c.batch_id,
            events.c.event_id,
            events.c.organization_id,
            events.c.mode,
            events.c.metric,
            cast(events.c.amount, Text).label("amount"),
            events.c.customer_id,
            micros.label("time_micros"),
            events.c.metadata,
        )
        .where(events.c.batch_id == _any_of(batch_ids))
        .order_by(events.c.batch_id)
    )
    rows = await connection.execute(query)
    return {
        batch_id: [_event(row) for row in batch]
        for batch_id, batch in groupby(rows, lambda row: row.batch_id)
    }


def _event(row: Row[Any]) -> Event:
    return Event(
        event_id=row.event_id.bytes,
        tenant=Tenant(row.organization_id.bytes, row.mode),
        metric=row.metric,
        amount=row.amount,
        customer_id=row.customer_id or "",
        time_micros=row.time_micros,
        time_sent=True,
        metadata_json=row.metadata or "",
    )


async def summarize_block_ranges(connection: AsyncConnection) -> int:
    """Bring the block range index up to the newest full range; how many ranges were added.

    asyncpg's LockNotAvailableError inside a DBAPIError: somebody else is busy with the table, as a
    vacuum may be for long.
    """
    # Shorter than deadlock_timeout: a vacuum that we waited for longer would be cancelled.
    await connection.execute(text(f"SET LOCAL lock_timeout = {SUMMARIZE_LOCK_TIMEOUT_MS}"))
    query = select(func.brin_summarize_new_values("ix_events_batch_id_event_time"))
    added: int = (await connection.execute(query)).scalar_one()
    return added


def _any_of(ids: Sequence[UUID]) -> CollectionAggregate[bool]:
    """One parameter however many ids: the statement stays the same, and so does its plan."""
    return any_(literal(list(ids), ARRAY(types.UUID)))


def _now() -> ColumnElement[datetime]:
    """PostgreSQL's clock is that of all replicas; the offset is for tests and rehearsals."""
    return func.now() + literal(clock.offset(), Interval)
