"""SQL of what callers see and ask of deliveries. What workers do is in queue_repository.py.

Each function works inside the caller's transaction.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    func,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import TenantKey
from services.notifier.domain import (
    REPLAY_PAUSE,
    Attempt,
    Delivery,
    DeliveryFilter,
    EndpointStats,
)
from services.notifier.filters import known_types
from services.notifier.tables import deliveries, delivery_attempts, endpoints, webhook_events

# Of each delivery in a list: 100 deliveries must fit into one gRPC message.
ATTEMPTS_SHOWN_MAX = 20
RESPONSE_BYTES_SHOWN_MAX = 1_024
# Of one delivery alone.
ATTEMPTS_OF_ONE_MAX = 200
RESPONSE_BYTES_MAX = 16_384
OLDEST_LOOKED_AT_MAX = 10_000


async def replay_delivery(
    connection: AsyncConnection, tenant: TenantKey, delivery_id: str, now: datetime
) -> bool:
    """Make the delivery due now, from the start of the schedule. False: there is none.

    One that is pending, or that was replayed a moment ago, keeps its place.
    """
    columns = deliveries.c
    still = (
        select(endpoints.c.id)
        .where(endpoints.c.id == columns.endpoint_id, endpoints.c.delete_time.is_(None))
        .exists()
    )
    pending = columns.status == "pending"
    recent = func.coalesce(columns.replay_time > now - REPLAY_PAUSE, False)
    unchanged = recent & ~pending
    statement = (
        update(deliveries)
        .where(
            columns.id == delivery_id,
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            still,
        )
        .values(
            status=case((unchanged, columns.status), else_="pending"),
            schedule_step=case((unchanged | pending, columns.schedule_step), else_=0),
            next_attempt_time=case(
                (unchanged, columns.next_attempt_time),
                else_=func.least(columns.next_attempt_time, now),
            ),
            replay_time=case((unchanged | pending, columns.replay_time), else_=now),
        )
    )
    return (await connection.execute(statement)).rowcount == 1


async def get_delivery(
    connection: AsyncConnection, tenant: TenantKey, delivery_id: str
) -> Delivery | None:
    """The delivery with what is sent and all that its attempts got, or None."""
    query = _delivery_query(tenant).where(deliveries.c.id == delivery_id)
    found = await _with_attempts(
        connection,
        query.add_columns(webhook_events.c.body),
        attempts_max=ATTEMPTS_OF_ONE_MAX,
        response_bytes_max=RESPONSE_BYTES_MAX,
    )
    return found[0] if found else None


async def list_deliveries(
    connection: AsyncConnection,
    tenant: TenantKey,
    wanted: DeliveryFilter,
    *,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Delivery]:
    """Up to `limit` deliveries, newest first, older than `before` (create_time, id)."""
    columns = deliveries.c
    query = _delivery_query(tenant).where(*_within(columns.create_time, wanted))
    if wanted.endpoint_id:
        query = query.where(columns.endpoint_id == wanted.endpoint_id)
    if wanted.status is not None:
        query = query.where(columns.status == wanted.status)
    if wanted.event_type:
        types = known_types([wanted.event_type]) or [wanted.event_type]
        query = query.where(webhook_events.c.type.in_(types))
    if before is not None:
        query = query.where(tuple_(columns.create_time, columns.id) < tuple_(*before))
    order = (columns.create_time.desc(), columns.id.desc())
    return await _with_attempts(connection, query.order_by(*order).limit(limit))


def _within(
    column: ColumnElement[datetime], wanted: DeliveryFilter
) -> Iterator[ColumnElement[bool]]:
    if wanted.from_time is not None:
        yield column >= wanted.from_time
    if wanted.to_time is not None:
        yield column < wanted.to_time


def _delivery_query(tenant: TenantKey) -> Select[*tuple[Any, ...]]:
    event = and_(
        webhook_events.c.organization_id == deliveries.c.organization_id,
        webhook_events.c.mode == deliveries.c.mode,
        webhook_events.c.id == deliveries.c.event_id,
    )
    return (
        select(
            deliveries.c.id,
            deliveries.c.event_id,
            deliveries.c.endpoint_id,
            webhook_events.c.type,
            deliveries.c.status,
            deliveries.c.next_attempt_time,
            deliveries.c.create_time,
        )
        .join_from(deliveries, webhook_events, event)
        .where(
            deliveries.c.organization_id == tenant.organization_id,
            deliveries.c.mode == tenant.mode,
        )
    )


async def _with_attempts(
    connection: AsyncConnection,
    query: Select[*tuple[Any, ...]],
    attempts_max: int = ATTEMPTS_SHOWN_MAX,
    response_bytes_max: int = RESPONSE_BYTES_SHOWN_MAX,
) -> list[Delivery]:
    rows = (await connection.execute(query)).all()
    columns = delivery_attempts.c
    body = func.substring(columns.response_body, 1, response_bytes_max).label("body")
    wanted = (
        select(*columns, body)
        .join(deliveries, deliveries.c.id == columns.delivery_id)
        .where(
            columns.delivery_id.in_([row.id for row in rows]),
            columns.number > deliveries.c.attempt_count - attempts_max,
        )
        .order_by(columns.delivery_id, columns.number)
    )
    attempts: dict[str, list[Attempt]] = {row.id: [] for row in rows}
    for row in await connection.execute(wanted):
        attempts[row.delivery_id].append(_attempt(row))
    return [
        Delivery(
            id=row.id,
            event_id=row.event_id,
            endpoint_id=row.endpoint_id,
            event_type=row.type,
            status=row.status,
            next_attempt_time=row.next_attempt_time,
            create_time=row.create_time,
            attempts=tuple(attempts[row.id]),
            payload=getattr(row, "body", b""),
        )
        for row in rows
    ]


def _attempt(row: Row[*tuple[Any, ...]]) -> Attempt:
    return Attempt(
        start_time=row.start_time,
        duration_ms=row.duration_ms,
        response_status=row.response_status,
        error=row.error,
        response_body=row.body,
        number=row.number,
    )


_STATUSES = text(
    """
