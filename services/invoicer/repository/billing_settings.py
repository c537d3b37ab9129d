"""What organizations decide about their invoices."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Row, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_settings import NO_SETTINGS, BillingSettings, LateUsage
from services.invoicer.payments.domain import ProviderName
from services.invoicer.tables import billing_settings
from services.kit.database import TenantKey

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('billing_settings/' || :whose, 0))")


async def get_settings(
    connection: AsyncConnection, tenant: TenantKey, *, lock: bool = False
) -> BillingSettings:
    """The tenant's; with `lock` nobody else changes them until the transaction ends."""
    if lock:  # there need not be a row
        await connection.execute(_LOCK, {"whose": "/".join(tenant)})
    return (await settings_of(connection, [tenant])).get(tenant, NO_SETTINGS)


async def settings_of(
    connection: AsyncConnection, tenants: Iterable[TenantKey]
) -> dict[TenantKey, BillingSettings]:
    """Those of tenants that have decided something."""
    columns = billing_settings.c
    query = select(billing_settings).where(
        tuple_(columns.organization_id, columns.mode).in_([tuple(each) for each in set(tenants)])
    )
    rows = (await connection.execute(query)).all()
    return {TenantKey(row.organization_id, row.mode): _settings(row) for row in rows}


async def retry_days_of(
    connection: AsyncConnection, tenant: TenantKey, usual: tuple[int, ...]
) -> tuple[int, ...]:
    """When the tenant's payments are tried again; `usual`: as the installation has it."""
    return (await get_settings(connection, tenant)).retry_days_or(usual)


async def put_settings(
    connection: AsyncConnection, tenant: TenantKey, settings: BillingSettings, now: datetime
) -> None:
    """Store all of them; whoever does has the lock."""
    values: dict[str, object] = {
        "grace": settings.grace,
        "retry_days": None if settings.retry_days is None else list(settings.retry_days),
        "provider": settings.provider.value,
        "sealed_provider_key": settings.sealed_provider_key,
        "provider_key_hint": settings.provider_key_hint,
        "late_usage": settings.late_usage.value,
        "update_time": now,
    }
    statement = upsert(billing_settings).values(**tenant._asdict(), **values)
    statement = statement.on_conflict_do_update(constraint="pk_billing_settings", set_=values)
    await connection.execute(statement)


def _settings(row: Row[tuple[object, ...]]) -> BillingSettings:
    return BillingSettings(
        grace=row.grace,
        retry_days=None if row.retry_days is None else tuple(row.retry_days),
        provider=ProviderName(row.provider),
        sealed_provider_key=row.sealed_provider_key,
        provider_key_hint=row.provider_key_hint,
        late_usage=LateUsage(row.late_usage),
    )
