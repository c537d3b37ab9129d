"""SQL of links to the customer portal. Each function works inside the caller's transaction."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.domain import ClockTime
from services.accounts.tables import organizations, portal_links
from services.kit.database import TenantKey

_COLUMNS = [column for column in portal_links.c if column.name != "token_hash"]


@dataclass(frozen=True, slots=True)
class PortalLink:
    """A link that shows what is one customer's; `created_by`: the key or member who made it."""

    id: str
    organization_id: str
    mode: str
    customer_id: str
    created_by: str
    create_time: datetime
    expire_time: datetime
    revoke_time: datetime | None

    def works_at(self, time: datetime) -> bool:
        """Whether it has neither been revoked nor expired at `time`."""
        return self.revoke_time is None and time < self.expire_time


@dataclass(frozen=True, slots=True)
class ResolvedLink:
    """A link, what its organization decided, and in test mode its test clocks."""

    link: PortalLink
    event_past_days: int
    clocks: tuple[ClockTime, ...] = ()


def _of(tenant: TenantKey) -> Any:
    return (portal_links.c.organization_id == tenant.organization_id) & (
        portal_links.c.mode == tenant.mode
    )


async def insert_link(connection: AsyncConnection, link: PortalLink, token_hash: bytes) -> None:
    """Store a new link under the hash of its token."""
    values = {column.name: getattr(link, column.name) for column in _COLUMNS}
    await connection.execute(insert(portal_links).values(token_hash=token_hash, **values))


async def drop_old(
    connection: AsyncConnection, tenant: TenantKey, before: datetime, count_max: int
) -> None:
    """Delete up to `count_max` links that stopped working before that time, the oldest."""
    oldest = (
        select(portal_links.c.id)
        .where(_of(tenant), portal_links.c.expire_time < before)
        .order_by(portal_links.c.expire_time)
        .limit(count_max)
    )
    await connection.execute(
        delete(portal_links).where(portal_links.c.id.in_(oldest.scalar_subquery()))
    )


async def count_working(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str, now: datetime
) -> int:
    """How many links of the customer work."""
    query = (
        select(func.count())
        .select_from(portal_links)
        .where(
            _of(tenant),
            portal_links.c.customer_id == customer_id,
            portal_links.c.revoke_time.is_(None),
            portal_links.c.expire_time > now,
        )
    )
    return int((await connection.execute(query)).scalar_one())


async def list_links(
    connection: AsyncConnection,
    tenant: TenantKey,
    customer_id: str,
    *,
    before_id: str | None,
    limit: int,
) -> list[PortalLink]:
    """Up to `limit` links, newest first, older than `before_id`; `customer_id` "": of all."""
    query = select(*_COLUMNS).where(_of(tenant))
    if customer_id:
        query = query.where(portal_links.c.customer_id == customer_id)
    if before_id is not None:
        query = query.where(portal_links.c.id < before_id)
    rows = await connection.execute(query.order_by(portal_links.c.id.desc()).limit(limit))
    return [_link(row) for row in rows]


async def lock_link(
    connection: AsyncConnection, tenant: TenantKey, link_id: str
) -> PortalLink | None:
    """The tenant's link, which nobody else changes before the commit; or None."""
    query = select(*_COLUMNS).where(_of(tenant), portal_links.c.id == link_id)
    row = (await connection.execute(query.with_for_update())).one_or_none()
    return None if row is None else _link(row)


async def revoke_link(connection: AsyncConnection, link: PortalLink, time: datetime) -> PortalLink:
    """End it; the link as it is now."""
    await connection.execute(
        update(portal_links).where(portal_links.c.id == link.id).values(revoke_time=time)
    )
    return replace(link, revoke_time=time)


async def find_link(connection: AsyncConnection, token_hash: bytes) -> ResolvedLink | None:
    """The link with this token, also when it works no more; or None."""
    query = (
        select(*_COLUMNS, organizations.c.event_past_days)
        .join_from(portal_links, organizations)
        .where(portal_links.c.token_hash == token_hash)
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else ResolvedLink(_link(row), row.event_past_days)


async def organization_name(connection: AsyncConnection, organization_id: str) -> str:
    """The name of an organization that there is."""
    query = select(organizations.c.name).where(organizations.c.id == organization_id)
    return str((await connection.execute(query)).scalar_one())


def _link(row: Any) -> PortalLink:
    return PortalLink(**{column.name: getattr(row, column.name) for column in _COLUMNS})
