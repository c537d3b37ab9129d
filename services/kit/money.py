"""Exact decimals, and money rounded once to a currency's ISO 4217 minor unit. No floats."""

import re
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow

from services.kit.errors import FieldProblem, InvalidArgumentError

# 60 digits hold the product of any two quantities the contract allows; an operation that would
# lose a digit raises instead (decimal.Inexact), and so does one that has no result, which would
# otherwise go on as NaN. The one rounding is in round_money.
EXACT = Context(prec=60, rounding=ROUND_HALF_UP, traps=[Inexact, InvalidOperation, Overflow])
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_UP)

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


def is_currency(code: str) -> bool:
    """Whether `code` is an ISO 4217 currency."""
    return code in _MINOR_DIGITS


def minor_digits(currency: str) -> int:
    """Digits after the point of the currency's minor unit; KeyError for an unknown currency."""
    return _MINOR_DIGITS[currency]


def round_money(amount: Decimal, currency: str) -> Decimal:
    """`amount` rounded half up (away from zero) to the currency's minor unit."""
    return amount.quantize(Decimal(1).scaleb(-minor_digits(currency)), context=_ROUNDING)


def format_money(amount: Decimal, currency: str) -> str:
    """An amount that already is in minor units, for example "120.00"; decimal.Inexact if not."""
    exact = Context(prec=60, traps=[Inexact])
    return f"{amount.quantize(Decimal(1).scaleb(-minor_digits(currency)), context=exact):f}"


def format_decimal(value: Decimal) -> str:
    """Plain digits: no exponent, no trailing zeros after the point, never "-0"."""
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
