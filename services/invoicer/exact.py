"""Exact arithmetic: an operation that would lose a digit raises decimal.Inexact.

Python's own operators on Decimal round silently to 28 digits, so amounts and quantities are added
and multiplied here only. The one rounding of a line is kit.money.round_money.
"""

from collections.abc import Iterable
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal

from services.kit.money import EXACT, format_decimal, format_money, round_money

ZERO = Decimal(0)
ONE = Decimal(1)
HUNDRED = Decimal(100)

# Cut off, never rounded up: what is then rounded half up to a minor unit gives the same as
# rounding the true quotient, since a half stays a half and what is below it stays below.
_QUOTIENT = Context(prec=60, rounding=ROUND_DOWN)
_NEAREST = Context(prec=60, rounding=ROUND_HALF_UP)


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
    """amount x (100 - rate) / 100, cut off after 60 digits: good for one rounding."""
    rest = EXACT.subtract(HUNDRED, rate)
    return _QUOTIENT.scaleb(_QUOTIENT.multiply(amount, rest), -2)


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


def share(amount: Decimal, part_seconds: int, whole_seconds: int) -> Decimal:
    """amount x part / whole, cut off after 60 digits: good for one rounding to a minor unit.

    ValueError unless 0 <= part <= whole and 0 < whole.
    """
    if not 0 <= part_seconds <= whole_seconds or whole_seconds == 0:
        raise ValueError(f"no share of a whole: {part_seconds} / {whole_seconds} s")
    product = _QUOTIENT.multiply(amount, Decimal(part_seconds))
    return _QUOTIENT.divide(product, Decimal(whole_seconds))


def fraction(amount: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """amount x part / whole (> 0), cut off after 60 digits: good for one rounding."""
    return _QUOTIENT.divide(multiply(amount, part), whole)


def nearest(dividend: Decimal, divisor: Decimal, *, like: Decimal) -> Decimal:
    """dividend / divisor, rounded half up to as many digits after the point as `like` has."""
    exponent = min(int(like.as_tuple().exponent), 0)
    quotient = _QUOTIENT.divide(dividend, divisor)
    return quotient.quantize(Decimal(1).scaleb(exponent), context=_NEAREST)


def readable(value: Decimal) -> str:
    """For people: "12,000.5"."""
    return f"{Decimal(format_decimal(value)):,f}"


def format_price(price: Decimal, currency: str) -> str:
    """A price with the currency's minor digits, with more where it has more."""
    rounded = round_money(price, currency)
    return format_money(rounded, currency) if rounded == price else format_decimal(price)
