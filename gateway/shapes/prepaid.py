"""Prepaid credits: grants, balances and the ledger."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from usageflow.invoicer.v1 import credits_pb2 as pb

from gateway.fields import JsonObject, Quantity
from gateway.shapes.common import (
    Amount,
    PageQuery,
    name_of,
    number_of,
    raw_object,
    time_of,
    time_or_none,
    timestamp,
)

_GRANT_KIND = "CREDIT_GRANT_KIND_"
_ENTRY_KIND = "CREDIT_ENTRY_KIND_"
PRIORITY_DEFAULT = 50
PRIORITY_MAX = 100
Currency = Annotated[
    str | None, Meta(description="ISO 4217 code; null: the customer's, or that of the only credit")
]


class NewCreditGrant(msgspec.Struct, rename="camel", kw_only=True):
    """Credit to give to a customer."""

    amount: Quantity
    currency: Annotated[str | None, Meta(description="ISO 4217 code; null: the customer's")] = None
    kind: Annotated[
        Literal["PAID", "PROMOTIONAL"],
        Meta(description="Whether the customer paid for it; both pay invoices alike"),
    ] = "PAID"
    priority: Annotated[
        int, Meta(ge=0, le=PRIORITY_MAX, description="The lowest is used first")
    ] = PRIORITY_DEFAULT
    description: Annotated[str, Meta(description="At most 500 characters")] = ""
    expires_at: Annotated[
        datetime | None, Meta(description="From then on it pays nothing; null: never")
    ] = None
    metadata: JsonObject | UnsetType = UNSET


class CreditGrant(msgspec.Struct, rename="camel", kw_only=True):
    """Credit that a customer was given; `balance` is what is left of it."""

    id: str
    customer_id: str
    currency: str
    amount: Amount
    balance: Amount
    kind: str
    priority: int
    description: str
    metadata: msgspec.Raw
    expires_at: datetime | None
    voided_at: datetime | None
    credit_note_id: Annotated[str | None, Meta(description="The credit note whose refund it is")]
    created_at: datetime


class CreditGrantPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of grants."""

    data: list[CreditGrant]
    next_cursor: str | None


class CreditGrantVoid(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """Why what is left of a grant is taken back."""

    reason: Annotated[str, Meta(description="At most 500 characters")] = ""


class NewCreditDebit(msgspec.Struct, rename="camel", kw_only=True):
    """Credit to take off by hand."""

    amount: Quantity
    reason: Annotated[str, Meta(description="1-500 characters")]
    currency: Currency = None


class LowCreditBalance(msgspec.Struct, rename="camel", kw_only=True):
    """At which balance credits.low_balance goes out."""

    low_balance: Annotated[Quantity | None, Meta(description="Null: never")]
    currency: Currency = None


class CreditBalance(msgspec.Struct, rename="camel", kw_only=True):
    """What credit a customer has in one currency; never below 0."""

    customer_id: str
    currency: str
    balance: Amount
    low_balance: Annotated[
        Amount | None, Meta(description="At which balance credits.low_balance goes out")
    ]


class CreditBalances(msgspec.Struct, rename="camel", kw_only=True):
    """What credit a customer has, by currency."""

    data: list[CreditBalance]


class CreditEntry(msgspec.Struct, rename="camel", kw_only=True):
    """A line of the ledger; it never changes. `amount` below 0: credit was taken."""

    sequence: int
    kind: Annotated[
        str, Meta(description="GRANT, APPLY to an invoice, RETURN from one, EXPIRE, VOID, DEBIT")
    ]
    amount: Amount
    balance: Annotated[Amount, Meta(description="What there was after it")]
    currency: str
    grant_id: str
    invoice_id: str | None
    reason: str
    created_at: datetime


class CreditEntryPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of the ledger, newest first."""

    data: list[CreditEntry]
    next_cursor: str | None


class CreditEntriesQuery(PageQuery, rename="camel", kw_only=True):
    """Which ledger."""

    currency: str = ""


def grant_to_proto(customer_id: str, grant: NewCreditGrant) -> pb.GrantCreditsRequest:
    """The request that grants credit."""
    return pb.GrantCreditsRequest(
        customer_id=customer_id,
        currency=grant.currency or "",
        amount=grant.amount,
        kind=number_of(pb.CreditGrantKind, grant.kind, _GRANT_KIND),
        priority=grant.priority,
        description=grant.description,
        metadata_json=grant.metadata or "",
        expire_time=timestamp(grant.expires_at),
    )


def grant_from_proto(message: pb.CreditGrant) -> CreditGrant:
    """The JSON of a grant."""
    return CreditGrant(
        id=message.id,
        customer_id=message.customer_id,
        currency=message.currency,
        amount=message.amount,
        balance=message.balance,
        kind=name_of(pb.CreditGrantKind, message.kind, _GRANT_KIND),
        priority=message.priority,
        description=message.description,
        metadata=raw_object(message.metadata_json),
        expires_at=time_or_none(message, "expire_time"),
        voided_at=time_or_none(message, "void_time"),
        credit_note_id=message.credit_note_id or None,
        created_at=time_of(message.create_time),
    )


def balance_from_proto(message: pb.CreditBalance) -> CreditBalance:
    """The JSON of a balance."""
    return CreditBalance(
        customer_id=message.customer_id,
        currency=message.currency,
        balance=message.balance,
        low_balance=message.low_balance or None,
    )


def entry_from_proto(message: pb.CreditEntry) -> CreditEntry:
    """The JSON of a line of the ledger."""
    return CreditEntry(
        sequence=message.sequence,
        kind=name_of(pb.CreditEntryKind, message.kind, _ENTRY_KIND),
        amount=message.amount,
        balance=message.balance,
        currency=message.currency,
        grant_id=message.grant_id,
        invoice_id=message.invoice_id or None,
        reason=message.reason,
        created_at=time_of(message.create_time),
    )
