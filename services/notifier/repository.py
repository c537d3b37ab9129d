"""SQL of endpoints, secrets, events.

Each function works inside the caller's transaction. Deliveries are in delivery_repository.py
(what callers see of them) and queue_repository.py (what workers do with them).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Select,
    Text,
    all_,
    and_,
    delete,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import TenantKey
from services.kit.ids import new_id
from services.notifier.domain import Endpoint, WebhookEvent
from services.notifier.signing import SigningKey
from services.notifier.tables import deliveries, endpoint_secrets, endpoints, webhook_events

# Pending deliveries ended with their endpoint; workers end the rest as they come due.
ENDED_AT_ONCE_MAX = 10_000


def _of_tenant(tenant: TenantKey) -> ColumnElement[bool]:
    return and_(
        endpoints.c.organization_id == tenant.organization_id, endpoints.c.mode == tenant.mode
    )


async def lock_tenant(connection: AsyncConnection, tenant: TenantKey) -> None:
    """Make other transactions that also call this for the tenant wait for this one's end."""
    key = f"notifier {tenant.organization_id} {tenant.mode}"
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))


def _endpoint_query() -> Select[*tuple[Any, ...]]:
    """Endpoints with the kind of their current signing key."""
    current = and_(
        endpoint_secrets.c.endpoint_id == endpoints.c.id, endpoint_secrets.c.expire_time.is_(None)
    )
    return (
        select(endpoints, endpoint_secrets.c.kind, endpoint_secrets.c.public_key)
        .join_from(endpoints, endpoint_secrets, current)
        .where(endpoints.c.delete_time.is_(None))
    )


async def insert_endpoint(
    connection: AsyncConnection, endpoint: Endpoint, sealed_headers: bytes | None
) -> None:
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
            rate_limit=endpoint.rate_limit,
            header_names=list(endpoint.header_names),
            sealed_headers=sealed_headers,
        )
    )


async def update_endpoint(
    connection: AsyncConnection, endpoint_id: str, values: Mapping[str, object]
) -> None:
    """Set these columns of an endpoint that the caller has locked."""
    if values:
        await connection.execute(
            update(endpoints).where(endpoints.c.id == endpoint_id).values(dict(values))
        )


async def count_endpoints(connection: AsyncConnection, tenant: TenantKey) -> int:
    """How many endpoints the tenant has."""
    query = select(func.count()).where(_of_tenant(tenant), endpoints.c.delete_time.is_(None))
    return int((await connection.execute(query)).scalar_one())


async def get_endpoint(
    connection: AsyncConnection, tenant: TenantKey, endpoint_id: str, *, lock: bool = False
) -> Endpoint | None:
    """The endpoint unless it is deleted, locked against rotation and deletion if asked; or None."""
    query = _endpoint_query().where(_of_tenant(tenant), endpoints.c.id == endpoint_id)
    if lock:
        query = query.with_for_update(of=endpoints)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _endpoint(row)


async def list_endpoints(
    connection: AsyncConnection, tenant: TenantKey, *, before_id: str | None, limit: int
) -> list[Endpoint]:
    """Up to `limit` endpoints, newest first, older than `before_id`."""
    query = _endpoint_query().where(_of_tenant(tenant))
    if before_id is not None:
        query = query.where(endpoints.c.id < before_id)
    rows = await connection.execute(query.order_by(endpoints.c.id.desc()).limit(limit))
    return [_endpoint(row) for row in rows]


async def endpoints_of(
    connection: AsyncConnection, tenants: Sequence[TenantKey]
) -> dict[TenantKey, list[Endpoint]]:
    """The enabled endpoints of each of these tenants."""
    query = _endpoint_query().where(
        tuple_(endpoints.c.organization_id, endpoints.c.mode).in_(tenants), endpoints.c.enabled
    )
    found: dict[TenantKey, list[Endpoint]] = {tenant: [] for tenant in tenants}
    for row in await connection.execute(query):
        endpoint = _endpoint(row)
        found[endpoint.tenant].append(endpoint)
    return found


async def delete_endpoint(
    connection: AsyncConnection, tenant: TenantKey, endpoint_id: str, now: datetime
) -> bool:
    """End the endpoint, drop what is pending for it, forget its secrets.

    False: the tenant never had it.
    """
    statement = (
        update(endpoints)
        .where(_of_tenant(tenant), endpoints.c.id == endpoint_id)
        .values(
            delete_time=func.coalesce(endpoints.c.delete_time, now),
            enabled=False,
            header_names=[],
            sealed_headers=None,
        )
    )
    if (await connection.execute(statement)).rowcount == 0:
        return False
    await end_pending(connection, endpoint_id, "dropped")
    await connection.execute(
        delete(endpoint_secrets).where(endpoint_secrets.c.endpoint_id == endpoint_id)
    )
    return True


