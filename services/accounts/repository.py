"""All SQL of accounts. Each function works inside the caller's transaction."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.domain import ApiKey, KeyLimits, Organization, ResolvedKey, Settings
from services.accounts.tables import api_keys, organizations
from services.kit.database import TenantKey

_KEY_COLUMNS = [column for column in api_keys.c if column.name != "key_hash"]
# Columns of one name are in both tables: an organization's have another when both are read.
_SETTINGS: Final = (
    "event_past_days",
    "event_retention_days",
    "strict_metrics",
    "requests_per_second",
    "events_per_second",
)
_OF_ORGANIZATION: Final = "organization_"
_SETTINGS_COLUMNS = [organizations.c[name].label(_OF_ORGANIZATION + name) for name in _SETTINGS]


async def insert_organization(connection: AsyncConnection, organization: Organization) -> None:
    """Store a new organization."""
    await connection.execute(
        insert(organizations).values(
            id=organization.id,
            name=organization.name,
            create_time=organization.create_time,
            **_settings_values(organization.settings),
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
            **_settings_values(organization.settings),
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
            **_limit_values(key.limits),
        )
    )


async def update_api_key(connection: AsyncConnection, key: ApiKey) -> None:
    """Store what may change of a key."""
    await connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key.id)
        .values(name=key.name, **_limit_values(key.limits))
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
    settings = Settings(**{name: values.pop(_OF_ORGANIZATION + name) for name in _SETTINGS})
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


async def get_api_key(
    connection: AsyncConnection, tenant: TenantKey, key_id: str, *, for_update: bool = False
) -> ApiKey | None:
    """The tenant's key, or None; `for_update`: nobody else changes it before the commit."""
    query = select(*_KEY_COLUMNS).where(
        api_keys.c.id == key_id,
        api_keys.c.organization_id == tenant.organization_id,
        api_keys.c.mode == tenant.mode,
    )
    if for_update:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _api_key(row._asdict())


async def revoke_api_key(connection: AsyncConnection, key_id: str, revoke_time: datetime) -> None:
    """Revoke a key that the caller has locked."""
    await connection.execute(
        update(api_keys).where(api_keys.c.id == key_id).values(revoke_time=revoke_time)
    )


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
    settings = Settings(**{name: getattr(row, name) for name in _SETTINGS})
    return Organization(row.id, row.name, row.create_time, settings)


def _settings_values(settings: Settings) -> dict[str, int]:
    return {name: getattr(settings, name) for name in _SETTINGS}


def _api_key(values: dict[str, Any]) -> ApiKey:
    rest = dict(values)
    limits = KeyLimits(
        networks=tuple(str(each) for each in rest.pop("allowed_networks")),
        requests_per_second=rest.pop("requests_per_second"),
        events_per_second=rest.pop("events_per_second"),
    )
    return ApiKey(**{**rest, "scopes": tuple(rest["scopes"]), "limits": limits})


def _limit_values(limits: KeyLimits) -> dict[str, Any]:
    return {
        "allowed_networks": list(limits.networks),
        "requests_per_second": limits.requests_per_second,
        "events_per_second": limits.events_per_second,
    }
