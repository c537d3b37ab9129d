"""SQL of the audit log: it is added to and read, and nothing else (trigger keep_audit_log)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, FromClause, Select, Text, any_, cast, literal, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.tables import audit_heads, audit_log, organizations
from services.kit.audit import AuditEvent, audit_event
from services.kit.database import TenantKey
from services.kit.keys import KEY_MODES

# The audit log forgets nothing, so it is the inbox of what other services tell (kit/inbox.py).
inbox: FromClause = select(audit_log.c.id.label("message_id")).subquery("inbox")

Place = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What to list; None and "" take all. `group`: every action that begins so ("webhook.")."""

    action: str = ""
    group: str = ""
    target_id: str = ""
    key_id: str = ""
    from_time: datetime | None = None
    to_time: datetime | None = None


async def insert_events(connection: AsyncConnection, events: Sequence[AuditEvent]) -> int:
    """Add those that are not there yet, of organizations that exist; how many are new."""
    # In one order everywhere: an entry locks its tenant's chain, and nobody must deadlock.
    added = 0
    for event in sorted(events, key=lambda each: (each.tenant, each.id)):
        statement = insert(audit_log).values(
            id=event.id,
            organization_id=event.tenant.organization_id,
            mode=event.tenant.mode,
            action=event.action,
            target_id=event.target_id,
            key_id=event.key_id,
            request_id=event.request_id,
            time=event.time,
            details=cast(literal(event.details_json, Text), JSON),
        )
        added += (await connection.execute(statement.on_conflict_do_nothing())).rowcount
    return added


async def note_in_both_modes(
    connection: AsyncConnection,
    organization_id: str,
    action: str,
    *,
    target_id: str,
    by: str = "",
    details: Mapping[str, object],
) -> None:
    """Add what was done to the organization or its members: the audit logs of both modes tell it.

    `by`: the key or member who did it, "" for UsageFlow itself.
    """
    events = [
        audit_event(
            TenantKey(organization_id, mode),
            action,
            target_id=target_id,
            key_id=by,
            details=details,
        )
        for mode in KEY_MODES
    ]
    await insert_events(connection, events)


async def known_organizations(
    connection: AsyncConnection, organization_ids: Collection[str]
) -> set[str]:
    """Those of these organizations that exist."""
    ids = any_(literal(list(organization_ids), ARRAY(Text)))
    query = select(organizations.c.id).where(organizations.c.id == ids)
    return set((await connection.execute(query)).scalars())


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as the audit log has it: `number` in its tenant's chain, hashes of 32 bytes."""

    event: AuditEvent
    number: int
    previous_hash: bytes
    hash: bytes


async def list_events(
    connection: AsyncConnection,
    tenant: TenantKey,
    wanted: AuditFilter,
    *,
    before: Place | None,
    limit: int,
) -> list[Entry]:
    """Up to `limit` events of the tenant, newest first, older than `before`."""
    columns = audit_log.c
    query = _of_tenant(tenant)
    for column, value in (
        (columns.action, wanted.action),
        (columns.target_id, wanted.target_id),
        (columns.key_id, wanted.key_id),
    ):
        if value:
            query = query.where(column == value)
    if wanted.group:
        query = query.where(columns.action.startswith(wanted.group, autoescape=True))
    if wanted.from_time is not None:
        query = query.where(columns.time >= wanted.from_time)
    if wanted.to_time is not None:
        query = query.where(columns.time < wanted.to_time)
    if before is not None:
        query = query.where(tuple_(columns.time, columns.id) < before)
    query = query.order_by(columns.time.desc(), columns.id.desc()).limit(limit)
    return [_entry(row, tenant) for row in await connection.execute(query)]


async def chain_after(
    connection: AsyncConnection, tenant: TenantKey, number: int, limit: int
) -> list[Entry]:
    """Up to `limit` entries of the tenant's chain that follow the entry `number`, in its order."""
    query = _of_tenant(tenant).where(audit_log.c.number > number)
    rows = await connection.execute(query.order_by(audit_log.c.number).limit(limit))
    return [_entry(row, tenant) for row in rows]


async def head_of(connection: AsyncConnection, tenant: TenantKey) -> tuple[int, bytes]:
    """Number and hash of the last entry of the tenant's chain; 0 and zeros: there is none."""
    query = select(audit_heads.c.number, audit_heads.c.hash).where(
        audit_heads.c.organization_id == tenant.organization_id,
        audit_heads.c.mode == tenant.mode,
    )
    row = (await connection.execute(query)).one_or_none()
    return (0, bytes(32)) if row is None else (row.number, row.hash)


def _of_tenant(tenant: TenantKey) -> Select[Any]:
    columns = audit_log.c
    return select(*columns, cast(columns.details, Text).label("details_json")).where(
        columns.organization_id == tenant.organization_id, columns.mode == tenant.mode
    )


def _entry(row: Any, tenant: TenantKey) -> Entry:
    event = AuditEvent(
        id=row.id,
        tenant=tenant,
        action=row.action,
        target_id=row.target_id,
        key_id=row.key_id,
        request_id=row.request_id,
        time=row.time,
        details_json=row.details_json,
    )
    return Entry(event, row.number, row.previous_hash, row.hash)
