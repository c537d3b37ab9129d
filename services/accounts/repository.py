"""All SQL of accounts. Each function works inside the caller's transaction."""

from datetime import datetime

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.domain import ApiKey, Organization
from services.accounts.tables import api_keys, organizations
from services.kit.database import TenantKey

_KEY_COLUMNS = [column for column in api_keys.c if column.name != "key_hash"]


async def insert_organization(connection: AsyncConnection, organization: Organization) -> None:
    """Store a new organization."""
    await connection.execute(
        insert(organizations).values(
            id=organization.id, name=organization.name, create_time=organization.create_time
        )
    )


async def get_organization(
    connection: AsyncConnection, organization_id: str
) -> Organization | None:
    """The organization, or None."""
    query = select(organizations).where(organizations.c.id == organization_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Organization(row.id, row.name, row.create_time)


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


async def find_api_key(connection: AsyncConnection, key_hash: bytes) -> ApiKey | None:
    """The key with this hash, also when it is revoked or expired; or None."""
    query = select(*_KEY_COLUMNS).where(api_keys.c.key_hash == key_hash)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _api_key(row)


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
    return [_api_key(row) for row in rows]


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
    return None if row is None else _api_key(row)


def _api_key(row: Row[tuple[object, ...]]) -> ApiKey:
    values = row._asdict()
    values["scopes"] = tuple(values["scopes"])
    return ApiKey(**values)