SELECT status, count(*) AS n FROM deliveries
WHERE endpoint_id = :endpoint_id AND create_time >= :from_time AND create_time < :to_time
GROUP BY status
"""
)
_ATTEMPTS = text(
    """
SELECT a.error, count(*) AS n, grouping(a.error) AS of_all,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY a.duration_ms) AS p50_ms,
    percentile_disc(0.95) WITHIN GROUP (ORDER BY a.duration_ms) AS p95_ms
FROM deliveries d JOIN delivery_attempts a ON a.delivery_id = d.id
WHERE d.endpoint_id = :endpoint_id AND d.create_time >= :from_time AND d.create_time < :to_time
GROUP BY GROUPING SETS ((a.error), ())
"""
)
# Exact unless so many are pending; then the oldest of those that have been due the longest.
_OLDEST_PENDING = text(
    """
SELECT min(create_time) FROM (
    SELECT create_time FROM deliveries WHERE endpoint_id = :endpoint_id AND status = 'pending'
    ORDER BY next_attempt_time LIMIT :looked_at_max
) p
"""
)


async def endpoint_stats(
    connection: AsyncConnection, endpoint_id: str, from_time: datetime, to_time: datetime
) -> EndpointStats:
    """What became of the deliveries of an endpoint that were made in [from_time, to_time)."""
    values = {"endpoint_id": endpoint_id, "from_time": from_time, "to_time": to_time}
    statuses = await connection.execute(_STATUSES, values)
    rows = (await connection.execute(_ATTEMPTS, values)).all()
    oldest = await connection.execute(
        _OLDEST_PENDING, {"endpoint_id": endpoint_id, "looked_at_max": OLDEST_LOOKED_AT_MAX}
    )
    (every,) = (row for row in rows if row.of_all)
    return EndpointStats(
        statuses={row.status: row.n for row in statuses},
        attempts={row.error: row.n for row in rows if not row.of_all},
        oldest_pending_time=oldest.scalar_one(),
        duration_p50_ms=every.p50_ms or 0,
        duration_p95_ms=every.p95_ms or 0,
    )
