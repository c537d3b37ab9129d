"""Writes credit notes, and what follows from them: in the transaction of the caller, who has locked
the invoice's subscription, if it has one, and then the invoice.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import credit_note_event
from services.invoicer.credit_notes import (
    CreditNote,
    CreditNoteDraft,
    LateOrigin,
    credit_needed_no_more,
)
from services.invoicer.credit_use import bring_in, give_back
from services.invoicer.credits import PRIORITY_DEFAULT, CreditGrant, GrantKind
from services.invoicer.exact import add, subtract
from services.invoicer.payments.settling import Locked, settle_paid
from services.invoicer.repository import credit_notes, ledger
from services.invoicer.repository.events import add_events
from services.kit.ids import new_id


async def write_credit_note(
    connection: AsyncConnection,
    locked: Locked,
    draft: CreditNoteDraft,
    key: tuple[str, bytes],
    retry_days: Sequence[int],
    *,
    refund_to_credits: bool = False,
    origin: LateOrigin | None = None,
) -> CreditNote:
    """Store a credit note under the tenant's next number. `key`, `origin`: as insert_credit_note
    has them.

    Of a paid invoice `draft` tells the refund, or it becomes a grant of the customer. An open one
    of which nothing is due any more is paid by that. Prepaid credits that it needs no more go back.
    """
    tenant, invoice, now = locked.tenant, locked.invoice, locked.now
    refunded = refund_to_credits or bool(draft.refund_reference)
    if not refunded:
        too_much = credit_needed_no_more(invoice, draft.amount)
        await give_back(connection, tenant, invoice, too_much, draft.reason, now)
        invoice = replace(
            invoice,
            credits_applied=subtract(invoice.credits_applied, too_much),
            credited=add(invoice.credited, draft.amount),
        )
    wallet = None
    if refund_to_credits:
        # Before the counter: wallets are locked first.
        owner = (draft.customer_id, draft.currency)
        wallet = await ledger.lock_wallet(connection, tenant, owner, now)
        draft = replace(draft, refund_reference=new_id("crg"))
    note = await credit_notes.insert_credit_note(
        connection, tenant, new_id("cn"), draft, key, now, origin
    )
    if wallet is not None:
        await bring_in(connection, tenant, wallet, _refund(note))
    await add_events(connection, [credit_note_event(tenant, note, now)])
    if not refunded and invoice.amount_due == 0:
        await settle_paid(connection, replace(locked, invoice=invoice), retry_days)
    return note


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
