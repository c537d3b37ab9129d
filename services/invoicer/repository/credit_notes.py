"""Credit notes and their lines."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Row, Select, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.credit_notes import (
    CREDIT_NOTE_SERIES,
    CreditNote,
    CreditNoteDraft,
    CreditNoteLine,
    LateOrigin,
    key_conflict,
)
from services.invoicer.domain import InvoiceLine, invoice_number
from services.invoicer.repository.documents import chain, hash_of
from services.invoicer.repository.invoices import line_of, take_numbers
from services.invoicer.tables import (
    credit_note_changes,
    credit_note_lines,
    credit_notes,
    document_hashes,
)
from services.kit.database import TenantKey


async def insert_credit_note(
    connection: AsyncConnection,
    tenant: TenantKey,
    note_id: str,
    draft: CreditNoteDraft,
    key: tuple[str, bytes],
    now: datetime,
    origin: LateOrigin | None = None,
) -> CreditNote:
    """Store a credit note under the tenant's next number.

    `key`: under which key the caller sent it ("": none), and a digest of what was sent. `origin`:
    of one that has changes.
    ConflictError when the key was just used for another invoice. Until the transaction ends nobody
    else of the tenant gets a number: do this last.
    """
    (sequence,) = await take_numbers(connection, tenant, CREDIT_NOTE_SERIES, 1)
    number = invoice_number(CREDIT_NOTE_SERIES, sequence)
    idempotency_key, digest = key
    statement = (
        upsert(credit_notes)
        .values(
            **tenant._asdict(),
            id=note_id,
            invoice_id=draft.invoice_id,
            customer_id=draft.customer_id,
            currency=draft.currency,
            amount=draft.amount,
            reason=draft.reason,
            refund_reference=draft.refund_reference or None,
            lines_count=len(draft.lines),
            changes_count=len(draft.changes),
            reading_id=origin.reading_id if origin else None,
            next_invoice_id=(origin.next_invoice_id or None) if origin else None,
            series=CREDIT_NOTE_SERIES,
            sequence=sequence,
            number=number,
            idempotency_key=idempotency_key or None,
            content_digest=digest,
            create_time=now,
        )
        .on_conflict_do_nothing(constraint="uq_credit_notes_idempotency_key")
    )
    if (await connection.execute(statement)).rowcount == 0:
        raise key_conflict()
    lines = [
        {
            **tenant._asdict(),
            "credit_note_id": note_id,
            "invoice_id": draft.invoice_id,
            "position": line.position,
            "description": line.description,
            "amount": line.amount,
        }
        for line in draft.lines
    ]
    await connection.execute(insert(credit_note_lines), lines)
    if draft.changes:
        changes = [
            {
                **tenant._asdict(),
                "credit_note_id": note_id,
                "invoice_id": draft.invoice_id,
                "position": position,
                "kind": change.kind.value,
                "metric": change.metric or None,
                "description": change.description,
                "quantity": change.quantity,
                "included_units": change.included_units,
                "unit_price": change.unit_price,
                "amount": change.amount,
                "period_start": change.period.start,
                "period_end": change.period.end,
                "steps": list(change.steps),
            }
            for position, change in enumerate(draft.changes, start=1)
        ]
        await connection.execute(insert(credit_note_changes), changes)
    (digest,) = await chain(connection, tenant, CREDIT_NOTE_SERIES, [sequence])
    return CreditNote(note_id, number, draft, now, digest.hex())


async def credited_of(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str
) -> dict[int, Decimal]:
    """What credit notes have credited of an invoice, by the lines' positions."""
    columns = credit_note_lines.c
    query = (
        select(columns.position, func.sum(columns.amount).label("amount"))
        .where(
            columns.invoice_id == invoice_id,
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
        )
        .group_by(columns.position)
    )
    return {row.position: row.amount for row in await connection.execute(query)}


async def get_credit_note(
    connection: AsyncConnection, tenant: TenantKey, note_id: str
) -> CreditNote | None:
    """The credit note, or None."""
    rows = (await connection.execute(_of_tenant(tenant).where(credit_notes.c.id == note_id))).all()
    found = await _with_lines(connection, tenant, rows)
    return found[0] if found else None


async def find_by_key(
    connection: AsyncConnection, tenant: TenantKey, idempotency_key: str
) -> tuple[CreditNote, bytes] | None:
    """The credit note that was sent with a key, and the digest of what was sent; None: neither."""
    query = _of_tenant(tenant).where(credit_notes.c.idempotency_key == idempotency_key)
    rows = (await connection.execute(query)).all()
    found = await _with_lines(connection, tenant, rows)
    return (found[0], rows[0].content_digest) if found else None


async def list_credit_notes(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    customer_id: str,
    invoice_id: str,
    before_id: str | None,
    limit: int,
) -> list[CreditNote]:
    """Up to `limit` credit notes, newest first, older than `before_id`; "" for any."""
    query = _of_tenant(tenant)
    if customer_id:
        query = query.where(credit_notes.c.customer_id == customer_id)
    if invoice_id:
        query = query.where(credit_notes.c.invoice_id == invoice_id)
    if before_id is not None:
        query = query.where(credit_notes.c.id < before_id)
    rows = (await connection.execute(query.order_by(credit_notes.c.id.desc()).limit(limit))).all()
    return await _with_lines(connection, tenant, rows)


def _of_tenant(tenant: TenantKey) -> Select[tuple[object, ...]]:
    return (
        select(credit_notes, document_hashes.c.hash)
        .join(document_hashes, hash_of(credit_notes))
        .where(
            credit_notes.c.organization_id == tenant.organization_id,
            credit_notes.c.mode == tenant.mode,
        )
    )


async def _with_lines(
    connection: AsyncConnection, tenant: TenantKey, rows: Sequence[Row[tuple[object, ...]]]
) -> list[CreditNote]:
    if not rows:
        return []
    columns = credit_note_lines.c
    query = (
        select(credit_note_lines)
        .where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.credit_note_id.in_([row.id for row in rows]),
        )
        .order_by(columns.credit_note_id, columns.position)
    )
    lines: dict[str, list[CreditNoteLine]] = {}
    for row in await connection.execute(query):
        line = CreditNoteLine(row.position, row.description, row.amount)
        lines.setdefault(row.credit_note_id, []).append(line)
    changes = await _changes(connection, tenant, [row.id for row in rows if row.changes_count])
    return [_credit_note(row, tuple(lines[row.id]), tuple(changes.get(row.id, ()))) for row in rows]


async def _changes(
    connection: AsyncConnection, tenant: TenantKey, note_ids: Sequence[str]
) -> dict[str, list[InvoiceLine]]:
    if not note_ids:
        return {}
    columns = credit_note_changes.c
    query = (
        select(credit_note_changes)
        .where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.credit_note_id.in_(note_ids),
        )
        .order_by(columns.credit_note_id, columns.position)
    )
    changes: dict[str, list[InvoiceLine]] = {}
    for row in await connection.execute(query):
        changes.setdefault(row.credit_note_id, []).append(line_of(row))
    return changes


def _credit_note(
    row: Row[tuple[object, ...]],
    lines: tuple[CreditNoteLine, ...],
    changes: tuple[InvoiceLine, ...],
) -> CreditNote:
    draft = CreditNoteDraft(
        invoice_id=row.invoice_id,
        customer_id=row.customer_id,
        currency=row.currency,
        amount=row.amount,
        reason=row.reason,
        refund_reference=row.refund_reference or "",
        lines=lines,
        changes=changes,
    )
    return CreditNote(row.id, row.number, draft, row.create_time, row.hash.hex())
