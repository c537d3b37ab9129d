"""Invoices and their lines."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Row, Select, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.domain import (
    INVOICE_SERIES,
    Invoice,
    InvoiceDraft,
    InvoiceLine,
    InvoiceStatus,
    LineKind,
    TaxAmount,
    invoice_number,
)
from services.invoicer.periods import Period
from services.invoicer.repository.documents import chain, hash_of
from services.invoicer.repository.settlements import NOTHING, Settlement, settlements_of
from services.invoicer.tables import document_hashes, invoice_lines, invoice_taxes, invoices
from services.kit.database import TenantKey

_INSERT_INVOICES = text(
    """
    INSERT INTO invoices (
        organization_id, mode, id, customer_id, subscription_id, plan_id, plan_version,
        period_start, period_end, exact_period_start, exact_period_end, currency, amount, kind,
        create_time
    )
    SELECT :organization_id, :mode, invoice.*, :now
    FROM unnest(
        CAST(:id AS text[]), CAST(:customer_id AS text[]), CAST(:subscription_id AS text[]),
        CAST(:plan_id AS text[]), CAST(:plan_version AS integer[]),
        CAST(:period_start AS timestamptz[]), CAST(:period_end AS timestamptz[]),
        CAST(:exact_start AS timestamptz[]), CAST(:exact_end AS timestamptz[]),
        CAST(:currency AS text[]), CAST(:amount AS numeric[]), CAST(:kind AS text[])
    ) AS invoice
    """
)

_INSERT_LINES = text(
    """
    INSERT INTO invoice_lines (
        organization_id, mode, invoice_id, position, kind, metric, description, quantity,
        included_units, unit_price, amount, period_start, period_end, steps, charge_id
    )
    SELECT :organization_id, :mode, line.*
    FROM unnest(
        CAST(:invoice_id AS text[]), CAST(:position AS integer[]), CAST(:kind AS text[]),
        CAST(:metric AS text[]), CAST(:description AS text[]), CAST(:quantity AS numeric[]),
        CAST(:included_units AS numeric[]), CAST(:unit_price AS numeric[]),
        CAST(:amount AS numeric[]), CAST(:period_start AS timestamptz[]),
        CAST(:period_end AS timestamptz[]), CAST(:steps AS json[]), CAST(:charge_id AS text[])
    ) AS line
    """
)

_INSERT_TAXES = text(
    """
    INSERT INTO invoice_taxes (
        organization_id, mode, invoice_id, position, tax_rate_id, name, percent, inclusive, taxable,
        amount
    )
    SELECT :organization_id, :mode, tax.*
    FROM unnest(
        CAST(:invoice_id AS text[]), CAST(:position AS integer[]), CAST(:tax_rate_id AS text[]),
        CAST(:name AS text[]), CAST(:percent AS numeric[]), CAST(:inclusive AS boolean[]),
        CAST(:taxable AS numeric[]), CAST(:amount AS numeric[])
    ) AS tax
    """
)

_TAKE_NUMBERS = text(
    """
    INSERT INTO invoice_counters AS counter (organization_id, mode, series, newest_sequence)
    VALUES (:organization_id, :mode, :series, :count)
    ON CONFLICT (organization_id, mode, series)
        DO UPDATE SET newest_sequence = counter.newest_sequence + :count
    RETURNING newest_sequence
    """
)

_FINALIZE = text(
    """
    UPDATE invoices i
    SET status = 'PENDING', sequence = given.sequence, number = given.number, finalize_time = :now
    FROM unnest(CAST(:id AS text[]), CAST(:sequence AS bigint[]), CAST(:number AS text[]))
        AS given (id, sequence, number)
    WHERE (i.organization_id, i.mode, i.id) = (:organization_id, :mode, given.id)
    """
)


async def insert_drafts(
    connection: AsyncConnection,
    tenant: TenantKey,
    drafts: Mapping[str, InvoiceDraft],
    now: datetime,
) -> None:
    """Store drafts, by invoice id, with their lines.

    IntegrityError when one's period has an invoice already.
    """
    invoices_given = drafts.values()
    await connection.execute(
        _INSERT_INVOICES,
        {
            **tenant._asdict(),
            "now": now,
            "id": list(drafts),
            "customer_id": [draft.customer_id for draft in invoices_given],
            "subscription_id": [draft.subscription_id or None for draft in invoices_given],
            "plan_id": [draft.plan_id or None for draft in invoices_given],
            "plan_version": [draft.plan_version or None for draft in invoices_given],
            "period_start": [draft.period.start for draft in invoices_given],
            "period_end": [draft.period.end for draft in invoices_given],
            "exact_start": [draft.exact and draft.exact.start for draft in invoices_given],
            "exact_end": [draft.exact and draft.exact.end for draft in invoices_given],
            "currency": [draft.currency for draft in invoices_given],
            "amount": [draft.amount for draft in invoices_given],
            "kind": [draft.kind.value for draft in invoices_given],
        },
    )
    entries = [
        (invoice_id, position, line)
        for invoice_id, draft in drafts.items()
        for position, line in enumerate(draft.lines, start=1)
    ]
    lines = [line for _, _, line in entries]
    await connection.execute(
        _INSERT_LINES,
        {
            **tenant._asdict(),
            "invoice_id": [invoice_id for invoice_id, _, _ in entries],
            "position": [position for _, position, _ in entries],
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
            "charge_id": [line.charge_id or None for line in lines],
        },
    )
    await _insert_taxes(connection, tenant, drafts)


async def _insert_taxes(
    connection: AsyncConnection, tenant: TenantKey, drafts: Mapping[str, InvoiceDraft]
) -> None:
    entries = [
        (invoice_id, position, tax)
        for invoice_id, draft in drafts.items()
        for position, tax in enumerate(draft.taxes, start=1)
    ]
    if not entries:
        return
    taxes = [tax for _, _, tax in entries]
    await connection.execute(
        _INSERT_TAXES,
        {
            **tenant._asdict(),
            "invoice_id": [invoice_id for invoice_id, _, _ in entries],
            "position": [position for _, position, _ in entries],
            "tax_rate_id": [tax.rate_id for tax in taxes],
            "name": [tax.name for tax in taxes],
            "percent": [tax.percent for tax in taxes],
            "inclusive": [tax.inclusive for tax in taxes],
            "taxable": [tax.taxable for tax in taxes],
            "amount": [tax.amount for tax in taxes],
        },
    )


async def finalize(
    connection: AsyncConnection, tenant: TenantKey, invoice_ids: Sequence[str], now: datetime
) -> list[str]:
    """Make drafts final: PENDING, with the tenant's next numbers, which are returned.

    Until the transaction ends nobody else of the tenant gets a number, so that none is left out
    when it is rolled back: do this last.
    """
    sequences = await take_numbers(connection, tenant, INVOICE_SERIES, len(invoice_ids))
    numbers = [invoice_number(INVOICE_SERIES, sequence) for sequence in sequences]
    await connection.execute(
        _FINALIZE,
        {
            **tenant._asdict(),
            "now": now,
            "id": list(invoice_ids),
            "sequence": sequences,
            "number": numbers,
        },
    )
    await chain(connection, tenant, INVOICE_SERIES, sequences)
    return numbers


async def take_numbers(
    connection: AsyncConnection, tenant: TenantKey, series: str, count: int
) -> list[int]:
    """The tenant's next `count` numbers of a series; all must be used in this transaction."""
    given = {**tenant._asdict(), "series": series, "count": count}
    newest = (await connection.execute(_TAKE_NUMBERS, given)).scalar_one()
    return list(range(newest - count + 1, newest + 1))


