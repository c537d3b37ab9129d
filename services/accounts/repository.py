"""All SQL of accounts. Each function works inside the caller's transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.domain import ApiKey, Organization, ResolvedKey, Settings
from services.accounts.tables import api_keys, organizations
from services.kit.database import TenantKey

_KEY_COLUMNS = [column for column in api_keys.c if column.name != "key_hash"]
_SETTINGS_COLUMNS = [
    organizations.c.event_past_days,
    organizations.c.event_retention_days,
    organizations.c.strict_metrics,
]


async def insert_organization(connection: AsyncConnection, organization: Organization) -> None:
    """Store a new organization."""
    await connection.execute(
        insert(organizations).values(
            id=organization.id,
            name=organization.name,
            create_time=organization.create_time,
            event_past_days=organization.settings.event_past_days,
            event_retention_days=organization.settings.event_retention_days,
            strict_metrics=organization.settings.strict_metrics,
        )
    )


async def get_organization(
    connection: AsyncConnection, organization_id: str, *, for_update: bool = False
) -> Organization | None:
    """The organization, or None; `for_update`: nobody else changes it before the commit."""
    query = select(organizations).where(organizations.c.id == organization_id)
    if for_update:
        # Rows that refer to it may still be added: the audit log's, by whoever holds its chain.
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _organization(row)


async def update_organization(connection: AsyncConnection, organization: Organization) -> None:
    """Store what may change of an organization."""
    await connection.execute(
        update(organizations)
        .where(organizations.c.id == organization.id)
        .values(
            name=organization.name,
            event_past_days=organization.settings.event_past_days,
            event_retention_days=organization.settings.event_retention_days,
            strict_metrics=organization.settings.strict_metrics,
        )
    )


async def list_organizations(
    connection: AsyncConnection, *, after_id: str | None, limit: int
) -> list[Organization]:
    """Up to `limit` organizations, oldest first (ids sort by time), newer than `after_id`."""
    query = select(organizations).order_by(organizations.c.id).limit(limit)
    if after_id is not None:
        query = query.where(organizations.c.id > after_id)
    return [_organization(row) for row in await connection.execute(query)]


async def insert_api_key(connection: AsyncConnection, key: ApiKey, key_hash: bytes) -> None:
    """Store a new key under its hash."""
    await connection.execute(
        insert(api_keys).values(
            id=key.id,
            organization_id=key.organization_id,
            mode=key.mode,
            name=key.name,
            prefix=key.prefix,
            key_hash=key_hash,
            scopes=list(key.scopes),
            create_time=key.create_time,
            expire_time=key.expire_time,
            revoke_time=key.revoke_time,
        )
    )


async def find_api_key(connection: AsyncConnection, key_hash: bytes) -> ResolvedKey | None:
    """The key with this hash, also when it is revoked or expired; or None."""
    query = (
        select(*_KEY_COLUMNS, *_SETTINGS_COLUMNS)
        .join_from(api_keys, organizations)
        .where(api_keys.c.key_hash == key_hash)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    values = row._asdict()
    settings = Settings(**{column.name: values.pop(column.name) for column in _SETTINGS_COLUMNS})
    return ResolvedKey(_api_key(values), settings)


async def list_api_keys(
    connection: AsyncConnection, tenant: TenantKey, *, before_id: str | None, limit: int
) -> list[ApiKey]:
    """Up to `limit` keys, newest first, older than `before_id`."""
    query = select(*_KEY_COLUMNS).where(
        api_keys.c.organization_id == tenant.organization_id, api_keys.c.mode == tenant.mode
    )
    if before_id is not None:
        query = query.where(api_keys.c.id < before_id)
    rows = await connection.execute(query.order_by(api_keys.c.id.desc()).limit(limit))
    return [_api_key(row._asdict()) for row in rows]


async def lock_api_key(
    connection: AsyncConnection, tenant: TenantKey, key_id: str
) -> ApiKey | None:
    """The tenant's key, which nobody else changes before the commit; or None."""
    query = select(*_KEY_COLUMNS).where(
        api_keys.c.id == key_id,
        api_keys.c.organization_id == tenant.organization_id,
        api_keys.c.mode == tenant.mode,
    )
    row = (await connection.execute(query.with_for_update())).one_or_none()
    return None if row is None else _api_key(row._asdict())


async def revoke_api_key(
    connection: AsyncConnection, tenant: TenantKey, key_id: str, revoke_time: datetime
) -> ApiKey | None:
    """Revoke the key unless it is revoked already; the key as it is now, or None."""
    statement = (
        update(api_keys)
        .where(
            api_keys.c.id == key_id,
            api_keys.c.organization_id == tenant.organization_id,
            api_keys.c.mode == tenant.mode,
        )
        .values(revoke_time=func.coalesce(api_keys.c.revoke_time, revoke_time))
        .returning(*_KEY_COLUMNS)
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _api_key(row._asdict())


async def note_use(connection: AsyncConnection, key_id: str, time: datetime) -> None:
    """Write when the key was used last."""
    await connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(use_time=time))


async def succeed(
    connection: AsyncConnection, key_id: str, successor_id: str, expire_time: datetime
) -> None:
    """The key works until `expire_time`; then its successor alone does."""
    await connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id)
        .values(successor_id=successor_id, expire_time=expire_time)
    )


def _organization(row: Row[Any]) -> Organization:
    settings = Settings(row.event_past_days, row.event_retention_days, row.strict_metrics)
    return Organization(row.id, row.name, row.create_time, settings)


def _api_key(values: dict[str, Any]) -> ApiKey:
    return ApiKey(**{**values, "scopes": tuple(values["scopes"])})
