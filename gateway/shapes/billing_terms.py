"""Discounts and one-off charges."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import billing_terms_pb2 as pb
from usageflow.invoicer.v1 import invoicer_pb2

from gateway.fields import Quantity
from gateway.shapes.common import Amount, PageQuery, name_of, number_of, time_of, time_or_none

_TIMING = "CHARGE_TIMING_"
PERIODS_MAX = 624


class NewDiscount(msgspec.Struct, rename="camel", kw_only=True):
    """What to take off: either `percent` of each price or `amount` off a period's sum."""

    name: str = ""
    percent: Annotated[Quantity | None, Meta(description='"10" means 10 %')] = None
    amount: Annotated[
        Quantity | None, Meta(description="In the currency of the plan; never below nothing")
    ] = None
    periods: Annotated[
        Annotated[int, Meta(ge=1, le=PERIODS_MAX)] | None,
        Meta(description="For how many periods; null: for ever"),
    ] = None


class Discount(msgspec.Struct, rename="camel", kw_only=True):
    """What is taken off."""

    name: str
    percent: Amount | None
    amount: Amount | None
    periods: int | None


class SubscriptionDiscount(Discount, rename="camel", kw_only=True):
    """A subscription's own discount, for periods that begin from `startsAt` on, before `endsAt`."""

    id: str
    subscription_id: str
    starts_at: datetime
    ends_at: datetime | None
    created_at: datetime


class SubscriptionDiscounts(msgspec.Struct, rename="camel", kw_only=True):
    """All discounts of a subscription, oldest first."""

    data: list[SubscriptionDiscount]


class NewCharge(msgspec.Struct, rename="camel", kw_only=True):
    """What a customer is to be charged once."""

    customer_id: str
    description: Annotated[str, Meta(description="1-500 characters")]
    unit_price: Quantity
    quantity: Quantity = Quantity("1")
    currency: Annotated[
        str | None, Meta(description="ISO 4217 code; null: the subscription's, or the customer's")
    ] = None
    subscription_id: Annotated[
        str | None, Meta(description="On whose next invoice; null: the customer's only one")
    ] = None
    timing: Annotated[
        Literal["NEXT_INVOICE", "NOW"], Meta(description="NOW: on an invoice of its own, at once")
    ] = "NEXT_INVOICE"


class Charge(msgspec.Struct, rename="camel", kw_only=True):
    """A one-off charge; `invoiceId` is null while it waits."""

    id: str
    customer_id: str
    subscription_id: str | None
    description: str
    quantity: Amount
    unit_price: Amount
    currency: str
    amount: Amount
    timing: str
    invoice_id: str | None
    created_at: datetime


class ChargePage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of charges."""

    data: list[Charge]
    next_cursor: str | None


class ChargesQuery(PageQuery, rename="camel", kw_only=True):
    """Which charges."""

    customer_id: str = ""


def discount_to_proto(discount: NewDiscount) -> invoicer_pb2.Discount:
    """The message of what to take off."""
    return invoicer_pb2.Discount(
        name=discount.name,
        percent=discount.percent or "",
        amount=discount.amount or "",
        periods=discount.periods or 0,
    )


def discount_from_proto(message: invoicer_pb2.Discount) -> Discount:
    """The JSON of what is taken off."""
    return Discount(
        name=message.name,
        percent=message.percent or None,
        amount=message.amount or None,
        periods=message.periods or None,
    )


def subscription_discount_from_proto(message: pb.SubscriptionDiscount) -> SubscriptionDiscount:
    """The JSON of a subscription's discount."""
    return SubscriptionDiscount(
        id=message.id,
        subscription_id=message.subscription_id,
        name=message.discount.name,
        percent=message.discount.percent or None,
        amount=message.discount.amount or None,
        periods=message.discount.periods or None,
        starts_at=time_of(message.start_time),
        ends_at=time_or_none(message, "end_time"),
        created_at=time_of(message.create_time),
    )


def charge_to_proto(charge: NewCharge, idempotency_key: str) -> pb.CreateChargeRequest:
    """The request that charges a customer."""
    return pb.CreateChargeRequest(
        customer_id=charge.customer_id,
        subscription_id=charge.subscription_id or "",
        description=charge.description,
        quantity=charge.quantity,
        unit_price=charge.unit_price,
        currency=charge.currency or "",
        timing=number_of(pb.ChargeTiming, charge.timing, _TIMING),
        idempotency_key=idempotency_key,
    )


def charge_from_proto(message: pb.Charge) -> Charge:
    """The JSON of a charge."""
    return Charge(
        id=message.id,
        customer_id=message.customer_id,
        subscription_id=message.subscription_id or None,
        description=message.description,
        quantity=message.quantity,
        unit_price=message.unit_price,
        currency=message.currency,
        amount=message.amount,
        timing=name_of(pb.ChargeTiming, message.timing, _TIMING),
        invoice_id=message.invoice_id or None,
        created_at=time_of(message.create_time),
    )
