"""All SQL of ingest but that which stores events (writer.py).

Each function works inside the caller's transaction.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Interval,
    Row,
    Select,
    Text,
    any_,
    cast,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    types,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.expression import CollectionAggregate

from services.ingest.domain import (
    Event,
    EventFilter,
    EventPosition,
    StoredEvent,
    Tenant,
)
from services.ingest.events import Batch, Events, StoredBatch
from services.ingest.tables import event_batches, event_voids, events
from services.kit import clock

# How far a list looks back in its first query; by how much more in the next one, at most; and from
# where on at everything.
_STRETCH = timedelta(seconds=1)
_GROWTH_MAX = 15
_STRETCHES_SPAN_MAX = timedelta(days=200)
# Ids of batches begin with the time.
_NEWEST_ACCEPT_TIME = (
    select(event_batches.c.accept_time)
    .where(event_batches.c.event_count > 0)
    .order_by(event_batches.c.batch_id.desc())
    .limit(1)
)
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

    Looks at a second first, then at further stretches of time, so that the block ranges of the
    index on event_time are enough for the open segment: a page reads its newest blocks, not all of
    it. Closed segments have indexes for what may be asked (segment_keeper.py).
    """
    query = _filtered(_events_of(tenant), wanted, after).order_by(*_NEWEST_FIRST)
    # Without this a table that was never analyzed is read as a whole.
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
    upper = after.event_time if after else wanted.to_time or clock.now()
    # After a pause a longer stretch would be the first to meet any events, and meet very many.
    newest = await connection.scalar(_NEWEST_ACCEPT_TIME)
    upper = min(upper, newest) if newest else upper
    found: list[StoredEvent] = []
    # The first stretch has no upper end: events may lie somewhat ahead of the clock.
    later: datetime | None = None
    stretch = _STRETCH
    while len(found) < limit:
        earlier = (later or upper) - stretch
        is_last = upper - earlier > _STRETCHES_SPAN_MAX
        if wanted.from_time is not None and earlier <= wanted.from_time:
            is_last = True
        window = _between(wanted.from_time if is_last else earlier, later)
        missing = limit - len(found)
        page = await _fetch(connection, query.where(*window).limit(missing))
        found += page
        if is_last:
            break
        stretch *= _growth(len(page), missing - len(page))
        later = earlier
    return found


