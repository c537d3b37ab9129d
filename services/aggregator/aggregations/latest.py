"""LATEST: the amount of the event that happened last; 0 without events."""

from decimal import Decimal

from services.aggregator.aggregations.tally import Part, Tally

PARTS: tuple[Part, ...] = ("latest_value",)


def figure(tally: Tally) -> Decimal:
    """The figure of the tally."""
    return tally.latest_value
