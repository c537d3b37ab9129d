"""Plans: a base price and a price for each metric; quotes."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.fields import Quantity
from gateway.shapes.billing_terms import (
    Discount,
    NewDiscount,
    discount_from_proto,
    discount_to_proto,
)
from gateway.shapes.common import Amount, name_of, number_of, time_of

_MODEL, _PERIOD, _TIMING = "PRICING_MODEL_", "BILLING_PERIOD_", "BASE_PRICE_TIMING_"
_ENFORCEMENT = "USAGE_LIMIT_ENFORCEMENT_"
METRICS_MAX = 1_000
# Decimals of a metric's price that are called the same in JSON and in the message.
_TEXTS = (
    "minimum",
    "maximum",
    "unit_price",
    "package_size",
    "package_price",
    "rate",
    "fixed_per_event",
    "free_events",
    "free_amount",
    "min_per_event",
    "max_per_event",
    "usage_limit",
)


ModelName = Literal[
    "PER_UNIT", "GRADUATED", "VOLUME", "STAIRSTEP", "PACKAGE", "PERCENTAGE", "DIMENSIONAL"
]


class NewPriceTier(msgspec.Struct, rename="camel", kw_only=True):
    """A tier: units up to and with `upTo`, which is null in the last tier."""

    up_to: Quantity | None = None
    unit_price: Quantity | None = None
    flat_price: Quantity | None = None


class NewDimensionPrice(msgspec.Struct, rename="camel", kw_only=True):
    """The price of units whose dimensions have all these values."""

    match: dict[str, str]
    unit_price: Quantity


class NewMetricPrice(msgspec.Struct, rename="camel", kw_only=True):
    """A plan's price for one metric; what belongs to another model than its own is refused."""

    metric: str
    model: ModelName
    included_units: Quantity = Quantity("0")
    minimum: Quantity | None = None
    maximum: Quantity | None = None
    unit_price: Quantity | None = None
    tiers: list[NewPriceTier] = []
    package_size: Quantity | None = None
    package_price: Quantity | None = None
    rate: Annotated[Quantity | None, Meta(description='"1.5" means 1.5 %')] = None
    fixed_per_event: Quantity | None = None
    free_events: Quantity | None = None
    free_amount: Quantity | None = None
    min_per_event: Quantity | None = None
    max_per_event: Quantity | None = None
    prices: list[NewDimensionPrice] = []
    usage_limit: Annotated[
        Quantity | None,
        Meta(
            description="How much a customer may use in a period, as GET /api/quotas/check tells, "
            "unless the customer has a quota of its own; null: no limit"
        ),
    ] = None
    usage_limit_enforcement: Annotated[
        Literal["HARD", "SOFT"],
        Meta(description="HARD: no more than usageLimit; SOFT: it is only told"),
    ] = "HARD"


class NewPlan(msgspec.Struct, rename="camel", kw_only=True):
    """A plan to make, or the new content of one."""

    name: str
    currency: Annotated[str, Meta(description="ISO 4217 code")]
    base_price: Quantity = Quantity("0")
    base_price_timing: Literal["IN_ARREARS", "IN_ADVANCE"] = "IN_ARREARS"
    setup_fee: Annotated[Quantity, Meta(description="Charged once, at the start")] = Quantity("0")
    billing_period: Literal["WEEKLY", "MONTHLY", "QUARTERLY", "YEARLY"] = "MONTHLY"
    metrics: Annotated[list[NewMetricPrice], Meta(max_length=METRICS_MAX)] = []
    discounts: Annotated[
        list[NewDiscount], Meta(description="Their periods count from a subscription's start")
    ] = []
    minimum: Annotated[
        Quantity | None, Meta(description="What a period costs at least, also without usage")
    ] = None
    maximum: Annotated[Quantity | None, Meta(description="What a period costs at most")] = None


