"""What a bucket keeps besides sums: how often each value and each rounded amount occurs. Pure.

Kept only for metrics that ask for it. Both are counts, so they add up in any order, and a void is a
subtraction.
"""

import hashlib
from decimal import Decimal

from services.kit.money import round_half_up

VALUE_KEY_BYTES = 16
# Of events without the property: they are counted, so that the counts of a bucket add up to its
# events, and are no value.
NO_VALUE = b""
# Percentiles are told of amounts rounded to so many digits. The furthest that an amount is moved
# is 5 of 1,005, less than 0.5 %; rounding keeps the order, so the percentile of rounded amounts is
# the rounded percentile.
AMOUNT_DIGITS = 3


def value_key(text: str) -> bytes:
    """16 bytes that stand for a value; NO_VALUE for "".

    The first half of SHA-256. Two of a billion different values have the same with a probability
    of 1 in 10^21, and to find two that do takes 2^64 attempts: the count of keys is the count of
    values. Values of any length take the same room.
    """
    return hashlib.sha256(text.encode()).digest()[:VALUE_KEY_BYTES] if text else NO_VALUE


def rounded(amount: Decimal) -> Decimal:
    """The amount that percentiles are made of: half up to AMOUNT_DIGITS digits."""
    result = round_half_up(amount, AMOUNT_DIGITS - 1 - amount.adjusted())
    # What has no more digits stays as it is written: 1, not 1.00.
    return amount if result == amount else result
