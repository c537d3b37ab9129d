"""Who issues invoices."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Row, Select, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.issuers import NO_ISSUER, Issuer
from services.invoicer.tables import issuers
from services.kit.database import TenantKey

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('issuer/' || :whose, 0))")


async def get_issuer(connection: AsyncConnection, tenant: TenantKey) -> tuple[Issuer, int]:
    """The newest version and its number; NO_ISSUER and 0 when nothing was set."""
    query = _of_tenant(tenant).order_by(issuers.c.version.desc()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return (NO_ISSUER, 0) if row is None else (_issuer(row), row.version)


async def issuer_at(connection: AsyncConnection, tenant: TenantKey, instant: datetime) -> Issuer:
    """The version that was set by then, or the first one that was set later."""
    by_then = issuers.c.create_time <= instant
    query = _of_tenant(tenant).order_by(
        by_then.desc(), func.abs(func.extract("epoch", issuers.c.create_time - instant))
    )
    row = (await connection.execute(query.limit(1))).one_or_none()
    return NO_ISSUER if row is None else _issuer(row)


async def insert_issuer(
    connection: AsyncConnection, tenant: TenantKey, issuer: Issuer, version: int, now: datetime
) -> None:
    """Store a version; whoever does has the lock."""
    values = {**tenant._asdict(), **asdict(issuer), "version": version, "create_time": now}
    await connection.execute(insert(issuers).values(**values))


async def lock_issuer(connection: AsyncConnection, tenant: TenantKey) -> None:
    """Let nobody else set the tenant's issuer until the transaction ends."""
    await connection.execute(_LOCK, {"whose": f"{tenant.organization_id}/{tenant.mode}"})


def _of_tenant(tenant: TenantKey) -> Select[tuple[object, ...]]:
    return select(issuers).where(
        issuers.c.organization_id == tenant.organization_id, issuers.c.mode == tenant.mode
    )


def _issuer(row: Row[tuple[object, ...]]) -> Issuer:
    return Issuer(row.name, row.address, row.tax_id, row.email, row.footer, row.logo)
