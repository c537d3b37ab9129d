"""Base prices of a part of a period: what is charged, what was paid before and is not used. Pure.

What was charged in advance covers the time that it was for, as long as that time goes on under the
same price and quantity. What it does not cover is charged; what of it was not used is credited by
a line below 0. So a change in the middle needs nothing to be remembered besides the lines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.invoicer.discounts import Discount
from services.invoicer.domain import BasePriceTiming, InvoiceLine, LineKind, PlanContent
from services.invoicer.exact import ONE, ZERO, subtract
from services.invoicer.lines import base_line, days
from services.invoicer.periods import Period
from services.invoicer.proration import prorate
from services.kit.money import format_money


@dataclass(frozen=True, slots=True)
class Prepaid:
    """A base price that an earlier invoice charged; `void`: that invoice, so nothing was paid.

    The base price of a void invoice is not charged again.
    """

    period: Period
    unit_price: Decimal
    quantity: Decimal
    amount: Decimal
    void: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive time with one quantity."""

    period: Period
    quantity: int


@dataclass(frozen=True, slots=True)
class BasePart:
    """A part of a period, `whole`, of one plan, and its segments."""

    plan: PlanContent
    whole: Period
    segments: tuple[Segment, ...]
    discounts: Sequence[Discount]
    time_zone: str


def base_lines(part: BasePart, prepaid: Sequence[Prepaid] = ()) -> Iterator[InvoiceLine]:
    """What is left to charge of each segment, after what is credited of `prepaid`, by time."""
    plan = part.plan
    in_advance = plan.base_price_timing is BasePriceTiming.IN_ADVANCE
    for segment in part.segments:
        covered = segment.period.start
        for paid in prepaid:
            if _segment_of(part, paid) is not segment:
                continue
            now = (plan.base_price, Decimal(segment.quantity))
            same = (paid.unit_price, paid.quantity) == now
            used = paid.period.start
            if same:
                used = max(used, min(paid.period.end, segment.period.end))
            covered = max(covered, used)
            if used < paid.period.end and not paid.void and paid.amount > 0:
                yield _unused_line(part, paid, Period(used, paid.period.end))
        rest = Period(covered, segment.period.end)
        nothing = plan.base_price == 0 and (in_advance or part.segments != (segment,))
        if covered < segment.period.end and not nothing:
            yield base_line(
                plan, rest, part.whole, part.time_zone, part.discounts, segment.quantity
            )


def _segment_of(part: BasePart, paid: Prepaid) -> Segment | None:
    """The one that a base price was charged from; one that ends in its first second too."""
    begun = (each for each in reversed(part.segments) if each.period.start <= paid.period.start)
    return next(begun, None)


def _unused_line(part: BasePart, paid: Prepaid, unused: Period) -> InvoiceLine:
    """Stands for the time that was paid for, so that it belongs to the sums of that period."""
    plan, currency = part.plan, part.plan.currency
    words = f"paid {format_money(paid.amount, currency)} {currency}"
    result = prorate(paid.amount, words, currency, unused, paid.period)
    description = f"base price not used, {days(unused, part.time_zone)}"
    amount = subtract(ZERO, result.amount)
    return InvoiceLine(
        kind=LineKind.BASE,
        metric="",
        description=f"{plan.name}: {description}" if plan.name else description.capitalize(),
        quantity=ONE,
        included_units=ZERO,
        unit_price=None,
        amount=amount,
        period=paid.period,
        steps=(*result.steps, f"to be credited: {format_money(amount, currency)}"),
    )
