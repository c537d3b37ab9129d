"""AVG: the sum divided by the number of events, half up to 12 digits after the point.

12 digits are what an amount may have. Sum and number are exact and divided once, as integers, so
the only rounding is the last one; 0 without events.
"""

from decimal import Decimal

from services.aggregator.aggregations.tally import Part, Tally
from services.kit.money import EXACT

PARTS: tuple[Part, ...] = ("event_count", "amount_sum")
SCALE = 12


def figure(tally: Tally) -> Decimal:
    """The figure of the tally."""
    count = tally.event_count
    if count == 0:
        return Decimal(0)
    scaled = int(tally.amount_sum.scaleb(SCALE, EXACT))
    # Amounts are never negative, so rounding down after adding a half is half up.
    rounded = (2 * scaled + count) // (2 * count)
    return Decimal(rounded).scaleb(-SCALE, EXACT)
