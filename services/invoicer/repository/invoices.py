"""Invoices and their lines."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Row, Select, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.domain import (
    INVOICE_SERIES,
    Invoice,
    InvoiceDraft,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    invoice_number,
)
from services.invoicer.periods import Period
from services.invoicer.tables import invoice_counters, invoice_lines, invoices
from services.kit.database import TenantKey

_INSERT_LINES = text(
    """
    INSERT INTO invoice_lines (
        organization_id, mode, invoice_id, position, kind, metric, description, quantity,
        included_units, unit_price, amount, period_start, period_end, steps
    )
    SELECT CAST(:organization_id AS text), CAST(:mode AS text), CAST(:invoice_id AS text), line.*
    FROM unnest(
        CAST(:position AS integer[]), CAST(:kind AS text[]), CAST(:metric AS text[]),
        CAST(:description AS text[]), CAST(:quantity AS numeric[]),
        CAST(:included_units AS numeric[]), CAST(:unit_price AS numeric[]),
        CAST(:amount AS numeric[]), CAST(:period_start AS timestamptz[]),
        CAST(:period_end AS timestamptz[]), CAST(:steps AS json[])
    ) AS line
    """
)


async def insert_draft(
    connection: AsyncConnection,
    tenant: TenantKey,
    invoice_id: str,
    draft: InvoiceDraft,
    now: datetime,
) -> None:
    """Store a draft with its lines; IntegrityError when the period has an invoice already."""
    await connection.execute(
        insert(invoices).values(
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            id=invoice_id,
            customer_id=draft.customer_id,
            subscription_id=draft.subscription_id,
            plan_id=draft.plan_id,
            plan_version=draft.plan_version,
            period_start=draft.period.start,
            period_end=draft.period.end,
            currency=draft.currency,
            amount=draft.amount,
            create_time=now,
        )
    )
    lines = draft.lines
    await connection.execute(
        _INSERT_LINES,
        {
            "organization_id": tenant.organization_id,
            "mode": tenant.mode,
            "invoice_id": invoice_id,
            "position": list(range(1, len(lines) + 1)),
            "kind": [line.kind.value for line in lines],
            "metric": [line.metric or None for line in lines],
            "description": [line.description for line in lines],
            "quantity": [line.quantity for line in lines],
            "included_units": [line.included_units for line in lines],
            "unit_price": [line.unit_price for line in lines],
            "amount": [line.amount for line in lines],
            "period_start": [line.period.start for line in lines],
            "period_end": [line.period.end for line in lines],
            "steps": [json.dumps(line.steps, ensure_ascii=False) for line in lines],
        },
    )


async def finalize(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str, now: datetime
) -> str:
    """Make a draft final: PENDING, with the tenant's next number, which is returned.

    Until the transaction ends nobody else of the tenant gets a number, so that none is left out
    when it is rolled back: do this last.
    """
    take = (
        insert(invoice_counters)
        .values(
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            series=INVOICE_SERIES,
            newest_sequence=1,
        )
        .on_conflict_do_update(
            index_elements=["organization_id", "mode", "series"],
            set_={"newest_sequence": invoice_counters.c.newest_sequence + 1},
        )
        .returning(invoice_counters.c.newest_sequence)
    )
    sequence = (await connection.execute(take)).scalar_one()
    number = invoice_number(INVOICE_SERIES, sequence)
    await connection.execute(
        update(invoices)
        .where(
            invoices.c.organization_id == tenant.organization_id,
            invoices.c.mode == tenant.mode,
            invoices.c.id == invoice_id,
        )
        .values(
            status=InvoiceStatus.PENDING.value,
            sequence=sequence,
            number=number,
            finalize_time=now,
        )
    )
    return number


def _of_tenant(tenant: TenantKey) -> Select[tuple[object, ...]]:
    return select(invoices).where(
        invoices.c.organization_id == tenant.organization_id, invoices.c.mode == tenant.mode
    )


async def get_invoice(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str, *, lock: bool = False
) -> Invoice | None:
    """The invoice with its lines, or None; with `lock` nobody else changes it meanwhile."""
    query = _of_tenant(tenant).where(invoices.c.id == invoice_id)
    if lock:
        query = query.with_for_update()
    rows = (await connection.execute(query)).all()
    found = await _with_lines(connection, tenant, rows)
    return found[0] if found else None


async def list_invoices(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    customer_id: str,
    subscription_id: str,
    status: InvoiceStatus | None,
    before_id: str | None,
    limit: int,
) -> list[Invoice]:
    """Up to `limit` invoices with lines, newest first, older than `before_id`; "" for any."""
    query = _of_tenant(tenant)
    if customer_id:
        query = query.where(invoices.c.customer_id == customer_id)
    if subscription_id:
        query = query.where(invoices.c.subscription_id == subscription_id)
    if status is not None:
        query = query.where(invoices.c.status == status.value)
    if before_id is not None:
        query = query.where(invoices.c.id < before_id)
    rows = (await connection.execute(query.order_by(invoices.c.id.desc()).limit(limit))).all()
    return await _with_lines(connection, tenant, rows)


async def set_status(
    connection: AsyncConnection,
    tenant: TenantKey,
    invoice_id: str,
    status: InvoiceStatus,
    now: datetime,
) -> None:
    """PAID, FAILED (counted) or VOID; the database refuses what is not allowed."""
    values: dict[str, object] = {"status": status.value}
    if status is InvoiceStatus.PAID:
        values["paid_time"] = now
    elif status is InvoiceStatus.VOID:
        values["void_time"] = now
    elif status is InvoiceStatus.FAILED:
        values["failed_payments"] = invoices.c.failed_payments + 1
    await connection.execute(
        update(invoices)
        .where(
            invoices.c.organization_id == tenant.organization_id,
            invoices.c.mode == tenant.mode,
            invoices.c.id == invoice_id,
        )
        .values(**values)
    )


async def _with_lines(
    connection: AsyncConnection, tenant: TenantKey, rows: Sequence[Row[tuple[object, ...]]]
) -> list[Invoice]:
    if not rows:
        return []
    columns = invoice_lines.c
    query = (
        select(invoice_lines)
        .where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.invoice_id.in_([row.id for row in rows]),
        )
        .order_by(columns.invoice_id, columns.position)
    )
    lines: dict[str, list[InvoiceLine]] = {}
    for row in await connection.execute(query):
        lines.setdefault(row.invoice_id, []).append(_line(row))
    return [_invoice(row, tuple(lines.get(row.id, ()))) for row in rows]


def _invoice(row: Row[tuple[object, ...]], lines: tuple[InvoiceLine, ...]) -> Invoice:
    return Invoice(
        id=row.id,
        number=row.number or "",
        customer_id=row.customer_id,
        subscription_id=row.subscription_id,
        status=InvoiceStatus(row.status),
        currency=row.currency,
        amount=row.amount,
        period=Period(row.period_start, row.period_end),
        finalize_time=row.finalize_time,
        failed_payments=row.failed_payments,
        lines=lines,
    )


def _line(row: Row[tuple[object, ...]]) -> InvoiceLine:
    return InvoiceLine(
        kind=LineKind(row.kind),
        metric=row.metric or "",
        description=row.description,
        quantity=row.quantity,
        included_units=row.included_units,
        unit_price=row.unit_price,
        amount=row.amount,
        period=Period(row.period_start, row.period_end),
        steps=tuple(row.steps),
    )
