"""MAX: the largest amount; 0 without events."""

from decimal import Decimal

from services.aggregator.aggregations.tally import Part, Tally

PARTS: tuple[Part, ...] = ("amount_max",)


def figure(tally: Tally) -> Decimal:
    """The figure of the tally."""
    return tally.amount_max
