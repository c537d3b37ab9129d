"""Base prices of a part of a period: what is charged, what was paid before and is not used. Pure.

What was charged in advance covers the time that it was for, as long as that time goes on under the
same price and quantity. What it does not cover is charged; what of it was not used is credited by
a line below 0, and so is what was charged for a time after the part, which is then charged anew. So
a change in the middle needs nothing to be remembered besides the lines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.invoicer.adjustments import BilledPart
from services.invoicer.discounts import Discount
from services.invoicer.domain import BasePriceTiming, InvoiceLine, LineKind, PlanContent
from services.invoicer.exact import ONE, ZERO, multiply, subtract
from services.invoicer.lines import base_line, days, discounted
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

    @property
    def billed(self) -> BilledPart:
        """What the line billed."""
        return BilledPart(self.period.start, LineKind.BASE, self.amount, self.period.end)


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
            used = paid.period.start
            if _goes_on(part, segment, paid):
                used = max(used, min(paid.period.end, segment.period.end))
                covered = max(covered, min(used, segment.period.end))
            if used < paid.period.end and not paid.void and paid.amount > 0:
                yield _unused_line(part, paid, Period(used, paid.period.end))
        rest = Period(covered, segment.period.end)
        nothing = plan.base_price == 0 and (in_advance or part.segments != (segment,))
        if covered < segment.period.end and not nothing:
            yield base_line(
                plan, rest, part.whole, part.time_zone, part.discounts, segment.quantity
            )


def outstanding(prepaid: Sequence[Prepaid], lines: Sequence[InvoiceLine]) -> list[Prepaid]:
    """Those that none of the lines credits in full."""
    credited = {(line.period, -line.amount) for line in lines if line.unit_price is None}
    return [each for each in prepaid if (each.period, each.amount) not in credited]


def _goes_on(part: BasePart, segment: Segment, paid: Prepaid) -> bool:
    """Whether the segment is under the price and quantity that were charged. Of plans whose periods
    are of another length a share of the same price is another amount; discounts may have been added
    since.
    """
    plan, whole = part.plan, part.whole
    if (paid.unit_price, paid.quantity) != (plan.base_price, Decimal(segment.quantity)):
        return False
    within = whole.start <= paid.period.start and paid.period.end <= whole.end
    if segment.period.start > paid.period.start or not within:
        return False
    most = multiply(plan.base_price, paid.quantity)
    least, _, _ = discounted(most, part.discounts)
    low, high = (prorate(each, "", plan.currency, paid.period, whole) for each in (least, most))
    return low.amount <= paid.amount <= high.amount


def _segment_of(part: BasePart, paid: Prepaid) -> Segment:
    """The one that a base price was charged from; one that ends in its first second too. None such
    is left: the first one.
    """
    begun = (each for each in reversed(part.segments) if each.period.start <= paid.period.start)
    return next(begun, part.segments[0])


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
