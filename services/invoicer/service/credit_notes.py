"""Credit notes."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited
from services.invoicer.checks import is_customer_id
from services.invoicer.credit_notes import (
    CreditNote,
    CreditNoteDraft,
    check_creditable,
    credit_lines,
    key_conflict,
)
from services.invoicer.crediting import write_credit_note
from services.invoicer.domain import Invoice
from services.invoicer.exact import total
from services.invoicer.payments.settling import check_not_being_paid
from services.invoicer.repository import billing_settings, credit_notes
from services.invoicer.service.locking import lock_invoice
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.wakes import Wakes
from services.invoicer.term_checks import CreditNoteInput, check_credit_note
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError
from services.kit.ids import is_id

log = structlog.get_logger()


class CreditNotes:
    """Corrections of invoices, which themselves never change."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        wakes: Wakes,
        *,
        retry_days: tuple[int, ...],
    ) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes
        self._retry_days = retry_days

    async def create_credit_note(
        self, tenant: TenantKey, given: CreditNoteInput
    ) -> tuple[CreditNote, bool]:
        """Credit lines of an invoice or all that is left of it; whether it was done before.

        PreconditionError when the invoice is void, or paid and no refund is told, or the other way
        round. ConflictError when the key was used for something else.
        """
        checks = FieldChecks()
        wanted = check_credit_note(checks, given)
        checks.done()
        async with self._database.transaction() as connection:
            # Under the invoice's lock all of this is done one after the other.
            locked = await lock_invoice(connection, tenant, given.invoice_id, self._now())
            invoice = locked.invoice
            earlier = await _sent_before(connection, tenant, given)
            if earlier is not None:
                return earlier, True
            refunded = bool(given.refund_reference) or given.refund_to_credits
            draft = await _draft(connection, tenant, invoice, given, wanted)
            check_creditable(invoice, refunded=refunded)
            await check_not_being_paid(connection, tenant, invoice.id)
            note = await write_credit_note(
                connection,
                locked,
                draft,
                (given.idempotency_key, given.digest),
                await billing_settings.retry_days_of(connection, tenant, self._retry_days),
                refund_to_credits=given.refund_to_credits,
            )
            await audited.note(
                connection, tenant, "credit_note.created", note.id, audited.credit_note(note)
            )
        log.info("credit_note_created", credit_note_id=note.id, number=note.number)
        self._wakes.relay()
        return note, False

    async def get_credit_note(self, tenant: TenantKey, note_id: str) -> CreditNote:
        """The credit note with its lines."""
        found = None
        if is_id(note_id, "cn"):
            async with self._database.transaction() as connection:
                found = await credit_notes.get_credit_note(connection, tenant, note_id)
        if found is None:
            raise NotFoundError("No such credit note")
        return found

    async def list_credit_notes(
        self, tenant: TenantKey, customer_id: str, invoice_id: str, page: Page
    ) -> tuple[list[CreditNote], str]:
        """A page of credit notes, of one customer and invoice or ("") of all."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "cn")
        if customer_id and not is_customer_id(customer_id):
            return [], ""
        if invoice_id and not is_id(invoice_id, "inv"):
            return [], ""
        async with self._database.transaction() as connection:
            found = await credit_notes.list_credit_notes(
                connection,
                tenant,
                customer_id=customer_id,
                invoice_id=invoice_id,
                before_id=before_id,
                limit=limit + 1,
            )
        return found[:limit], next_token([note.id for note in found], limit)


async def _draft(
    connection: AsyncConnection,
    tenant: TenantKey,
    invoice: Invoice,
    given: CreditNoteInput,
    wanted: dict[int, Decimal] | None,
) -> CreditNoteDraft:
    checks = FieldChecks()
    credited = await credit_notes.credited_of(connection, tenant, invoice.id)
    lines = credit_lines(checks, invoice, credited, wanted)
    checks.done()
    return CreditNoteDraft(
        invoice_id=invoice.id,
        customer_id=invoice.customer_id,
        currency=invoice.currency,
        amount=total(line.amount for line in lines),
        reason=given.reason,
        refund_reference=given.refund_reference,
        lines=lines,
    )


async def _sent_before(
    connection: AsyncConnection, tenant: TenantKey, given: CreditNoteInput
) -> CreditNote | None:
    """The credit note that was made under the key; None: there is no key, or it is new."""
    if not given.idempotency_key:
        return None
    found = await credit_notes.find_by_key(connection, tenant, given.idempotency_key)
    if found is None:
        return None
    note, digest = found
    if digest != given.digest:
        raise key_conflict()
    return note