def _of_tenant(tenant: TenantKey) -> Select[tuple[object, ...]]:
    return (
        select(invoices, document_hashes.c.hash)
        .outerjoin(document_hashes, hash_of(invoices))
        .where(invoices.c.organization_id == tenant.organization_id, invoices.c.mode == tenant.mode)
    )


async def get_invoice(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str, *, lock: bool = False
) -> Invoice | None:
    """The invoice with its lines, or None; with `lock` nobody else changes it meanwhile."""
    query = _of_tenant(tenant).where(invoices.c.id == invoice_id)
    if lock:
        query = query.with_for_update(of=invoices)
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
    between: tuple[datetime | None, datetime | None] = (None, None),
    before_id: str | None,
    limit: int,
) -> list[Invoice]:
    """Up to `limit` invoices with lines, newest first, older than `before_id`; "" for any.

    `between`: finalized at or after, and before.
    """
    query = _of_tenant(tenant)
    if customer_id:
        query = query.where(invoices.c.customer_id == customer_id)
    if subscription_id:
        query = query.where(invoices.c.subscription_id == subscription_id)
    if status is not None:
        query = query.where(invoices.c.status == status.value)
    start, end = between
    if start is not None:
        query = query.where(invoices.c.finalize_time >= start)
    if end is not None:
        query = query.where(invoices.c.finalize_time < end)
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


async def set_paid(
    connection: AsyncConnection, tenant: TenantKey, invoice_ids: Sequence[str], now: datetime
) -> None:
    """Mark invoices paid that were just finalized."""
    columns = invoices.c
    await connection.execute(
        update(invoices)
        .where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.id.in_(invoice_ids),
        )
        .values(status=InvoiceStatus.PAID.value, paid_time=now)
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
        lines.setdefault(row.invoice_id, []).append(line_of(row))
    ids = [row.id for row in rows]
    taxes = await _taxes(connection, tenant, ids)
    settled = await settlements_of(connection, tenant, ids)
    return [
        _invoice(
            row,
            tuple(lines.get(row.id, ())),
            tuple(taxes.get(row.id, ())),
            settled.get(row.id, NOTHING),
        )
        for row in rows
    ]


async def _taxes(
    connection: AsyncConnection, tenant: TenantKey, invoice_ids: Sequence[str]
) -> dict[str, list[TaxAmount]]:
    columns = invoice_taxes.c
    query = (
        select(invoice_taxes)
        .where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.invoice_id.in_(invoice_ids),
        )
        .order_by(columns.invoice_id, columns.position)
    )
    taxes: dict[str, list[TaxAmount]] = {}
    for row in await connection.execute(query):
        tax = TaxAmount(
            row.tax_rate_id, row.name, row.percent, row.inclusive, row.taxable, row.amount
        )
        taxes.setdefault(row.invoice_id, []).append(tax)
    return taxes


def _invoice(
    row: Row[tuple[object, ...]],
    lines: tuple[InvoiceLine, ...],
    taxes: tuple[TaxAmount, ...],
    settled: Settlement,
) -> Invoice:
    return Invoice(
        id=row.id,
        number=row.number or "",
        customer_id=row.customer_id,
        subscription_id=row.subscription_id or "",
        status=InvoiceStatus(row.status),
        currency=row.currency,
        amount=row.amount,
        period=Period(row.period_start, row.period_end),
        finalize_time=row.finalize_time,
        hash=(row.hash or b"").hex(),
        failed_payments=row.failed_payments,
        lines=lines,
        taxes=taxes,
        credits_applied=settled.applied,
        credited=settled.credited,
    )


def line_of(row: Row[tuple[object, ...]]) -> InvoiceLine:
    """The line of a row; a credit note's changes are no charges."""
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
        charge_id=getattr(row, "charge_id", None) or "",
    )
