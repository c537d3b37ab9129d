"""Credit notes: what is credited of an invoice."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import billing_terms_pb2 as pb

from gateway.fields import Quantity
from gateway.shapes.common import Amount, PageQuery, time_of
from gateway.shapes.invoices import HASH, InvoiceLine, line_from_proto

LINES_MAX = 1_000


class NewCreditNoteLine(msgspec.Struct, rename="camel", kw_only=True):
    """What to credit of one line of the invoice; its taxes come with it."""

    line: Annotated[int, Meta(ge=1, le=2**31 - 1, description="From 1")]
    amount: Annotated[Quantity, Meta(description="Without taxes that are added")]


class NewCreditNote(msgspec.Struct, rename="camel", kw_only=True):
    """What to credit of an invoice."""

    reason: Annotated[str, Meta(description="1-500 characters")]
    lines: Annotated[
        list[NewCreditNoteLine],
        Meta(max_length=LINES_MAX, description="None: all that is left of the invoice"),
    ] = []
    refund_reference: Annotated[
        str | None,
        Meta(description="How a paid invoice was paid back; only for those, unless to credits"),
    ] = None
    refund_to_credits: Annotated[
        bool, Meta(description="Of a paid invoice: what is credited becomes prepaid credit")
    ] = False


class CreditNoteLine(msgspec.Struct, rename="camel", kw_only=True):
    """What is credited of one line of the invoice."""

    line: int
    description: str
    amount: Amount


class CreditNote(msgspec.Struct, rename="camel", kw_only=True):
    """A correction of an invoice; it never changes."""

    id: str
    number: str
    invoice_id: str
    customer_id: str
    currency: str
    amount: Amount
    reason: str
    refund_reference: str | None
    lines: list[CreditNoteLine]
    changes: Annotated[
        list[InvoiceLine],
        Meta(
            description="Of one that was made since an invoiced period costs less after all: what "
            "its usage comes to less than was billed"
        ),
    ]
    created_at: datetime
    hash: Annotated[str, Meta(description=HASH)]


class CreditNotePage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of credit notes."""

    data: list[CreditNote]
    next_cursor: str | None


class CreditNotesQuery(PageQuery, rename="camel", kw_only=True):
    """Which credit notes."""

    customer_id: str = ""
    invoice_id: str = ""


def to_proto(
    invoice_id: str, note: NewCreditNote, idempotency_key: str
) -> pb.CreateCreditNoteRequest:
    """The request that credits an invoice."""
    return pb.CreateCreditNoteRequest(
        invoice_id=invoice_id,
        reason=note.reason,
        lines=[pb.CreditNoteLineInput(line=each.line, amount=each.amount) for each in note.lines],
        refund_reference=note.refund_reference or "",
        idempotency_key=idempotency_key,
        refund_to_credits=note.refund_to_credits,
    )


def from_proto(message: pb.CreditNote) -> CreditNote:
    """The JSON of a credit note."""
    return CreditNote(
        id=message.id,
        number=message.number,
        invoice_id=message.invoice_id,
        customer_id=message.customer_id,
        currency=message.currency,
        amount=message.amount,
        reason=message.reason,
        refund_reference=message.refund_reference or None,
        lines=[
            CreditNoteLine(line=line.line, description=line.description, amount=line.amount)
            for line in message.lines
        ],
        changes=[line_from_proto(each) for each in message.changes],
        created_at=time_of(message.create_time),
        hash=message.hash,
    )
