"""Exact arithmetic: an operation that would lose a digit raises decimal.Inexact.

Python's own operators on Decimal round silently to 28 digits, so amounts and quantities are added
and multiplied here only. What is divided is a Fraction, which loses nothing either. The one
rounding of a line is kit.money.round_money.
"""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction

from services.kit.money import EXACT, format_decimal, format_money, round_half_up, round_money

ZERO = Decimal(0)
ONE = Decimal(1)
HUNDRED = Decimal(100)


def add(left: Decimal, right: Decimal) -> Decimal:
    """left + right, all digits."""
    return EXACT.add(left, right)


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """left - right, all digits."""
    return EXACT.subtract(left, right)


def multiply(left: Decimal, right: Decimal) -> Decimal:
    """left x right, all digits."""
    return EXACT.multiply(left, right)


def percent(amount: Decimal, rate: Decimal) -> Decimal:
    """amount x rate / 100, all digits."""
    return EXACT.scaleb(EXACT.multiply(amount, rate), -2)


def less_percent(amount: Decimal, rate: Decimal) -> Decimal:
    """amount x (100 - rate) / 100, all digits: of twenty discounts these may be more than 60."""
    return _all_digits(Fraction(amount) * Fraction(EXACT.subtract(HUNDRED, rate)) / 100)


def started(quantity: Decimal, size: Decimal) -> Decimal:
    """How many blocks of `size` (> 0) have been started; 0 for none."""
    whole, rest = EXACT.divmod(quantity, size)
    return EXACT.add(whole, ONE) if rest > 0 else whole


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The sum of all `amounts`, all digits; 0 for none."""
    result = ZERO
    for amount in amounts:
        result = EXACT.add(result, amount)
    return result


def share(amount: Decimal, part_seconds: int, whole_seconds: int) -> Fraction:
    """amount x part / whole. ValueError unless 0 <= part <= whole and 0 < whole."""
    if not 0 <= part_seconds <= whole_seconds or whole_seconds == 0:
        raise ValueError(f"no share of a whole: {part_seconds} / {whole_seconds} s")
    return Fraction(amount) * part_seconds / whole_seconds


def fraction(amount: Decimal, part: Decimal, whole: Decimal) -> Fraction:
    """amount x part / whole (> 0)."""
    return Fraction(amount) * Fraction(part) / Fraction(whole)


def nearest(dividend: Decimal, divisor: Decimal, *, like: Decimal) -> Decimal:
    """dividend / divisor, rounded half up to as many digits after the point as `like` has."""
    places = max(-int(like.as_tuple().exponent), 0)
    return round_half_up(Fraction(dividend) / Fraction(divisor), places)


def _all_digits(value: Fraction) -> Decimal:
    """A fraction that has an end: its denominator is made of twos and fives."""
    # There are fewer of either than the denominator has bits.
    places = value.denominator.bit_length()
    digits, rest = divmod(value.numerator * 10**places, value.denominator)
    assert rest == 0, "has an end"
    return Decimal(f"{digits}E-{places}")


def readable(value: Decimal) -> str:
    """For people: "12,000.5"."""
    return f"{Decimal(format_decimal(value)):,f}"


def format_price(price: Decimal, currency: str) -> str:
    """A price with the currency's minor digits, with more where it has more."""
    rounded = round_money(price, currency)
    return format_money(rounded, currency) if rounded == price else format_decimal(price)
