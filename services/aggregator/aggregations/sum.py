"""SUM: the sum of the amounts."""

from decimal import Decimal

from services.aggregator.aggregations.tally import Part, Tally

PARTS: tuple[Part, ...] = ("amount_sum",)


def figure(tally: Tally) -> Decimal:
    """The figure of the tally."""
    return tally.amount_sum
