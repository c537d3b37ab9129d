"""Fractions rounded to a currency's minor units. Pure."""

from collections.abc import Iterable
from fractions import Fraction

from services.kit.money import minor_digits

HALF = Fraction(1, 2)


def rounded(amount: Fraction, currency: str) -> Fraction:
    """Half up, away from zero."""
    unit = 10 ** minor_digits(currency)
    whole = int(abs(amount) * unit + HALF)
    return Fraction(whole if amount >= 0 else -whole, unit)


def fraction(text: str | None) -> Fraction:
    """An exact number; None is 0."""
    return Fraction(text or 0)


def total(amounts: Iterable[Fraction]) -> Fraction:
    """Their sum."""
    return sum(amounts, Fraction(0))
