"""SQL of endpoints, secrets, events, and of what is shown of deliveries.

Each function works inside the caller's transaction. What workers do is in queue_repository.py.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import TenantKey
from services.kit.ids import new_id
from services.notifier.domain import REPLAY_PAUSE, Attempt, Delivery, Endpoint, WebhookEvent
from services.notifier.tables import (
    deliveries,
    delivery_attempts,
    endpoint_secrets,
    endpoints,
    webhook_events,
)

# Of each delivery in a list: 100 deliveries must fit into one gRPC message.
ATTEMPTS_SHOWN_MAX = 20
RESPONSE_BYTES_SHOWN_MAX = 1_024
# Pending deliveries dropped with their endpoint; workers drop the rest as they come due.
DROPPED_AT_ONCE_MAX = 10_000


def _of_tenant(tenant: TenantKey) -> ColumnElement[bool]:
    return and_(
        endpoints.c.organization_id == tenant.organization_id, endpoints.c.mode == tenant.mode
    )


async def lock_tenant(connection: AsyncConnection, tenant: TenantKey) -> None:
    """Make other transactions that also call this for the tenant wait for this one's end."""
    key = f"notifier {tenant.organization_id} {tenant.mode}"
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))


async def insert_endpoint(connection: AsyncConnection, endpoint: Endpoint) -> None:
    """Store a new endpoint."""
    await connection.execute(
        insert(endpoints).values(
            id=endpoint.id,
            organization_id=endpoint.tenant.organization_id,
            mode=endpoint.tenant.mode,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            description=endpoint.description,
            enabled=endpoint.enabled,
            create_time=endpoint.create_time,
        )
    )


async def count_endpoints(connection: AsyncConnection, tenant: TenantKey) -> int:
    """How many endpoints the tenant has."""
    query = select(func.count()).where(_of_tenant(tenant), endpoints.c.delete_time.is_(None))
    return int((await connection.execute(query)).scalar_one())


async def get_endpoint(
    connection: AsyncConnection, tenant: TenantKey, endpoint_id: str, *, lock: bool = False
) -> Endpoint | None:
    """The endpoint unless it is deleted, locked against rotation and deletion if asked; or None."""
    query = select(endpoints).where(
        _of_tenant(tenant), endpoints.c.id == endpoint_id, endpoints.c.delete_time.is_(None)
    )
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _endpoint(row)


async def list_endpoints(
    connection: AsyncConnection, tenant: TenantKey, *, before_id: str | None, limit: int
) -> list[Endpoint]:
    """Up to `limit` endpoints, newest first, older than `before_id`."""
    query = select(endpoints).where(_of_tenant(tenant), endpoints.c.delete_time.is_(None))
    if before_id is not None:
        query = query.where(endpoints.c.id < before_id)
    rows = await connection.execute(query.order_by(endpoints.c.id.desc()).limit(limit))
    return [_endpoint(row) for row in rows]


async def endpoints_of(
    connection: AsyncConnection, tenants: Sequence[TenantKey]
) -> dict[TenantKey, list[Endpoint]]:
    """The enabled endpoints of each of these tenants."""
    query = select(endpoints).where(
        tuple_(endpoints.c.organization_id, endpoints.c.mode).in_(tenants),
        endpoints.c.delete_time.is_(None),
        endpoints.c.enabled,
    )
    found: dict[TenantKey, list[Endpoint]] = {tenant: [] for tenant in tenants}
    for row in await connection.execute(query):
        endpoint = _endpoint(row)
        found[endpoint.tenant].append(endpoint)
    return found


async def delete_endpoint(
    connection: AsyncConnection, tenant: TenantKey, endpoint_id: str, now: datetime
) -> bool:
    """End the endpoint and drop what is pending for it. False: the tenant never had it."""
    statement = (
        update(endpoints)
        .where(_of_tenant(tenant), endpoints.c.id == endpoint_id)
        .values(delete_time=func.coalesce(endpoints.c.delete_time, now), enabled=False)
    )
    if (await connection.execute(statement)).rowcount == 0:
        return False
    pending = (
        select(deliveries.c.id)
        .where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.status == text("'pending'"))
        .limit(DROPPED_AT_ONCE_MAX)
        .with_for_update()
    )
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(pending))
        .values(status="dropped", next_attempt_time=None, lease_until=None)
    )
    return True


