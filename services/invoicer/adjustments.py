"""What changes the sum of a period's prices: amounts off, the plan's maximum and minimum.

What a period costs is worked out anew from all that was charged for it, on this invoice and on
those before; a line bills the difference to what was adjusted before. So it does not matter over
how many invoices the prices of a period are spread (base prices in advance, late usage). Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import takewhile

from services.invoicer.discounts import Discount
from services.invoicer.domain import InvoiceLine, LineKind
from services.invoicer.exact import ONE, ZERO, add, readable, subtract, total
from services.invoicer.periods import Period, is_on_quarter_hour
from services.invoicer.pricing.charge import NO_LIMITS, Limits
from services.invoicer.proration import prorate_all
from services.kit.money import format_money, round_money

# Lines that are no price of a period.
_ADJUSTMENTS = (LineKind.DISCOUNT, LineKind.MAXIMUM, LineKind.MINIMUM)
_APART = (LineKind.SETUP_FEE, LineKind.CHARGE, LineKind.TAX, LineKind.CREDIT_CARRIED)


@dataclass(frozen=True, slots=True)
class BilledPart:
    """The sum of lines of one kind about [start, end); `end` None: a part of a period."""

    start: datetime
    kind: LineKind
    amount: Decimal
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Which lines are about one plan's time of a part: `window` is the part by time, `starts` where
    the times in it begin that are priced alike, and whether by this plan. `has_usage`: its usage is
    of this plan.
    """

    part: Period
    window: Period
    starts: tuple[tuple[datetime, bool], ...]
    has_usage: bool = True

    def holds(self, line: BilledPart) -> bool:
        """Whether the line is about it. Base prices are for time; so is what changed the sum of a
        time within a quarter of an hour. All else is about the part.
        """
        if line.kind in _APART:
            return False
        if line.kind is LineKind.BASE:
            within = self.window.start <= line.start < self.window.end
            return within and self._is_own(line.start)
        if not self.part.start <= line.start < self.part.end:
            return False
        within = line.end is not None and not is_on_quarter_hour(line.end)
        if line.kind in _ADJUSTMENTS and within:
            return self._is_own(line.start)
        return self.has_usage

    def _is_own(self, start: datetime) -> bool:
        """Whether it begins in a time of this plan; before all of them: in the first one."""
        _, first = self.starts[0]
        begun = takewhile(lambda each: each[0] <= start, self.starts)
        return [first, *(own for _, own in begun)][-1]


@dataclass(frozen=True, slots=True)
class Terms:
    """What one period is subject to. `whole` is the period that it is a part of, or itself.

    While it is not `over` there is no minimum. `words` name it when it is not the invoice's own.
    `undivided` is what amounts off are for: a first period counts as a whole one, however short.
    `times` is the part by time, to the second; none: the period. `claim`: which lines are about it;
    None: what begins in it. `minimums`: what usage costs at least, by metric, where it has none.
    """

    period: Period
    whole: Period
    discounts: tuple[Discount, ...] = ()
    limits: Limits = NO_LIMITS
    over: bool = True
    words: str = ""
    undivided: Period | None = None
    times: tuple[Period, ...] = ()
    claim: Claim | None = None
    minimums: tuple[tuple[str, Decimal], ...] = ()

    @property
    def change_sums(self) -> bool:
        """Whether any sum can differ from that of the prices."""
        changing = self.limits != NO_LIMITS or bool(self.minimums)
        return changing or any(each.amount is not None for each in self.discounts)

    def hold(self, line: BilledPart) -> bool:
        """Whether the line is about the period."""
        if self.claim is not None:
            return self.claim.holds(line)
        return line.kind not in _APART and self.period.start <= line.start < self.period.end


def billed_part(line: InvoiceLine) -> BilledPart:
    """What a line bills."""
    return BilledPart(line.period.start, line.kind, line.amount, line.period.end)


def adjustment_lines(
    terms: Terms, lines: Sequence[InvoiceLine], before: Sequence[BilledPart], currency: str
) -> Iterator[InvoiceLine]:
    """The lines that make this invoice's `lines` about a period, and those `before`, come to what
    the period costs: discounts first, then the maximum, then the minimum.
    """
    sums = _Sums([each for each in before if terms.hold(each)])
    if not terms.change_sums and not sums.adjusted:
        return
    now = _Sums([part for part in map(billed_part, lines) if terms.hold(part)])
    writer = _Writer(terms, currency)
    used, used_steps = _least_of_usage(terms, currency)
    priced = total((sums.charged, now.charged, used))
    left, steps = _discounted(terms, priced, currency)
    yield from writer.line(
        LineKind.DISCOUNT, "Discount", subtract(left, priced), sums.of(LineKind.DISCOUNT), steps
    )
    capped, steps, words = _capped(terms, left, currency)
    yield from writer.line(
        LineKind.MAXIMUM, words, subtract(capped, left), sums.of(LineKind.MAXIMUM), steps
    )
    if terms.over:
        raised, steps, words = _raised(terms, capped, used, currency)
        due = add(subtract(raised, capped), used)
        before_it = sums.of(LineKind.MINIMUM)
        yield from writer.line(LineKind.MINIMUM, words, due, before_it, (*used_steps, *steps))


