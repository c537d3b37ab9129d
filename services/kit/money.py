"""Exact decimals, and money rounded once to a currency's ISO 4217 minor unit. No floats.

What has no end in decimals, the share of an amount, is a Fraction until it is rounded.
"""

import re
from decimal import (
    ROUND_HALF_UP,
    Context,
    Decimal,
    DefaultContext,
    Inexact,
    InvalidOperation,
    Overflow,
    setcontext,
)
from fractions import Fraction

from services.kit.errors import FieldProblem, InvalidArgumentError

# 60 digits hold the product of any two quantities the contract allows; an operation that would
# lose a digit raises instead (decimal.Inexact), and so does one that has no result, which would
# otherwise go on as NaN. Digits are dropped in round_half_up, and nowhere else.
EXACT = Context(prec=60, rounding=ROUND_HALF_UP, traps=[Inexact, InvalidOperation, Overflow])
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])

# ISO 4217 (list one, 2026): digits after the point, where they are not 2.
_MINOR_DIGITS_0 = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_MINOR_DIGITS_3 = "BHD IQD JOD KWD LYD OMR TND"
_MINOR_DIGITS_4 = "CLF UYW"
_MINOR_DIGITS_2 = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF
CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL
MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR
PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP
TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG
"""
_MINOR_DIGITS = {
    code: digits
    for digits, codes in (
        (0, _MINOR_DIGITS_0),
        (2, _MINOR_DIGITS_2),
        (3, _MINOR_DIGITS_3),
        (4, _MINOR_DIGITS_4),
    )
    for code in codes.split()
}

_DECIMAL = re.compile(r"-?(\d+)(?:\.(\d+))?", re.ASCII)
DECIMAL_CHARS_MAX = 64


def trap_inexact() -> None:
    """Let Python's operators on Decimal raise where EXACT does, in this process: called when it
    starts. What somebody forgot to compute in EXACT then fails, and no digit is lost unnoticed.
    """
    setcontext(EXACT)
    # What each new thread's context is a copy of.
    DefaultContext.prec = EXACT.prec
    DefaultContext.rounding = EXACT.rounding
    for signal, trapped in EXACT.traps.items():
        DefaultContext.traps[signal] = trapped


def is_currency(code: str) -> bool:
    """Whether `code` is an ISO 4217 currency."""
    return code in _MINOR_DIGITS


def minor_digits(currency: str) -> int:
    """Digits after the point of the currency's minor unit; KeyError for an unknown currency."""
    return _MINOR_DIGITS[currency]


def round_half_up(value: Decimal | Fraction, places: int) -> Decimal:
    """`value` rounded once, half up (away from zero), to `places` digits after the point.

    Below 0 places are digits before the point. decimal.InvalidOperation, or Inexact for a Fraction,
    when the result has more than 60 digits.
    """
    if isinstance(value, Decimal):
        return value.quantize(Decimal(1).scaleb(-places, EXACT), context=_ROUNDING)
    scaled = abs(value) * Fraction(10) ** places
    above, below = scaled.numerator, scaled.denominator
    whole = (2 * above + below) // (2 * below)
    return Decimal(whole if value >= 0 else -whole).scaleb(-places, EXACT)


def round_money(amount: Decimal | Fraction, currency: str) -> Decimal:
    """`amount` rounded half up (away from zero) to the currency's minor unit."""
    return round_half_up(amount, minor_digits(currency))


def format_money(amount: Decimal, currency: str) -> str:
    """An amount that already is in minor units, for example "120.00"; decimal.Inexact if not."""
    unit = Decimal(1).scaleb(-minor_digits(currency), EXACT)
    return f"{amount.quantize(unit, context=EXACT):f}"


def format_decimal(value: Decimal) -> str:
    """Plain digits: no exponent, no trailing zeros after the point, never "-0"."""
    # str() takes half the time, and writes few numbers with an exponent.
    text = str(value)
    if "E" in text:
        text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def parse_decimal(
    text: str,
    field: str,
    *,
    digits_max: int = 38,
    scale_max: int = 12,
    minimum: Decimal | None = Decimal(0),
) -> Decimal:
    """The exact decimal that `text` spells; InvalidArgumentError names `field` and the limits.

    `digits_max` counts digits on both sides of the point, leading zeros left out.
    """
    match = _DECIMAL.fullmatch(text) if len(text) <= DECIMAL_CHARS_MAX else None
    if match is None:
        raise InvalidArgumentError([FieldProblem(field, 'must be a decimal such as "12.5"')])
    whole, fraction = match.group(1).lstrip("0"), (match.group(2) or "").rstrip("0")
    if len(whole) + len(fraction) > digits_max or len(fraction) > scale_max:
        raise InvalidArgumentError(
            [
                FieldProblem(
                    field,
                    f"must have at most {digits_max} digits, at most {scale_max} after the point",
                )
            ]
        )
    value = Decimal(text)
    if minimum is not None and value < minimum:
        raise InvalidArgumentError([FieldProblem(field, f"must be at least {minimum}")])
    return value
