"""Credit notes of invoices whose periods cost less after all, written with the next invoice."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.closing import Decrease, OpenPeriod, Usage
from services.invoicer.credit_notes import (
    CreditNote,
    CreditNoteDraft,
    LateOrigin,
    late_credit_lines,
)
from services.invoicer.crediting import write_credit_note
from services.invoicer.credits import OPEN_GRANTS_MAX
from services.invoicer.domain import Invoice, InvoiceStatus
from services.invoicer.exact import total
from services.invoicer.repository import credit_notes, invoices, ledger, payments
from services.invoicer.service.locking import lock_invoice
from services.kit.database import Database, TenantKey


@dataclass(frozen=True, slots=True)
class LateCredit:
    """An invoice, and the credit note that is to correct it."""

    invoice: Invoice
    draft: CreditNoteDraft


async def find_late_credits(
    connection: AsyncConnection,
    tenant: TenantKey,
    decreases: Sequence[Decrease],
    *,
    lock: bool = False,
) -> list[LateCredit]:
    """Those of the decreases, all of one subscription, that can be credit notes: of the others the
    next invoice has lines. `lock`: the caller has locked the subscription and will write them.
    """
    found = []
    grants = 0
    for decrease in sorted(decreases, key=lambda each: each.invoice_id):
        invoice = await invoices.get_invoice(connection, tenant, decrease.invoice_id, lock=lock)
        if invoice is None or invoice.status is InvoiceStatus.VOID:
            continue
        if await payments.is_being_paid(connection, tenant, invoice.id):
            continue
        if invoice.status is InvoiceStatus.PAID:
            wallet = (invoice.customer_id, invoice.currency)
            there = await ledger.open_grants(connection, tenant, [wallet])
            if len(there) + grants >= OPEN_GRANTS_MAX:
                continue
        credited = await credit_notes.credited_of(connection, tenant, invoice.id)
        lines = late_credit_lines(invoice, credited, decrease.changes)
        if lines:
            draft = CreditNoteDraft(
                invoice_id=invoice.id,
                customer_id=invoice.customer_id,
                currency=invoice.currency,
                amount=total(line.amount for line in lines),
                reason=decrease.reason,
                refund_reference="",
                lines=lines,
                changes=decrease.changes,
            )
            found.append(LateCredit(invoice, draft))
            grants += invoice.status is InvoiceStatus.PAID
    return found


async def write_late_credits(
    connection: AsyncConnection,
    tenant: TenantKey,
    found: Sequence[LateCredit],
    origin: LateOrigin,
    times: tuple[datetime, datetime],
    retry_days: Sequence[int],
) -> list[CreditNote]:
    """Write what find_late_credits found and locked. What is credited of a paid invoice becomes
    prepaid credit, which pays what is finalized after it in the same transaction. `times`: that of
    the customer, and the real one.
    """
    notes = []
    now, real = times
    # Before the counter of credit notes is held: the wallet may pay the invoice that follows, too.
    wallet = (found[0].invoice.customer_id, found[0].invoice.currency)
    await ledger.lock_wallet(connection, tenant, wallet, now)
    for each in found:
        locked = await lock_invoice(connection, tenant, each.invoice.id, real)
        content = f"{each.invoice.id} {origin.reading_id}".encode()
        note = await write_credit_note(
            connection,
            replace(locked, now=now),
            each.draft,
            ("", hashlib.sha256(content).digest()),
            retry_days,
            refund_to_credits=each.invoice.status is InvoiceStatus.PAID,
            origin=origin,
        )
        notes.append(note)
    return notes


async def credited_late(
    database: Database, due: OpenPeriod, usages: Sequence[Usage]
) -> frozenset[str]:
    """The invoices that would have credit notes if the period were closed now."""
    decreases = due.decreases(usages)
    if not decreases:
        return frozenset()
    tenant = due.subscription.tenant
    async with database.transaction() as connection:
        found = await find_late_credits(connection, tenant, decreases)
    return frozenset(each.invoice.id for each in found)
