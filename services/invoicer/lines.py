"""The lines of an invoice: amounts and the words for them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from zoneinfo import ZoneInfo

from services.invoicer.discounts import Discount, percents_of
from services.invoicer.domain import (
    BasePriceTiming,
    InvoiceLine,
    LineKind,
    MetricPrice,
    PlanContent,
)
from services.invoicer.exact import (
    HUNDRED,
    ONE,
    ZERO,
    format_price,
    less_percent,
    multiply,
    readable,
    subtract,
)
from services.invoicer.periods import Period, is_on_quarter_hour
from services.invoicer.pricing.charge import Charge, Limits, charge, included_of
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.proration import prorate, prorate_all
from services.kit.money import format_decimal, format_money, round_money

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Share:
    """What of a whole period is priced by time, to the second."""

    times: tuple[Period, ...]
    whole: Period


@dataclass(frozen=True, slots=True)
class Billed:
    """What all invoices together have billed for a metric in a period."""

    quantity: Decimal = ZERO
    amount: Decimal = ZERO


def setup_line(plan: PlanContent, period: Period) -> InvoiceLine:
    """The setup fee, which is charged once."""
    return InvoiceLine(
        kind=LineKind.SETUP_FEE,
        metric="",
        description=f"{plan.name}: setup fee, once" if plan.name else "Setup fee, once",
        quantity=ONE,
        included_units=ZERO,
        unit_price=plan.setup_fee,
        amount=round_money(plan.setup_fee, plan.currency),
        period=period,
        steps=(f"{format_price(plan.setup_fee, plan.currency)} {plan.currency}",),
    )


def base_line(
    plan: PlanContent,
    period: Period,
    whole: Period,
    time_zone: str = "UTC",
    discounts: Sequence[Discount] = (),
    quantity: int = 1,
) -> InvoiceLine:
    """`quantity` times the base price; of a part of a period its share by seconds, less discounts
    in percent, rounded once.

    One that is charged in advance names the days that it is for.
    """
    price, less = plan.base_price, ""
    steps: tuple[str, ...] = ()
    if quantity != 1:
        price = multiply(price, Decimal(quantity))
        each = f"{quantity:,} x {format_price(plan.base_price, plan.currency)}"
        less, steps = f", {each}", (f"{each} = {readable(price)}",)
    base_price, percents, words_of_percents = discounted(price, discounts)
    less, steps = less + percents, (*steps, *words_of_percents)
    words = f"{format_price(base_price, plan.currency)} {plan.currency}"
    description = "base price"
    if period != whole:
        description = f"base price, {_part_of(period, whole)}"
        result = prorate(base_price, words, plan.currency, period, whole)
        times = _times(period, whole, time_zone)
        amount, steps = result.amount, (*times, *steps, *result.steps)
    else:
        amount = round_money(base_price, plan.currency)
        steps = steps or (words,)
        if amount != base_price:
            steps += (f"rounded half up: {format_money(amount, plan.currency)} {plan.currency}",)
    description += less
    if plan.base_price_timing is BasePriceTiming.IN_ADVANCE:
        description += f", {days(period, time_zone)} in advance"
    return InvoiceLine(
        kind=LineKind.BASE,
        metric="",
        description=f"{plan.name}: {description}" if plan.name else description.capitalize(),
        quantity=Decimal(quantity),
        included_units=ZERO,
        unit_price=plan.base_price,
        amount=amount,
        period=period,
        steps=steps,
    )


def usage_line(
    price: MetricPrice,
    usage: MetricUsage,
    currency: str,
    period: Period,
    share: Share | None = None,
    discounts: Sequence[Discount] = (),
) -> InvoiceLine:
    """A metric's usage, also of none: that nothing was used is told, and may have a price.

    `share` is what of a period is priced by time; None: all of it. Of `discounts` those in percent
    are taken off.
    """
    result = _charge(price, usage, currency, share, discounts)
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
    share: Share | None = None,
    discounts: Sequence[Discount] = (),
) -> InvoiceLine | None:
    """What `usage`, the whole of an earlier period, costs more (or less) than was billed for it.

    All lines of that period and metric together are then the bill of the whole, in quantity,
    included units and amount. None when that is what was billed, and when events that the price
    depends on are not kept any more: what was billed stays.
    """
    same = usage.quantity == billed.quantity
    if (same and price.model.by_quantity) or usage.events_dropped:
        return None
    now = _charge(price, usage, currency, share, discounts)
    if same and now.amount == billed.amount:
        return None
    before = included_of(billed.quantity, price.included_units)
    difference = subtract(now.amount, billed.amount)
    reckoning = (
        f"{_reckoning(price, usage, now)} = {format_money(now.amount, currency)}, "
        f"{format_money(billed.amount, currency)} billed before"
    )
    return InvoiceLine(
        kind=LineKind.LATE_USAGE,
        metric=price.metric,
        description=f"{price.metric}, change of {days(period, time_zone)}: {reckoning}",
        quantity=subtract(usage.quantity, billed.quantity),
        included_units=subtract(now.included_units, before),
        unit_price=now.unit_price,
        amount=difference,
        period=period,
        steps=(
            *now.steps,
            f"{format_money(now.amount, currency)} - {format_money(billed.amount, currency)} "
            f"billed before = {format_money(difference, currency)}",
        ),
    )


def carried_line(
    amount: Decimal, carried: Decimal, currency: str, period: Period
) -> InvoiceLine | None:
    """What brings an invoice whose other lines come to `amount` to its total; None: nothing.

    The total is `amount` less the credit that earlier invoices have `carried`, but never below 0.
    What does not fit is carried on: the line is then above 0. `carried` is the sum of the earlier
    lines of this kind; it is below 0 when an invoice that carried credit on was declared void, as
    those that came to nothing could be before they were paid at once.
    """
    sum_due = max(subtract(amount, carried), ZERO)
    moved = subtract(sum_due, amount)
    if moved == 0:
        return None
    return InvoiceLine(
        kind=LineKind.CREDIT_CARRIED,
        metric="",
        description=(
            "Credit carried to the next invoice"
            if moved > 0
            else "Credit carried from earlier invoices"
        ),
        quantity=ONE,
        included_units=ZERO,
        unit_price=None,
        amount=round_money(moved, currency),
        period=period,
        steps=(
            f"lines above: {format_money(amount, currency)}",
            f"credit carried before: {format_money(carried, currency)}",
            f"to pay: {format_money(sum_due, currency)}, never below 0",
        ),
    )


def _charge(
    price: MetricPrice,
    usage: MetricUsage,
    currency: str,
    share: Share | None,
    discounts: Sequence[Discount],
) -> Charge:
    """The charge; the minimum of a part of a period is its share by seconds."""
    limits, percents = price.limits, percents_of(discounts)
    if limits.minimum is None or share is None or share.times == (share.whole,):
        return charge(price.model, price.included_units, usage, currency, limits, percents=percents)
    words = f"minimum: {format_price(limits.minimum, currency)} {currency}"
    minimum = prorate_all(limits.minimum, words, currency, share.times, share.whole)
    limits = Limits(minimum.amount, limits.maximum)
    result = charge(price.model, price.included_units, usage, currency, limits, percents=percents)
    return replace(result, steps=(*minimum.steps, *result.steps))


def discounted(
    price: Decimal, discounts: Sequence[Discount]
) -> tuple[Decimal, str, tuple[str, ...]]:
    """A price less discounts in percent, words for that, and the steps."""
    less, steps = "", []
    for rate in percents_of(discounts):
        left, rest = less_percent(price, rate), format_decimal(subtract(HUNDRED, rate))
        figures = f"{readable(price)} x {rest} / 100 = {readable(left)}"
        steps.append(f"discount of {format_decimal(rate)} %: {figures}")
        less += f", less {format_decimal(rate)} %"
        price = left
    return price, less, tuple(steps)


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


def _times(period: Period, whole: Period, time_zone: str) -> tuple[str, ...]:
    """A step that tells where a part begins and ends, when that is not on a quarter of an hour."""
    if is_on_quarter_hour(period.start) and is_on_quarter_hour(period.end):
        return ()
    zone = ZoneInfo(time_zone)
    instants = (period.start, period.end, whole.start, whole.end)
    start, end, first, last = (f"{each.astimezone(zone):%Y-%m-%d %H:%M:%S}" for each in instants)
    return (f"from {start} to {end} ({time_zone}), of the period from {first} to {last}",)


def days(period: Period, time_zone: str) -> str:
    """The period in the customer's days: "2026-01-01 to 2026-02-01" (not included)."""
    zone = ZoneInfo(time_zone)
    start, end = (instant.astimezone(zone) for instant in (period.start, period.end))
    return f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
