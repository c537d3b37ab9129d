"""COUNT: the number of events."""

from decimal import Decimal

from services.aggregator.aggregations.tally import Part, Tally

PARTS: tuple[Part, ...] = ("event_count",)


def figure(tally: Tally) -> Decimal:
    """The figure of the tally."""
    return Decimal(tally.event_count)