def _capped(terms: Terms, left: Decimal, currency: str) -> tuple[Decimal, tuple[str, ...], str]:
    """A sum that is at most the maximum, how it came about, and words for it."""
    maximum = terms.limits.maximum
    if maximum is None:
        return left, (), "Maximum"
    most = round_money(maximum, currency)
    capped = min(left, most)
    step = f"at most {format_money(capped, currency)} in place of {format_money(left, currency)}"
    return capped, (step,), f"At most {format_money(most, currency)} a period"


def _raised(
    terms: Terms, charged: Decimal, used: Decimal, currency: str
) -> tuple[Decimal, tuple[str, ...], str]:
    """A sum that is at least the minimum, how it came about, and words for it. `used`: what of it
    is that of usage.
    """
    minimum = terms.limits.minimum
    if minimum is None:
        return charged, (), f"At least {format_money(used, currency)} for usage"
    least, steps = _share(minimum, "minimum", terms, terms.whole, currency)
    words = f"at least {format_money(least, currency)}"
    step = f"{words}, and {format_money(charged, currency)} was charged"
    return max(charged, least), (*steps, step), f"{words.capitalize()} a period"


def _least_of_usage(terms: Terms, currency: str) -> tuple[Decimal, tuple[str, ...]]:
    """What usage costs at least where there is none."""
    shares = [
        _share(amount, f"{metric}, minimum", terms, terms.whole, currency)
        for metric, amount in terms.minimums
    ]
    steps = tuple(step for _, of in shares for step in of)
    return total(amount for amount, _ in shares), steps


def _discounted(terms: Terms, charged: Decimal, currency: str) -> tuple[Decimal, tuple[str, ...]]:
    """What amounts off leave of a sum, never less than 0; of a part of a period their share."""
    left = charged
    steps: list[str] = []
    for discount in terms.discounts:
        if discount.amount is None:
            continue
        name = discount.name or "discount"
        off, words = _share(discount.amount, name, terms, terms.undivided, currency)
        steps += words
        taken = min(off, max(left, ZERO))
        rest = subtract(left, taken)
        figures = f"{format_money(left, currency)} - {format_money(taken, currency)}"
        steps.append(f"{name}: {figures} = {format_money(rest, currency)}")
        left = rest
    return left, tuple(steps)


def _share(
    amount: Decimal, name: str, terms: Terms, whole: Period | None, currency: str
) -> tuple[Decimal, tuple[str, ...]]:
    """What of an amount for `whole` falls on the period."""
    times = terms.times or (terms.period,)
    if whole is None or times == (whole,):
        return round_money(amount, currency), ()
    words = f"{name}: {readable(amount)} {currency}"
    result = prorate_all(amount, words, currency, times, whole)
    return result.amount, result.steps


@dataclass(frozen=True, slots=True)
class _Sums:
    """What lines bill for a period."""

    parts: Sequence[BilledPart]

    @property
    def charged(self) -> Decimal:
        """The prices."""
        return total(part.amount for part in self.parts if part.kind not in _ADJUSTMENTS)

    @property
    def adjusted(self) -> bool:
        """Whether any of them changes the sum of prices."""
        return any(part.kind in _ADJUSTMENTS for part in self.parts)

    def of(self, kind: LineKind) -> Decimal:
        """One kind of adjustment."""
        return total(part.amount for part in self.parts if part.kind is kind)


@dataclass(frozen=True, slots=True)
class _Writer:
    terms: Terms
    currency: str

    def money(self, amount: Decimal) -> str:
        return format_money(amount, self.currency)

    def line(
        self,
        kind: LineKind,
        description: str,
        due: Decimal,
        before: Decimal,
        steps: tuple[str, ...],
    ) -> Iterator[InvoiceLine]:
        """The line that brings what was billed `before` to what is `due`; none when it is that."""
        amount = subtract(due, before)
        if amount == 0:
            return
        if before != 0:
            steps += (f"{self.money(due)} in all, {self.money(before)} billed before",)
        of_period = f" ({self.terms.words})" if self.terms.words else ""
        yield InvoiceLine(
            kind=kind,
            metric="",
            description=description + of_period,
            quantity=ONE,
            included_units=ZERO,
            unit_price=None,
            amount=amount,
            period=self.terms.period,
            steps=(*steps, f"to be billed: {self.money(amount)}"),
        )