async def insert_secret(
    connection: AsyncConnection, endpoint_id: str, key: bytes, now: datetime
) -> None:
    """Store the endpoint's current signing key; there must be no other current one."""
    await connection.execute(
        insert(endpoint_secrets).values(endpoint_id=endpoint_id, key=key, create_time=now)
    )


async def count_secrets(connection: AsyncConnection, endpoint_id: str, now: datetime) -> int:
    """How many keys sign now."""
    query = select(func.count()).where(
        endpoint_secrets.c.endpoint_id == endpoint_id,
        or_(endpoint_secrets.c.expire_time.is_(None), endpoint_secrets.c.expire_time > now),
    )
    return int((await connection.execute(query)).scalar_one())


async def expire_current_secret(
    connection: AsyncConnection, endpoint_id: str, expire_time: datetime
) -> None:
    """Let the current key sign until `expire_time` only."""
    await connection.execute(
        update(endpoint_secrets)
        .where(
            endpoint_secrets.c.endpoint_id == endpoint_id, endpoint_secrets.c.expire_time.is_(None)
        )
        .values(expire_time=expire_time)
    )


async def insert_events(connection: AsyncConnection, events: Sequence[WebhookEvent]) -> None:
    """Store new events."""
    values = [
        {
            "id": event.id,
            "organization_id": event.tenant.organization_id,
            "mode": event.tenant.mode,
            "type": event.type,
            "create_time": event.create_time,
            "body": event.body,
        }
        for event in events
    ]
    if values:
        await connection.execute(insert(webhook_events), values)


async def insert_deliveries(
    connection: AsyncConnection,
    pairs: Sequence[tuple[WebhookEvent, Endpoint]],
    now: datetime,
    due_time: datetime,
) -> list[str]:
    """Store a pending delivery for each event and endpoint; returns their ids."""
    values = [
        {
            "id": new_id("whd"),
            "organization_id": endpoint.tenant.organization_id,
            "mode": endpoint.tenant.mode,
            "event_id": event.id,
            "endpoint_id": endpoint.id,
            "status": "pending",
            "attempt_count": 0,
            "schedule_step": 0,
            "next_attempt_time": due_time,
            "create_time": now,
        }
        for event, endpoint in pairs
    ]
    if values:
        await connection.execute(insert(deliveries), values)
    return [str(value["id"]) for value in values]


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
    """The delivery with its last attempts, or None."""
    query = _delivery_query(tenant).where(deliveries.c.id == delivery_id)
    found = await _with_attempts(connection, query)
    return found[0] if found else None


async def list_deliveries(
    connection: AsyncConnection,
    tenant: TenantKey,
    endpoint_id: str,
    *,
    status: str | None,
    before_id: str | None,
    limit: int,
) -> list[Delivery]:
    """Up to `limit` deliveries of an endpoint, newest first, older than `before_id`."""
    query = _delivery_query(tenant).where(deliveries.c.endpoint_id == endpoint_id)
    if status is not None:
        query = query.where(deliveries.c.status == status)
    if before_id is not None:
        query = query.where(deliveries.c.id < before_id)
    return await _with_attempts(connection, query.order_by(deliveries.c.id.desc()).limit(limit))


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
    connection: AsyncConnection, query: Select[*tuple[Any, ...]]
) -> list[Delivery]:
    rows = (await connection.execute(query)).all()
    columns = delivery_attempts.c
    body = func.substring(columns.response_body, 1, RESPONSE_BYTES_SHOWN_MAX).label("body")
    wanted = (
        select(*columns, body)
        .join(deliveries, deliveries.c.id == columns.delivery_id)
        .where(
            columns.delivery_id.in_([row.id for row in rows]),
            columns.number > deliveries.c.attempt_count - ATTEMPTS_SHOWN_MAX,
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


def _endpoint(row: Row[*tuple[Any, ...]]) -> Endpoint:
    return Endpoint(
        id=row.id,
        tenant=TenantKey(row.organization_id, row.mode),
        url=row.url,
        event_types=tuple(row.event_types),
        description=row.description,
        enabled=row.enabled,
        create_time=row.create_time,
    )
