"""Proto messages from and to the domain."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from services.invoicer.checks import CustomerInput, MetricPriceInput, PlanInput, QuoteInput
from services.invoicer.discounts import Discount
from services.invoicer.domain import (
    Customer,
    Invoice,
    InvoiceDraft,
    InvoiceLine,
    InvoiceStatus,
    MetricPrice,
    Plan,
    Subscription,
    TaxAmount,
)
from services.invoicer.exact import ZERO, format_price, subtract
from services.invoicer.phases import Phase, PhaseKind
from services.invoicer.quotes import Quote
from services.invoicer.service.invoices import InvoiceFilter, Preview
from services.invoicer.service.revenue import Revenue
from services.invoicer.service.subscriptions import SubscriptionInput
from services.invoicer.term_checks import DiscountInput
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import tagged
from services.kit.money import format_decimal, format_money

_MODEL = "PRICING_MODEL_"
_ENFORCEMENT = "USAGE_LIMIT_ENFORCEMENT_"
_PERIOD = "BILLING_PERIOD_"
_ANCHOR = "BILLING_ANCHOR_"
_TIMING = "BASE_PRICE_TIMING_"
_SUBSCRIPTION_STATUS = "SUBSCRIPTION_STATUS_"
_INVOICE_STATUS = "INVOICE_STATUS_"
_PHASE_KIND = "PHASE_KIND_"
_CHANGE_TIMING = "CHANGE_TIMING_"
# The HTTP contract's names of what pricing models take, and the fields of the messages.
_PARAMETERS = {
    "unitPrice": "unit_price",
    "packageSize": "package_size",
    "packagePrice": "package_price",
    "rate": "rate",
    "fixedPerEvent": "fixed_per_event",
    "freeEvents": "free_events",
    "freeAmount": "free_amount",
    "minPerEvent": "min_per_event",
    "maxPerEvent": "max_per_event",
}
_TIER_PARAMETERS = {"upTo": "up_to", "unitPrice": "unit_price", "flatPrice": "flat_price"}


def customer_input(request: pb.PutCustomerRequest) -> CustomerInput:
    """A customer as asked for."""
    customer = request.customer
    return CustomerInput(
        id=customer.id,
        name=customer.name,
        email=customer.email,
        time_zone=customer.time_zone,
        currency=customer.currency,
        metadata_json=customer.metadata_json,
        update_fields=tuple(request.update_fields),
    )


def plan_input(plan: pb.Plan) -> PlanInput:
    """A plan as asked for."""
    period = plan.billing_period or pb.BILLING_PERIOD_MONTHLY
    timing = plan.base_price_timing or pb.BASE_PRICE_TIMING_IN_ARREARS
    return PlanInput(
        name=plan.name,
        currency=plan.currency,
        base_price=plan.base_price,
        billing_period=_name(pb.BillingPeriod.DESCRIPTOR, _PERIOD, period),
        metrics=[_metric_price_input(price) for price in plan.metrics],
        base_price_timing=_name(pb.BasePriceTiming.DESCRIPTOR, _TIMING, timing),
        setup_fee=plan.setup_fee,
        discounts=[discount_input(each) for each in plan.discounts],
        minimum=plan.minimum,
        maximum=plan.maximum,
    )


def discount_input(given: pb.Discount) -> DiscountInput:
    """A discount as asked for."""
    return DiscountInput(given.name, given.percent, given.amount, given.periods)


def _metric_price_input(price: pb.MetricPrice) -> MetricPriceInput:
    return MetricPriceInput(
        metric=price.metric,
        model=_name(pb.PricingModel.DESCRIPTOR, _MODEL, price.model),
        included_units=price.included_units,
        parameters=_parameters(price),
        minimum=price.minimum,
        maximum=price.maximum,
        usage_limit=price.usage_limit,
        usage_limit_enforcement=_name(
            pb.UsageLimitEnforcement.DESCRIPTOR,
            _ENFORCEMENT,
            price.usage_limit_enforcement or pb.USAGE_LIMIT_ENFORCEMENT_HARD,
        ),
    )


def _parameters(price: pb.MetricPrice) -> dict[str, Any]:
    """Those that were given, under the HTTP contract's names."""
    texts = {name: getattr(price, field) for name, field in _PARAMETERS.items()}
    given: dict[str, Any] = {name: text for name, text in texts.items() if text}
    if price.tiers:
        given["tiers"] = [
            {name: getattr(tier, field) for name, field in _TIER_PARAMETERS.items()}
            for tier in price.tiers
        ]
    if price.prices:
        given["prices"] = [
            {"match": dict(each.match), "unitPrice": each.unit_price} for each in price.prices
        ]
    return given


