"""Tax rates, whose they are, and the taxes of an invoice."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import billing_terms_pb2 as pb
from usageflow.invoicer.v1 import invoicer_pb2

from gateway.fields import Quantity
from gateway.shapes.common import Amount, time_of


class NewTaxRate(msgspec.Struct, rename="camel", kw_only=True):
    """A tax rate to make; it never changes."""

    name: Annotated[str, Meta(description='For people, for example "VAT"')]
    percent: Annotated[Quantity, Meta(description='"19" means 19 %')]
    inclusive: Annotated[
        bool, Meta(description="Whether prices contain it; otherwise it is added to them")
    ] = False


class TaxRate(msgspec.Struct, rename="camel", kw_only=True):
    """A tax rate."""

    id: str
    name: str
    percent: Amount
    inclusive: bool
    created_at: datetime


class TaxRatePage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of tax rates."""

    data: list[TaxRate]
    next_cursor: str | None


class DefaultTaxRateIds(msgspec.Struct, rename="camel", kw_only=True):
    """The rates of all customers without rates of their own."""

    tax_rate_ids: Annotated[
        list[str], Meta(description="At most 5, all inclusive or all not; none: no tax")
    ]


class CustomerTaxRateIds(msgspec.Struct, rename="camel", kw_only=True):
    """The rates of one customer."""

    tax_rate_ids: Annotated[
        list[str] | None, Meta(description="Null: those of all customers; none: no tax")
    ]


class AssignedTaxRates(msgspec.Struct, rename="camel", kw_only=True):
    """The rates that apply; `inherited`: the customer has none of his own."""

    customer_id: str | None
    inherited: bool
    tax_rates: list[TaxRate]


class InvoiceTax(msgspec.Struct, rename="camel", kw_only=True):
    """What one rate comes to on an invoice; `taxable` is the sum without taxes."""

    tax_rate_id: str
    name: str
    percent: Amount
    inclusive: bool
    taxable: Amount
    amount: Amount


def rate_to_proto(rate: NewTaxRate) -> pb.CreateTaxRateRequest:
    """The request that makes a rate."""
    return pb.CreateTaxRateRequest(
        tax_rate=pb.TaxRate(name=rate.name, percent=rate.percent, inclusive=rate.inclusive)
    )


def rate_from_proto(message: pb.TaxRate) -> TaxRate:
    """The JSON of a rate."""
    return TaxRate(
        id=message.id,
        name=message.name,
        percent=message.percent,
        inclusive=message.inclusive,
        created_at=time_of(message.create_time),
    )


def assigned_from_proto(message: pb.AssignedTaxRates) -> AssignedTaxRates:
    """The JSON of the rates that apply."""
    return AssignedTaxRates(
        customer_id=message.customer_id or None,
        inherited=message.inherited,
        tax_rates=[rate_from_proto(rate) for rate in message.rates],
    )


def tax_from_proto(message: invoicer_pb2.InvoiceTax) -> InvoiceTax:
    """The JSON of a tax on an invoice."""
    return InvoiceTax(
        tax_rate_id=message.tax_rate_id,
        name=message.name,
        percent=message.percent,
        inclusive=message.inclusive,
        taxable=message.taxable,
        amount=message.amount,
    )
