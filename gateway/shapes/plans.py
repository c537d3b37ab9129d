"""Plans: a base price and a price for each metric; quotes."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.fields import Quantity
from gateway.shapes.common import Amount, name_of, number_of, time_of

_MODEL, _PERIOD = "PRICING_MODEL_", "BILLING_PERIOD_"
METRICS_MAX = 1_000


class NewMetricPrice(msgspec.Struct, rename="camel", kw_only=True):
    """A plan's price for one metric."""

    metric: str
    model: Literal["PER_UNIT"]
    included_units: Quantity = Quantity("0")
    unit_price: Quantity


class NewPlan(msgspec.Struct, rename="camel", kw_only=True):
    """A plan to make, or the new content of one."""

    name: str
    currency: Annotated[str, Meta(description="ISO 4217 code")]
    base_price: Quantity = Quantity("0")
    billing_period: Literal["MONTHLY"] = "MONTHLY"
    metrics: Annotated[list[NewMetricPrice], Meta(max_length=METRICS_MAX)] = []


class MetricPrice(msgspec.Struct, rename="camel", kw_only=True):
    """A plan's price for one metric."""

    metric: str
    model: str
    included_units: Amount
    unit_price: Amount


class Plan(msgspec.Struct, rename="camel", kw_only=True):
    """A version of a plan."""

    id: str
    version: int
    name: str
    currency: str
    base_price: Amount
    billing_period: str
    metrics: list[MetricPrice]
    created_at: datetime


class PlanPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of plans."""

    data: list[Plan]
    next_cursor: str | None


class PlanQuery(msgspec.Struct, rename="camel", kw_only=True):
    """Which version of a plan."""

    version: Annotated[int, Meta(ge=0, le=2**31 - 1, description="0: the newest")] = 0


class QuoteRequest(msgspec.Struct, rename="camel", kw_only=True):
    """A plan and quantities to calculate with."""

    plan: NewPlan
    quantities: Annotated[dict[str, Quantity], Meta(description="Metric key to quantity")] = {}


class QuoteLine(msgspec.Struct, rename="camel", kw_only=True):
    """One amount of a quote, and how it came about."""

    description: str
    metric: str | None
    quantity: Amount
    amount: Amount
    steps: list[str]


class Quote(msgspec.Struct, rename="camel", kw_only=True):
    """What a plan would cost."""

    currency: str
    amount: Amount
    lines: list[QuoteLine]


def to_proto(plan: NewPlan, plan_id: str = "") -> pb.Plan:
    """The message of a plan to make, or of the next version of `plan_id`."""
    return pb.Plan(
        id=plan_id,
        name=plan.name,
        currency=plan.currency,
        base_price=plan.base_price,
        billing_period=number_of(pb.BillingPeriod, plan.billing_period, _PERIOD),
        metrics=[
            pb.MetricPrice(
                metric=price.metric,
                model=number_of(pb.PricingModel, price.model, _MODEL),
                included_units=price.included_units,
                unit_price=price.unit_price,
            )
            for price in plan.metrics
        ],
    )


def from_proto(message: pb.Plan) -> Plan:
    """The JSON of a plan."""
    return Plan(
        id=message.id,
        version=message.version,
        name=message.name,
        currency=message.currency,
        base_price=message.base_price or "0",
        billing_period=name_of(pb.BillingPeriod, message.billing_period, _PERIOD),
        metrics=[
            MetricPrice(
                metric=price.metric,
                model=name_of(pb.PricingModel, price.model, _MODEL),
                included_units=price.included_units or "0",
                unit_price=price.unit_price,
            )
            for price in message.metrics
        ],
        created_at=time_of(message.create_time),
    )


def quote_from_proto(message: pb.QuotePlanResponse) -> Quote:
    """The JSON of a quote."""
    return Quote(
        currency=message.currency,
        amount=message.amount,
        lines=[
            QuoteLine(
                description=line.description,
                metric=line.metric or None,
                quantity=line.quantity,
                amount=line.amount,
                steps=list(line.steps),
            )
            for line in message.lines
        ],
    )
