"""Invoices and their lines."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.shapes.common import (
    Amount,
    PageCursor,
    PageLimit,
    name_of,
    number_of,
    time_of,
    time_or_none,
    timestamp,
)
from gateway.shapes.taxes import InvoiceTax, tax_from_proto
from services.kit.pages import PAGE_SIZE_DEFAULT

StatusName = Literal["DRAFT", "PENDING", "PAID", "FAILED", "VOID"]
_STATUS = "INVOICE_STATUS_"
HASH = (
    "SHA-256 of the content and of the hash of the document whose number is one less: "
    "whoever notes one hash can tell later that nothing before it was changed"
)


class InvoiceLine(msgspec.Struct, rename="camel", kw_only=True):
    """One amount of an invoice."""

    description: str
    metric: str | None
    quantity: Amount
    included_units: Amount
    unit_price: Amount
    amount: Amount
    period_start: datetime | None
    period_end: datetime | None
    steps: Annotated[
        list[str], Meta(description="How it came about, to follow with a pocket calculator")
    ]


class Invoice(msgspec.Struct, rename="camel", kw_only=True):
    """A bill; a preview has neither id nor number, a one-off charge's no subscription."""

    id: str | None
    number: str | None
    customer_id: str
    subscription_id: str | None
    status: str
    currency: str
    amount: Amount
    period_start: datetime | None
    period_end: datetime | None
    created_at: datetime | None
    failed_payments: int
    lines: list[InvoiceLine]
    taxes: Annotated[list[InvoiceTax], Meta(description="One for each rate")]
    hash: Annotated[str | None, Meta(description=HASH)]
    credits_applied: Annotated[Amount, Meta(description="What prepaid credits paid of it")]
    amount_due: Annotated[
        Amount,
        Meta(
            description="What is to be paid of it otherwise: `amount`, less `creditsApplied`, less "
            "what credit notes took off before it was paid; it stays when it is paid"
        ),
    ]


class InvoicePreview(Invoice, rename="camel", kw_only=True):
    """An invoice as it would be now, and as it will be."""

    as_of: Annotated[datetime, Meta(description="Everything accepted before it is in")]
    projected: Annotated[
        Invoice,
        Meta(
            description="The invoice at its period's end when usage goes on as it did so far: "
            "quantities that add up over time grow linearly with it, others stay as they are"
        ),
    ]


class InvoicePage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of invoices."""

    data: list[Invoice]
    next_cursor: str | None


class InvoiceSelection(msgspec.Struct, rename="camel", kw_only=True):
    """Which invoices."""

    customer_id: str = ""
    subscription_id: str = ""
    status: Annotated[StatusName | None, Meta(description="Only these; left out: all")] = None
    from_: Annotated[datetime | None, Meta(description="Made at or after")] = field(
        default=None, name="from"
    )
    to: Annotated[datetime | None, Meta(description="Made before")] = None


class InvoicesQuery(InvoiceSelection, rename="camel", kw_only=True):
    """Which invoices, and which page of them, newest first."""

    limit: PageLimit = PAGE_SIZE_DEFAULT
    cursor: PageCursor = ""


class PreviewRequest(msgspec.Struct, rename="camel", kw_only=True):
    """The subscription to preview."""

    subscription_id: str


def selection_to_proto(asked: InvoiceSelection) -> pb.ListInvoicesRequest:
    """The request that lists them."""
    # The field's name is a keyword of Python.
    start: dict[str, Any] = {"from": timestamp(asked.from_)}
    return pb.ListInvoicesRequest(
        customer_id=asked.customer_id,
        subscription_id=asked.subscription_id,
        status=status_number(asked.status),
        to=timestamp(asked.to),
        **start,
    )


def status_number(name: StatusName | None) -> pb.InvoiceStatus.ValueType:
    """The status to list; unspecified for all."""
    number: pb.InvoiceStatus.ValueType = number_of(pb.InvoiceStatus, name or "UNSPECIFIED", _STATUS)
    return number


def from_proto(message: pb.Invoice) -> Invoice:
    """The JSON of an invoice."""
    return Invoice(**_fields(message))


def preview_from_proto(message: pb.PreviewInvoiceResponse) -> InvoicePreview:
    """The JSON of a preview."""
    return InvoicePreview(
        **_fields(message.invoice),
        as_of=time_of(message.as_of),
        projected=from_proto(message.projected),
    )


def _fields(message: pb.Invoice) -> dict[str, Any]:
    return {
        "id": message.id or None,
        "number": message.number or None,
        "customer_id": message.customer_id,
        "subscription_id": message.subscription_id or None,
        "status": name_of(pb.InvoiceStatus, message.status, _STATUS),
        "currency": message.currency,
        "amount": message.amount,
        "period_start": time_or_none(message, "period_start_time"),
        "period_end": time_or_none(message, "period_end_time"),
        "created_at": time_or_none(message, "create_time"),
        "failed_payments": message.failed_payments,
        "lines": [line_from_proto(line) for line in message.lines],
        "taxes": [tax_from_proto(tax) for tax in message.taxes],
        "hash": message.hash or None,
        "credits_applied": message.credits_applied,
        "amount_due": message.amount_due,
    }


def line_from_proto(line: pb.InvoiceLine) -> InvoiceLine:
    """The JSON of a line."""
    return InvoiceLine(
        description=line.description,
        metric=line.metric or None,
        quantity=line.quantity,
        included_units=line.included_units or "0",
        unit_price=line.unit_price,
        amount=line.amount,
        period_start=time_or_none(line, "period_start_time"),
        period_end=time_or_none(line, "period_end_time"),
        steps=list(line.steps),
    )
