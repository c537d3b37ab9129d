"""Credit notes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited
from services.invoicer.billing_events import credit_note_event
from services.invoicer.checks import is_customer_id
from services.invoicer.clocks import now_of
from services.invoicer.credit_notes import (
    CreditNote,
    CreditNoteDraft,
    check_creditable,
    credit_lines,
    credit_needed_no_more,
    key_conflict,
)
from services.invoicer.credit_use import bring_in, give_back
from services.invoicer.credits import PRIORITY_DEFAULT, CreditGrant, GrantKind
from services.invoicer.domain import Invoice
from services.invoicer.exact import total
from services.invoicer.payments.settling import check_not_being_paid
from services.invoicer.repository import clocks, credit_notes, ledger
from services.invoicer.repository.events import add_events
from services.invoicer.service.locking import require_invoice
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.wakes import Wakes
from services.invoicer.term_checks import CreditNoteInput, check_credit_note
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError
from services.kit.ids import is_id, new_id

log = structlog.get_logger()


class CreditNotes:
    """Corrections of invoices, which themselves never change."""

    def __init__(self, database: Database, now: Callable[[], datetime], wakes: Wakes) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes

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
            invoice = await require_invoice(connection, tenant, given.invoice_id, lock=True)
            earlier = await _sent_before(connection, tenant, given)
            if earlier is not None:
                return earlier, True
            refunded = bool(given.refund_reference) or given.refund_to_credits
            check_creditable(invoice, refunded=refunded)
            await check_not_being_paid(connection, tenant, invoice.id)
            draft = await _draft(connection, tenant, invoice, given, wanted)
            clock = await clocks.clock_of(connection, tenant, invoice.customer_id)
            now = now_of(clock, self._now())
            if not refunded:
                too_much = credit_needed_no_more(invoice, draft.amount)
                await give_back(connection, tenant, invoice, too_much, given.reason, now)
            note = await self._write(connection, tenant, draft, given, now)
        log.info("credit_note_created", credit_note_id=note.id, number=note.number)
        self._wakes.relay()
        return note, False

    async def _write(
        self,
        connection: AsyncConnection,
        tenant: TenantKey,
        draft: CreditNoteDraft,
        given: CreditNoteInput,
        now: datetime,
    ) -> CreditNote:
        """The credit note, and where credit is to be the refund, the grant that brings it."""
        note_id, key = new_id("cn"), (given.idempotency_key, given.digest)
        wallet = None
        if given.refund_to_credits:
            # Before the counter: wallets are locked first.
            owner = (draft.customer_id, draft.currency)
            wallet = await ledger.lock_wallet(connection, tenant, owner, now)
            draft = replace(draft, refund_reference=new_id("crg"))
        note = await credit_notes.insert_credit_note(connection, tenant, note_id, draft, key, now)
        if wallet is not None:
            await bring_in(connection, tenant, wallet, _refund(note))
        await add_events(connection, [credit_note_event(tenant, note, now)])
        await audited.note(
            connection, tenant, "credit_note.created", note.id, audited.credit_note(note)
        )
        return note

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


def _refund(note: CreditNote) -> CreditGrant:
    """The credit that a refund is: it does not expire, whatever paid the invoice."""
    draft = note.draft
    return CreditGrant(
        id=draft.refund_reference,
        customer_id=draft.customer_id,
        currency=draft.currency,
        amount=draft.amount,
        balance=draft.amount,
        kind=GrantKind.PAID,
        priority=PRIORITY_DEFAULT,
        description=f"Refund of {note.number}",
        metadata_json="",
        create_time=note.create_time,
        credit_note_id=note.id,
    )


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