def quote_input(request: pb.QuotePlanRequest) -> QuoteInput:
    """A plan and usage to calculate with."""
    return QuoteInput(
        plan=plan_input(request.plan),
        quantities=dict(request.quantities),
        events={metric: list(events.amounts) for metric, events in request.events.items()},
        groups={
            metric: [(dict(each.group), each.value) for each in groups.groups]
            for metric, groups in request.groups.items()
        },
    )


def subscription_input(request: pb.CreateSubscriptionRequest) -> SubscriptionInput:
    """A subscription as asked for."""
    anchor = request.billing_anchor or pb.BILLING_ANCHOR_CALENDAR
    return SubscriptionInput(
        customer_id=request.customer_id,
        plan_id=request.plan_id,
        start_time=time_or_none(request, "start_time", "startsAt"),
        billing_anchor=_name(pb.BillingAnchor.DESCRIPTOR, _ANCHOR, anchor),
        idempotency_key=request.idempotency_key,
        trial_days=request.trial_days,
        trial_end_time=time_or_none(request, "trial_end_time", "trialEndsAt"),
        quantity=request.quantity or 1,
    )


def invoice_filter(request: pb.ListInvoicesRequest) -> InvoiceFilter:
    """Which invoices to list."""
    status = None
    if request.status:
        name = _name(pb.InvoiceStatus.DESCRIPTOR, _INVOICE_STATUS, request.status)
        if name not in InvoiceStatus.__members__:
            allowed = f"must be one of {', '.join(InvoiceStatus)}"
            raise InvalidArgumentError([FieldProblem("status", allowed)])
        status = InvoiceStatus(name)
    start, end = (time_or_none(request, name, name) for name in ("from", "to"))
    return InvoiceFilter(request.customer_id, request.subscription_id, status, start, end)


def timing(number: int, default: int) -> str:
    """When something is to take effect; 0: `default`."""
    return _name(pb.ChangeTiming.DESCRIPTOR, _CHANGE_TIMING, number or default)


def time_or_none(request: Message, field: str, name: str) -> datetime | None:
    """A time that was given; InvalidArgumentError calls it `name`. None: it was not."""
    if not request.HasField(field):
        return None
    stamp: Timestamp = getattr(request, field)
    try:
        time = stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        problem = FieldProblem(name, "must be a time of the years 1 to 9999")
        raise InvalidArgumentError([problem]) from None
    # A fraction below a microsecond must not vanish: it is on no quarter of an hour.
    return time.replace(microsecond=1) if 0 < stamp.nanos < 1000 else time


def _name(enum: EnumDescriptor, prefix: str, number: int) -> str:
    """The HTTP contract's name; a number that nobody knows stays a number, to be refused."""
    value = enum.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(prefix)


