"""The share of an amount that falls on a part of a period. Pure.

An amount is shared by seconds: of what is left of it at the start of a part, rounded, comes off
what is left at its end, rounded. So the parts of a period sum to the whole exactly, however often
it is cut, and what cannot be divided falls where the rounded rest steps down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.invoicer.exact import readable, share, subtract, total
from services.invoicer.periods import Period
from services.kit.money import format_money, round_money


@dataclass(frozen=True, slots=True)
class Prorated:
    """An amount in minor units, and how it came about."""

    amount: Decimal
    steps: tuple[str, ...]


def prorate(price: Decimal, words: str, currency: str, part: Period, whole: Period) -> Prorated:
    """The share of `price`, which `words` write, that falls on `part` of `whole`."""
    at_start, step = _rest(price, words, currency, Period(part.start, whole.end), whole)
    if part.end == whole.end:
        return Prorated(at_start, (step,))
    at_end, other = _rest(price, words, currency, Period(part.end, whole.end), whole)
    amount = subtract(at_start, at_end)
    figures = [format_money(each, currency) for each in (at_start, at_end, amount)]
    return Prorated(amount, (step, other, f"{figures[0]} - {figures[1]} = {figures[2]} {currency}"))


def prorate_all(
    price: Decimal, words: str, currency: str, parts: Sequence[Period], whole: Period
) -> Prorated:
    """The share that falls on several parts of `whole`, at least one, which do not overlap."""
    shares = [prorate(price, words, currency, part, whole) for part in parts]
    steps = tuple(step for each in shares for step in each.steps)
    amount = total(each.amount for each in shares)
    if len(shares) > 1:
        figures = " + ".join(format_money(each.amount, currency) for each in shares)
        steps += (f"{figures} = {format_money(amount, currency)} {currency}",)
    return Prorated(amount, steps)


def _rest(
    price: Decimal, words: str, currency: str, rest: Period, whole: Period
) -> tuple[Decimal, str]:
    amount = round_money(share(price, rest.seconds, whole.seconds), currency)
    seconds, of_seconds = readable(Decimal(rest.seconds)), readable(Decimal(whole.seconds))
    result = f"{format_money(amount, currency)} {currency}"
    return amount, f"{words} x {seconds} s / {of_seconds} s = {result}, rounded half up"
