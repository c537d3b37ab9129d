"""The lines of an invoice: amounts and the words for them. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from zoneinfo import ZoneInfo

from services.invoicer.domain import InvoiceLine, LineKind, MetricPrice, PlanContent
from services.invoicer.exact import ONE, ZERO, format_price, readable, share, subtract
from services.invoicer.periods import Period
from services.invoicer.pricing.charge import Charge, charge
from services.kit.money import format_money, round_money

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class MetricUsage:
    """How much of a metric was used. `unit` is for people and may be empty."""

    quantity: Decimal
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Billed:
    """What all invoices together have billed for a metric in a period."""

    quantity: Decimal = ZERO
    amount: Decimal = ZERO


def base_line(plan: PlanContent, period: Period, whole: Period) -> InvoiceLine:
    """The base price; of a part of a period its share by seconds, rounded once."""
    price = f"{format_price(plan.base_price, plan.currency)} {plan.currency}"
    description, steps = "base price", (price,)
    amount = round_money(share(plan.base_price, period.seconds, whole.seconds), plan.currency)
    if period != whole:
        part = _part_of(period, whole)
        description = f"base price, {part}"
        result = f"{format_money(amount, plan.currency)} {plan.currency}"
        seconds = f"{readable(Decimal(period.seconds))} s / {readable(Decimal(whole.seconds))} s"
        steps = (f"{price} x {seconds} = {result}, rounded half up",)
    return InvoiceLine(
        kind=LineKind.BASE,
        metric="",
        description=f"{plan.name}: {description}" if plan.name else description.capitalize(),
        quantity=ONE,
        included_units=ZERO,
        unit_price=plan.base_price,
        amount=amount,
        period=period,
        steps=steps,
    )


def usage_line(
    price: MetricPrice, usage: MetricUsage, currency: str, period: Period
) -> InvoiceLine:
    """A metric's usage. Without any it is a line of 0, which tells that nothing was used."""
    result = charge(price.model, price.included_units, usage.quantity, currency)
    return InvoiceLine(
        kind=LineKind.USAGE,
        metric=price.metric,
        description=f"{price.metric}: {_reckoning(price, usage, result)}",
        quantity=result.quantity,
        included_units=result.included_units,
        unit_price=result.unit_price,
        amount=result.amount,
        period=period,
        steps=result.steps,
    )


def late_line(
    price: MetricPrice,
    usage: MetricUsage,
    billed: Billed,
    currency: str,
    period: Period,
    time_zone: str,
) -> InvoiceLine | None:
    """What `usage`, the whole of an earlier period, costs more (or less) than was billed for it.

    All lines of that period and metric together are then the bill of the whole, in quantity,
    included units and amount. None when the quantity is what was billed.
    """
    if usage.quantity == billed.quantity:
        return None
    now = charge(price.model, price.included_units, usage.quantity, currency)
    before = charge(price.model, price.included_units, billed.quantity, currency)
    difference = subtract(now.amount, billed.amount)
    reckoning = (
        f"{_reckoning(price, usage, now)} = {format_money(now.amount, currency)}, "
        f"{format_money(billed.amount, currency)} billed before"
    )
    return InvoiceLine(
        kind=LineKind.LATE_USAGE,
        metric=price.metric,
        description=f"{price.metric}, change of {_days(period, time_zone)}: {reckoning}",
        quantity=subtract(usage.quantity, billed.quantity),
        included_units=subtract(now.included_units, before.included_units),
        unit_price=now.unit_price,
        amount=difference,
        period=period,
        steps=(
            *now.steps,
            f"{format_money(now.amount, currency)} - {format_money(billed.amount, currency)} "
            f"billed before = {format_money(difference, currency)}",
        ),
    )


def _reckoning(price: MetricPrice, usage: MetricUsage, result: Charge) -> str:
    parts = [f"{readable(usage.quantity)} {usage.unit}".rstrip()]
    if price.included_units > 0:
        parts.append(f"{readable(price.included_units)} included")
    return ", ".join([*parts, result.formula])


def _part_of(period: Period, whole: Period) -> str:
    part_s, whole_s = period.seconds, whole.seconds
    if part_s % _DAY_S == 0 and whole_s % _DAY_S == 0:
        return f"{part_s // _DAY_S} of {whole_s // _DAY_S} days"
    return f"{part_s:,} of {whole_s:,} seconds"


def _days(period: Period, time_zone: str) -> str:
    """The period in the customer's days: "2026-01-01 to 2026-02-01" (not included)."""
    zone = ZoneInfo(time_zone)
    start, end = (instant.astimezone(zone) for instant in (period.start, period.end))
    return f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