def timestamp(time: datetime | None) -> Timestamp | None:
    """A proto time; None for none."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def customer(found: Customer) -> pb.Customer:
    """A customer as stored."""
    message = pb.Customer(
        id=found.id,
        name=found.name,
        email=found.email,
        time_zone=found.time_zone,
        currency=found.currency,
        metadata_json=found.metadata_json,
        create_time=timestamp(found.create_time),
    )
    return tagged(message)


def plan(found: Plan) -> pb.Plan:
    """A version of a plan."""
    content = found.content
    return pb.Plan(
        id=found.id,
        version=found.version,
        name=content.name,
        currency=content.currency,
        base_price=format_price(content.base_price, content.currency),
        billing_period=pb.BillingPeriod.Value(_PERIOD + content.billing_period),
        metrics=[_metric_price(price) for price in content.metrics],
        create_time=timestamp(found.create_time),
        base_price_timing=pb.BasePriceTiming.Value(_TIMING + content.base_price_timing),
        setup_fee=format_price(content.setup_fee, content.currency),
        discounts=[discount(each) for each in content.discounts],
        minimum=_optional(content.limits.minimum),
        maximum=_optional(content.limits.maximum),
    )


def discount(found: Discount) -> pb.Discount:
    """What is taken off, and for how long."""
    return pb.Discount(
        name=found.name,
        percent=_optional(found.percent),
        amount=_optional(found.amount),
        periods=found.periods or 0,
    )


def _metric_price(price: MetricPrice) -> pb.MetricPrice:
    message = pb.MetricPrice(
        metric=price.metric,
        model=pb.PricingModel.Value(_MODEL + price.model.name),
        included_units=format_decimal(price.included_units),
        minimum=_optional(price.limits.minimum),
        maximum=_optional(price.limits.maximum),
    )
    if price.usage_limit is not None:
        enforcement = _ENFORCEMENT + price.usage_limit.enforcement
        message.usage_limit = format_decimal(price.usage_limit.units)
        message.usage_limit_enforcement = pb.UsageLimitEnforcement.Value(enforcement)
    parameters = price.model.parameters()
    for name, field in _PARAMETERS.items():
        setattr(message, field, parameters.get(name, ""))
    for tier in parameters.get("tiers", ()):
        texts = {field: tier.get(name) or "" for name, field in _TIER_PARAMETERS.items()}
        message.tiers.add(**texts)
    for each in parameters.get("prices", ()):
        message.prices.add(match=each["match"], unit_price=each["unitPrice"])
    return message


def _optional(value: Decimal | None) -> str:
    return "" if value is None else format_decimal(value)


def quote(found: Quote) -> pb.QuotePlanResponse:
    """What a plan would cost."""
    lines = [
        pb.QuoteLine(
            description=line.description,
            metric=line.metric,
            quantity=format_decimal(line.quantity),
            amount=format_money(line.amount, found.currency),
            steps=line.steps,
        )
        for line in found.lines
    ]
    amount = format_money(found.amount, found.currency)
    return pb.QuotePlanResponse(currency=found.currency, amount=amount, lines=lines)


def subscription(found: Subscription, now: datetime) -> pb.Subscription:
    """A subscription as it is `now`, or by the clock that it is on; one that has nothing left to
    bill has no current period.
    """
    now = found.now(now)
    period = found.period
    phase = found.phase_at(now) if found.phases else None
    trial = next((each for each in found.phases if each.kind is PhaseKind.TRIAL), None)
    return pb.Subscription(
        id=found.id,
        customer_id=found.customer_id,
        plan_id=phase.plan_id if phase else found.plan_id,
        plan_version=phase.plan_version if phase else found.plan_version,
        status=pb.SubscriptionStatus.Value(_SUBSCRIPTION_STATUS + found.status_at(now)),
        billing_anchor=pb.BillingAnchor.Value(_ANCHOR + found.billing_anchor),
        start_time=timestamp(found.start_time),
        current_period_start_time=timestamp(period.start if period else None),
        current_period_end_time=timestamp(period.end if period else None),
        cancel_time=timestamp(found.cancel_time),
        create_time=timestamp(found.create_time),
        quantity=phase.quantity if phase else 0,
        trial_end_time=timestamp(trial.anchor_time) if trial else None,
        phases=[_phase(each) for each in found.phases],
    )


def _phase(found: Phase) -> pb.SubscriptionPhase:
    return pb.SubscriptionPhase(
        start_time=timestamp(found.start_time),
        end_time=timestamp(found.end_time),
        kind=pb.PhaseKind.Value(_PHASE_KIND + found.kind),
        plan_id=found.plan_id,
        plan_version=found.plan_version,
        quantity=found.quantity,
        exact_start_time=timestamp(found.priced_from),
        exact_end_time=timestamp(found.priced_until),
    )


def invoice(found: Invoice) -> pb.Invoice:
    """An invoice with its lines."""
    return pb.Invoice(
        id=found.id,
        number=found.number,
        customer_id=found.customer_id,
        subscription_id=found.subscription_id,
        status=pb.InvoiceStatus.Value(_INVOICE_STATUS + found.status),
        currency=found.currency,
        amount=format_money(found.amount, found.currency),
        period_start_time=timestamp(found.period.start),
        period_end_time=timestamp(found.period.end),
        create_time=timestamp(found.finalize_time),
        lines=lines_of(found.lines, found.currency),
        failed_payments=found.failed_payments,
        taxes=_taxes(found.taxes, found.currency),
        hash=found.hash,
        credits_applied=format_money(found.credits_applied, found.currency),
        amount_due=format_money(found.amount_due, found.currency),
    )


def draft(found: InvoiceDraft, credits_applied: Decimal = ZERO) -> pb.Invoice:
    """A preview: an invoice without id and number, of which `credits_applied` would pay a part."""
    return pb.Invoice(
        customer_id=found.customer_id,
        subscription_id=found.subscription_id,
        status=pb.INVOICE_STATUS_DRAFT,
        currency=found.currency,
        amount=format_money(found.amount, found.currency),
        period_start_time=timestamp(found.period.start),
        period_end_time=timestamp(found.period.end),
        lines=lines_of(found.lines, found.currency),
        taxes=_taxes(found.taxes, found.currency),
        credits_applied=format_money(credits_applied, found.currency),
        amount_due=format_money(subtract(found.amount, credits_applied), found.currency),
    )


def _taxes(taxes: Sequence[TaxAmount], currency: str) -> list[pb.InvoiceTax]:
    return [
        pb.InvoiceTax(
            tax_rate_id=tax.rate_id,
            name=tax.name,
            percent=format_decimal(tax.percent),
            inclusive=tax.inclusive,
            taxable=format_money(tax.taxable, currency),
            amount=format_money(tax.amount, currency),
        )
        for tax in taxes
    ]


def preview(found: Preview) -> pb.PreviewInvoiceResponse:
    """An invoice as it is now, and as it will be."""
    return pb.PreviewInvoiceResponse(
        invoice=draft(found.draft, found.credits_applied),
        projected=draft(found.projected, found.projected_credits),
        as_of=timestamp(found.as_of),
    )


def revenue(found: Revenue) -> pb.GetRevenueResponse:
    """What a time has brought, and what accrues."""
    accrued = found.accrued
    sums = (found.invoiced, found.credited, accrued.amounts)
    # The field's name is a keyword of Python.
    start: dict[str, Any] = {"from": timestamp(found.start)}
    return pb.GetRevenueResponse(
        to=timestamp(found.end),
        currencies=[
            pb.CurrencyRevenue(
                currency=currency,
                invoiced=format_money(found.invoiced.get(currency, ZERO), currency),
                credited=format_money(found.credited.get(currency, ZERO), currency),
                accrued=format_money(accrued.amounts.get(currency, ZERO), currency),
            )
            for currency in sorted({currency for each in sums for currency in each})
        ],
        as_of=timestamp(accrued.as_of),
        complete=accrued.complete,
        **start,
    )


def lines_of(lines: Sequence[InvoiceLine], currency: str) -> list[pb.InvoiceLine]:
    """The lines of an invoice, or what a credit note changes of them."""
    return [
        pb.InvoiceLine(
            description=line.description,
            metric=line.metric,
            quantity=format_decimal(line.quantity),
            included_units=format_decimal(line.included_units),
            unit_price=_unit_price(line, currency),
            amount=format_money(line.amount, currency),
            period_start_time=timestamp(line.period.start),
            period_end_time=timestamp(line.period.end),
            steps=line.steps,
        )
        for line in lines
    ]


def _unit_price(line: InvoiceLine, currency: str) -> str:
    if line.unit_price is None:
        return ""
    return (
        format_decimal(line.unit_price) if line.metric else format_price(line.unit_price, currency)
    )