def _growth(found: int, missing: int) -> int:
    """How much longer the next stretch of time is: as long as twice the missing may need."""
    return min(max(2 * missing // found, 1), _GROWTH_MAX) if found else _GROWTH_MAX


def _between(earlier: datetime | None, later: datetime | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if earlier is not None:
        conditions.append(events.c.event_time >= earlier)
    if later is not None:
        conditions.append(events.c.event_time < later)
    return conditions


def _filtered(query: Select[Any], wanted: EventFilter, after: EventPosition | None) -> Select[Any]:
    if wanted.customer_id is not None:
        query = query.where(
            events.c.customer_id == wanted.customer_id,
            # Follows from the first condition; the index of closed segments has hashes.
            func.hashtextextended(events.c.customer_id, 0)
            == func.hashtextextended(wanted.customer_id, 0),
        )
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
    """The page's events, newest first, each with the time its batch was accepted, and its void."""
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
            event_voids.c.void_time,
            event_voids.c.reason,
        )
        .join(event_batches, event_batches.c.batch_id == columns.batch_id)
        .outerjoin(event_voids, event_voids.c.event_id == columns.event_id)
        .order_by(columns.event_time.desc(), columns.event_id.desc())
    )
    return [stored_event(row) for row in await connection.execute(query)]


def stored_event(row: Row[Any]) -> StoredEvent:
    """An event from a row that has its columns, its acceptance, and its void."""
    return StoredEvent(
        event_id=row.event_id.bytes,
        metric=row.metric,
        amount=row.amount,
        customer_id=row.customer_id or "",
        event_time=row.event_time,
        metadata_json=row.metadata or "",
        accept_time=row.accept_time,
        void_time=row.void_time,
        void_reason=row.reason or "",
    )


class Watermark(NamedTuple):
    """Everything committed before `instant` has been applied (see README, "Watermark").

    `all_applied`: nothing that was committed waits for aggregator.
    """

    instant: datetime
    all_applied: bool


async def watermark(connection: AsyncConnection) -> Watermark:
    """As of this transaction."""
    oldest = (
        select(func.min(event_batches.c.accept_time).label("accept_time"))
        .where(event_batches.c.apply_time.is_(None))
        .subquery()
        .c.accept_time
    )
    query = select(func.coalesce(oldest, _now()), oldest.is_(None))
    return Watermark(*(await connection.execute(query)).one())


class UnappliedBatch(NamedTuple):
    """A batch that aggregator has not confirmed."""

    batch_id: UUID
    age_s: float
    voids: bool


async def unapplied_batches(connection: AsyncConnection, limit: int) -> list[UnappliedBatch]:
    """Batches that may be sent and that aggregator has not confirmed, oldest first.

    A batch of voids may be once the batches of all its events are confirmed: aggregator can't take
    out what it has not counted yet.
    """
    columns = event_batches.c
    age = func.extract("epoch", _now() - columns.accept_time)
    of_event = event_batches.alias("of_event")
    waits = (
        select(literal(1))
        .join_from(event_voids, of_event, of_event.c.batch_id == event_voids.c.event_batch_id)
        .where(event_voids.c.batch_id == columns.batch_id, of_event.c.apply_time.is_(None))
        .correlate(event_batches)
    )
    query = (
        select(columns.batch_id, age, columns.void_count > 0)
        .where(columns.apply_time.is_(None), or_(columns.void_count == 0, ~waits.exists()))
        .order_by(columns.accept_time, columns.batch_id)
        .limit(limit)
    )
    return [
        UnappliedBatch(batch_id, float(age_s), voids)
        for batch_id, age_s, voids in await connection.execute(query)
    ]


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
    """The oldest of these batches, as many as hold `events_max` events, but at least one.

    Batches of voids are left out: see voids_repository.
    """
    columns = event_batches.c
    query = (
        select(columns.batch_id, columns.accept_time, columns.event_count, columns.segment)
        .where(columns.batch_id == _any_of(batch_ids), columns.event_count > 0)
        .order_by(columns.accept_time, columns.batch_id)
    )
    accept_times: dict[UUID, datetime] = {}
    segments: set[int] = set()
    count = 0
    for batch_id, accept_time, event_count, segment in await connection.execute(query):
        count += event_count
        if accept_times and count > events_max:
            break
        accept_times[batch_id] = accept_time
        segments.add(segment)
    contents = await _load_events(connection, list(accept_times), segments)
    return [
        StoredBatch(Batch(batch_id, contents[batch_id]), accept_time)
        for batch_id, accept_time in accept_times.items()
    ]


async def _load_events(
    connection: AsyncConnection, batch_ids: Sequence[UUID], segments: Iterable[int]
) -> dict[UUID, Events]:
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
        .where(
            events.c.batch_id == _any_of(batch_ids),
            events.c.segment == any_(literal(sorted(segments), ARRAY(Integer))),
        )
        .order_by(events.c.batch_id)
    )
    rows = await connection.execute(query)
    return {
        batch_id: Events.of(map(_event, batch))
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


def _any_of(ids: Sequence[UUID]) -> CollectionAggregate[bool]:
    """One parameter however many ids: the statement stays the same, and so does its plan."""
    return any_(literal(list(ids), ARRAY(types.UUID)))


def _now() -> ColumnElement[datetime]:
    """PostgreSQL's clock is that of all replicas; the offset is for tests and rehearsals."""
    return func.now() + literal(clock.offset(), Interval)
