"""What changes the sum of a period's prices: amounts off, the plan's maximum and minimum.

What a period costs is worked out anew from all that was charged for it, on this invoice and on
those before; a line bills the difference to what was adjusted before. So it does not matter over
how many invoices the prices of a period are spread (base prices in advance, late usage). Pure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.invoicer.discounts import Discount
from services.invoicer.domain import InvoiceLine, LineKind
from services.invoicer.exact import ONE, ZERO, add, readable, subtract, total
from services.invoicer.periods import Period
from services.invoicer.pricing.charge import NO_LIMITS, Limits
from services.invoicer.proration import prorate
from services.kit.money import format_money, round_money

# Lines that are no price of a period.
_ADJUSTMENTS = (LineKind.DISCOUNT, LineKind.MAXIMUM, LineKind.MINIMUM)
_APART = (LineKind.SETUP_FEE, LineKind.CHARGE, LineKind.TAX, LineKind.CREDIT_CARRIED)


@dataclass(frozen=True, slots=True)
class BilledPart:
    """The sum of earlier invoices' lines of one kind about what began at `start`."""

    start: datetime
    kind: LineKind
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Terms:
    """What one period is subject to. `whole` is the period that it is a part of, or itself.

    While it is not `over` there is no minimum. `words` name it when it is not the invoice's own.
    `undivided` is what amounts off are for: a first period counts as a whole one, however short.
    `exact` is the part by time, to the second; None: the period.
    """

    period: Period
    whole: Period
    discounts: tuple[Discount, ...] = ()
    limits: Limits = NO_LIMITS
    over: bool = True
    words: str = ""
    undivided: Period | None = None
    exact: Period | None = None

    @property
    def change_sums(self) -> bool:
        """Whether any sum can differ from that of the prices."""
        return self.limits != NO_LIMITS or any(each.amount is not None for each in self.discounts)


def prices_of(lines: Sequence[InvoiceLine], period: Period) -> list[InvoiceLine]:
    """The lines that are prices of the period or of a part of it."""
    return [
        line
        for line in lines
        if line.kind not in (*_APART, *_ADJUSTMENTS)
        and period.start <= line.period.start < period.end
    ]


def adjustment_lines(
    terms: Terms, lines: Sequence[InvoiceLine], before: Sequence[BilledPart], currency: str
) -> Iterator[InvoiceLine]:
    """The lines that make this invoice's `lines` about a period, and those `before`, come to what
    the period costs: discounts first, then the maximum, then the minimum.
    """
    sums = _Sums(before, terms.period)
    charged = add(sums.charged, total(line.amount for line in prices_of(lines, terms.period)))
    writer = _Writer(terms, currency)
    left, steps = _discounted(terms, charged, currency)
    yield from writer.line(
        LineKind.DISCOUNT, "Discount", subtract(left, charged), sums.of(LineKind.DISCOUNT), steps
    )
    maximum = terms.limits.maximum
    if maximum is not None:
        capped = min(left, round_money(maximum, currency))
        steps = (f"at most {writer.money(capped)} in place of {writer.money(left)}",)
        yield from writer.line(
            LineKind.MAXIMUM,
            f"At most {writer.money(round_money(maximum, currency))} a period",
            subtract(capped, left),
            sums.of(LineKind.MAXIMUM),
            steps,
        )
        left = capped
    minimum = terms.limits.minimum
    if minimum is not None and terms.over:
        least, words = _minimum(terms, minimum, currency)
        raised = max(left, least)
        steps = (*words, f"at least {writer.money(least)}, and {writer.money(left)} was charged")
        yield from writer.line(
            LineKind.MINIMUM,
            f"At least {writer.money(least)} a period",
            subtract(raised, left),
            sums.of(LineKind.MINIMUM),
            steps,
        )


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


def _minimum(terms: Terms, minimum: Decimal, currency: str) -> tuple[Decimal, tuple[str, ...]]:
    """The minimum of a part of a period is its share by seconds."""
    return _share(minimum, "minimum", terms, terms.whole, currency)


def _share(
    amount: Decimal, name: str, terms: Terms, whole: Period | None, currency: str
) -> tuple[Decimal, tuple[str, ...]]:
    """What of an amount for `whole` falls on the period."""
    part = terms.exact or terms.period
    if whole is None or part == whole:
        return round_money(amount, currency), ()
    words = f"{name}: {readable(amount)} {currency}"
    result = prorate(amount, words, currency, part, whole)
    return result.amount, result.steps


@dataclass(frozen=True, slots=True)
class _Sums:
    """What earlier invoices billed for a period."""

    parts: Sequence[BilledPart]
    period: Period

    @property
    def charged(self) -> Decimal:
        """The prices."""
        return total(
            part.amount for part in self._of_period() if part.kind not in (*_APART, *_ADJUSTMENTS)
        )

    def of(self, kind: LineKind) -> Decimal:
        """One kind of adjustment."""
        return total(part.amount for part in self._of_period() if part.kind is kind)

    def _of_period(self) -> Iterator[BilledPart]:
        return (p for p in self.parts if self.period.start <= p.start < self.period.end)


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