async def end_pending(connection: AsyncConnection, endpoint_id: str, status: str) -> None:
    """End what is pending for an endpoint: "dropped", as nobody sees it any more, or "failed"."""
    pending = (
        select(deliveries.c.id)
        .where(deliveries.c.endpoint_id == endpoint_id, deliveries.c.status == text("'pending'"))
        .limit(ENDED_AT_ONCE_MAX)
        .with_for_update()
    )
    await connection.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(pending))
        .values(status=status, next_attempt_time=None, lease_until=None)
    )


async def insert_secret(
    connection: AsyncConnection, endpoint_id: str, key: SigningKey, sealed: bytes, now: datetime
) -> None:
    """Store the endpoint's current signing key, sealed; there must be no other current one."""
    await connection.execute(
        insert(endpoint_secrets).values(
            endpoint_id=endpoint_id,
            kind=key.kind,
            sealed=sealed,
            public_key=key.public_key,
            create_time=now,
        )
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


_INSERT_EVENTS = text(
    """
INSERT INTO webhook_events (id, organization_id, mode, type, create_time, body)
SELECT * FROM unnest(
    CAST(:ids AS text[]), CAST(:organization_ids AS text[]), CAST(:modes AS text[]),
    CAST(:types AS text[]), CAST(:create_times AS timestamptz[]), CAST(:bodies AS bytea[])
)
ON CONFLICT DO NOTHING
RETURNING id
"""
)


async def insert_events(connection: AsyncConnection, events: Sequence[WebhookEvent]) -> set[str]:
    """Store events; returns the ids of those that were not there before."""
    if not events:
        return set()
    rows = await connection.execute(
        _INSERT_EVENTS,
        {
            "ids": [event.id for event in events],
            "organization_ids": [event.tenant.organization_id for event in events],
            "modes": [event.tenant.mode for event in events],
            "types": [event.type for event in events],
            "create_times": [event.create_time for event in events],
            "bodies": [event.body for event in events],
        },
    )
    return set(rows.scalars())


@dataclass(frozen=True, slots=True)
class TakenEvent:
    """An event as it is streamed; `take_time` is when notifier took it."""

    id: str
    type: str
    take_time: datetime
    body: bytes


async def database_time(connection: AsyncConnection) -> datetime:
    """The time that `take_time` is told in."""
    return (await connection.execute(select(func.now()))).scalar_one()


async def events_taken_since(
    connection: AsyncConnection,
    tenant: TenantKey,
    begin: datetime,
    *,
    known: Sequence[str],
    limit: int,
) -> list[TakenEvent]:
    """Up to `limit` events taken from `begin` on, in order, but for the known ones."""
    columns = webhook_events.c
    query = (
        select(columns.id, columns.type, columns.take_time, columns.body)
        .where(
            columns.take_time >= begin,
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.id != all_(literal(list(known), ARRAY(Text))),
        )
        .order_by(columns.take_time, columns.id)
        .limit(limit)
    )
    return [TakenEvent(*row) for row in await connection.execute(query)]


# Arrays, not a statement a row: an event may go to a hundred endpoints.
_INSERT_DELIVERIES = text(
    """
INSERT INTO deliveries (id, organization_id, mode, event_id, endpoint_id, status, attempt_count,
    schedule_step, next_attempt_time, create_time)
SELECT d.id, d.organization_id, d.mode, d.event_id, d.endpoint_id, 'pending', 0, 0,
    CAST(:due_time AS timestamptz), CAST(:now AS timestamptz)
FROM unnest(
    CAST(:ids AS text[]), CAST(:organization_ids AS text[]), CAST(:modes AS text[]),
    CAST(:event_ids AS text[]), CAST(:endpoint_ids AS text[])
) AS d (id, organization_id, mode, event_id, endpoint_id)
"""
)


async def insert_deliveries(
    connection: AsyncConnection,
    pairs: Sequence[tuple[WebhookEvent, Endpoint]],
    now: datetime,
    due_time: datetime,
) -> list[str]:
    """Store a pending delivery for each event and endpoint; returns their ids."""
    ids = [new_id("whd") for _ in pairs]
    if ids:
        await connection.execute(
            _INSERT_DELIVERIES,
            {
                "ids": ids,
                "organization_ids": [endpoint.tenant.organization_id for _, endpoint in pairs],
                "modes": [endpoint.tenant.mode for _, endpoint in pairs],
                "event_ids": [event.id for event, _ in pairs],
                "endpoint_ids": [endpoint.id for _, endpoint in pairs],
                "due_time": due_time,
                "now": now,
            },
        )
    return ids


def _endpoint(row: Row[*tuple[Any, ...]]) -> Endpoint:
    return Endpoint(
        id=row.id,
        tenant=TenantKey(row.organization_id, row.mode),
        url=row.url,
        event_types=tuple(row.event_types),
        description=row.description,
        create_time=row.create_time,
        enabled=row.enabled,
        rate_limit=row.rate_limit,
        header_names=tuple(row.header_names),
        signature_kind=row.kind,
        public_key=row.public_key,
        disabled_reason=row.disabled_reason,
        disable_time=row.disable_time,
        failing_since=row.failing_since,
        throttle_until=row.throttle_until,
    )
