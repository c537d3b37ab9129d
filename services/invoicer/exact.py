"""Exact arithmetic: an operation that would lose a digit raises decimal.Inexact.

Python's own operators on Decimal round silently to 28 digits, so amounts and quantities are added
and multiplied here only. The one rounding of a line is kit.money.round_money.
"""

from collections.abc import Iterable
from decimal import ROUND_DOWN, Context, Decimal

from services.kit.money import EXACT, format_decimal, format_money, round_money

ZERO = Decimal(0)
ONE = Decimal(1)

# Cut off, never rounded up: what is then rounded half up to a minor unit gives the same as
# rounding the true quotient, since a half stays a half and what is below it stays below.
_QUOTIENT = Context(prec=60, rounding=ROUND_DOWN)


def add(left: Decimal, right: Decimal) -> Decimal:
    """left + right, all digits."""
    return EXACT.add(left, right)


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """left - right, all digits."""
    return EXACT.subtract(left, right)


def multiply(left: Decimal, right: Decimal) -> Decimal:
    """left x right, all digits."""
    return EXACT.multiply(left, right)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The sum of all `amounts`, all digits; 0 for none."""
    result = ZERO
    for amount in amounts:
        result = EXACT.add(result, amount)
    return result


def share(amount: Decimal, part_seconds: int, whole_seconds: int) -> Decimal:
    """amount x part / whole, cut off after 60 digits: good for one rounding to a minor unit.

    ValueError unless 0 <= part <= whole and 0 < whole.
    """
    if not 0 <= part_seconds <= whole_seconds or whole_seconds == 0:
        raise ValueError(f"no share of a whole: {part_seconds} / {whole_seconds} s")
    return _QUOTIENT.divide(multiply(amount, Decimal(part_seconds)), Decimal(whole_seconds))


def readable(value: Decimal) -> str:
    """For people: "12,000.5"."""
    return f"{Decimal(format_decimal(value)):,f}"


def format_price(price: Decimal, currency: str) -> str:
    """A price with the currency's minor digits, with more where it has more."""
    rounded = round_money(price, currency)
    return format_money(rounded, currency) if rounded == price else format_decimal(price)
