"""SQL of what was invoiced and what still will be. Each function works inside the caller's
transaction.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.domain import InvoiceStatus, Subscription
from services.invoicer.repository.subscriptions import with_phases
from services.invoicer.tables import credit_notes, invoices, subscriptions
from services.kit.database import TenantKey

Sums = Mapping[str, Decimal]
_BILLED = [
    InvoiceStatus.PENDING.value,
    InvoiceStatus.PAID.value,
    InvoiceStatus.FAILED.value,
]


async def sum_invoiced(
    connection: AsyncConnection, tenant: TenantKey, start: datetime, end: datetime
) -> Sums:
    """What invoices that were finalized in [start, end) and are not void come to, by currency."""
    return await _sums(
        connection,
        select(invoices.c.currency, func.sum(invoices.c.amount).label("amount"))
        .where(
            invoices.c.organization_id == tenant.organization_id,
            invoices.c.mode == tenant.mode,
            invoices.c.status.in_(_BILLED),
            invoices.c.finalize_time >= start,
            invoices.c.finalize_time < end,
        )
        .group_by(invoices.c.currency),
    )


async def sum_credited(
    connection: AsyncConnection, tenant: TenantKey, start: datetime, end: datetime
) -> Sums:
    """What credit notes made in [start, end) come to, by currency."""
    return await _sums(
        connection,
        select(credit_notes.c.currency, func.sum(credit_notes.c.amount).label("amount"))
        .where(
            credit_notes.c.organization_id == tenant.organization_id,
            credit_notes.c.mode == tenant.mode,
            credit_notes.c.create_time >= start,
            credit_notes.c.create_time < end,
        )
        .group_by(credit_notes.c.currency),
    )


async def list_running(
    connection: AsyncConnection, tenant: TenantKey, limit: int
) -> list[Subscription]:
    """Up to `limit` subscriptions with a period that is not invoiced yet, newest first."""
    query = (
        select(subscriptions)
        .where(
            subscriptions.c.organization_id == tenant.organization_id,
            subscriptions.c.mode == tenant.mode,
            subscriptions.c.period_end.is_not(None),
        )
        .order_by(subscriptions.c.id.desc())
        .limit(limit)
    )
    return await with_phases(connection, (await connection.execute(query)).all())


async def _sums(connection: AsyncConnection, query: Any) -> Sums:
    return {row.currency: row.amount for row in await connection.execute(query)}