class PriceTier(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """A tier; `upTo` is null in the last."""

    up_to: Amount | None
    unit_price: Amount | None = None
    flat_price: Amount | None = None


class DimensionPrice(msgspec.Struct, rename="camel", kw_only=True):
    """The price of units whose dimensions have all these values."""

    match: dict[str, str]
    unit_price: Amount


class MetricPrice(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """A plan's price for one metric; only what its model takes."""

    metric: str
    model: str
    included_units: Amount
    minimum: Amount | None = None
    maximum: Amount | None = None
    unit_price: Amount | None = None
    tiers: list[PriceTier] = []
    package_size: Amount | None = None
    package_price: Amount | None = None
    rate: Amount | None = None
    fixed_per_event: Amount | None = None
    free_events: Amount | None = None
    free_amount: Amount | None = None
    min_per_event: Amount | None = None
    max_per_event: Amount | None = None
    prices: list[DimensionPrice] = []
    usage_limit: Amount | None = None
    usage_limit_enforcement: str | None = None


class Plan(msgspec.Struct, rename="camel", kw_only=True):
    """A version of a plan."""

    id: str
    version: int
    name: str
    currency: str
    base_price: Amount
    base_price_timing: str
    setup_fee: Amount
    billing_period: str
    metrics: list[MetricPrice]
    discounts: list[Discount]
    minimum: Amount | None
    maximum: Amount | None
    created_at: datetime


class PlanPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of plans."""

    data: list[Plan]
    next_cursor: str | None


class PlanQuery(msgspec.Struct, rename="camel", kw_only=True):
    """Which version of a plan."""

    version: Annotated[int, Meta(ge=0, le=2**31 - 1, description="0: the newest")] = 0


class GroupQuantity(msgspec.Struct, rename="camel", kw_only=True):
    """The quantity of one group, as GET /api/usage tells it."""

    group: Annotated[dict[str, str], Meta(description="Dimension to value")]
    value: Quantity


class QuotedPlan(NewPlan, rename="camel", kw_only=True):
    """A plan to calculate with; it needs no name."""

    name: str = ""


class QuoteRequest(msgspec.Struct, rename="camel", kw_only=True):
    """A plan and usage to calculate with; of a metric one of quantities, events and groups."""

    plan: QuotedPlan
    quantities: Annotated[dict[str, Quantity], Meta(description="Metric key to quantity")] = {}
    events: Annotated[
        dict[str, list[Quantity]],
        Meta(description="Metric key to the amounts of its events, as they happen"),
    ] = {}
    groups: Annotated[
        dict[str, list[GroupQuantity]],
        Meta(description="Metric key to its quantities by dimension values"),
    ] = {}


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
        base_price_timing=number_of(pb.BasePriceTiming, plan.base_price_timing, _TIMING),
        setup_fee=plan.setup_fee,
        billing_period=number_of(pb.BillingPeriod, plan.billing_period, _PERIOD),
        metrics=[
            pb.MetricPrice(
                metric=price.metric,
                model=number_of(pb.PricingModel, price.model, _MODEL),
                included_units=price.included_units,
                tiers=[
                    pb.PriceTier(
                        up_to=tier.up_to or "",
                        unit_price=tier.unit_price or "",
                        flat_price=tier.flat_price or "",
                    )
                    for tier in price.tiers
                ],
                prices=[
                    pb.DimensionPrice(match=each.match, unit_price=each.unit_price)
                    for each in price.prices
                ],
                usage_limit_enforcement=number_of(
                    pb.UsageLimitEnforcement,
                    price.usage_limit_enforcement if price.usage_limit else "UNSPECIFIED",
                    _ENFORCEMENT,
                ),
                **{name: getattr(price, name) or "" for name in _TEXTS},
            )
            for price in plan.metrics
        ],
        discounts=[discount_to_proto(discount) for discount in plan.discounts],
        minimum=plan.minimum or "",
        maximum=plan.maximum or "",
    )


def quote_to_proto(asked: QuoteRequest) -> pb.QuotePlanRequest:
    """The message of a question what a plan would cost."""
    return pb.QuotePlanRequest(
        plan=to_proto(asked.plan),
        quantities=asked.quantities,
        events={
            metric: pb.EventAmounts(amounts=amounts) for metric, amounts in asked.events.items()
        },
        groups={
            metric: pb.GroupQuantities(
                groups=[pb.GroupQuantity(group=each.group, value=each.value) for each in groups]
            )
            for metric, groups in asked.groups.items()
        },
    )


def from_proto(message: pb.Plan) -> Plan:
    """The JSON of a plan."""
    return Plan(
        id=message.id,
        version=message.version,
        name=message.name,
        currency=message.currency,
        base_price=message.base_price or "0",
        base_price_timing=name_of(pb.BasePriceTiming, message.base_price_timing, _TIMING),
        setup_fee=message.setup_fee or "0",
        billing_period=name_of(pb.BillingPeriod, message.billing_period, _PERIOD),
        metrics=[
            MetricPrice(
                metric=price.metric,
                model=name_of(pb.PricingModel, price.model, _MODEL),
                included_units=price.included_units or "0",
                tiers=[
                    PriceTier(
                        up_to=tier.up_to or None,
                        unit_price=tier.unit_price or None,
                        flat_price=tier.flat_price or None,
                    )
                    for tier in price.tiers
                ],
                prices=[
                    DimensionPrice(match=dict(each.match), unit_price=each.unit_price)
                    for each in price.prices
                ],
                usage_limit_enforcement=name_of(
                    pb.UsageLimitEnforcement, price.usage_limit_enforcement, _ENFORCEMENT
                )
                if price.usage_limit
                else None,
                **{name: getattr(price, name) or None for name in _TEXTS},
            )
            for price in message.metrics
        ],
        discounts=[discount_from_proto(discount) for discount in message.discounts],
        minimum=message.minimum or None,
        maximum=message.maximum or None,
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
