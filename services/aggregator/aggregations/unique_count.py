"""UNIQUE_COUNT: the number of different values of a metadata property; 0 without events.

Values are no columns of a bucket: detail_questions.py counts them over all buckets together, since
the counts of two buckets can't be added up.
"""

from decimal import Decimal

from services.aggregator.aggregations.tally import Part, Tally

PARTS: tuple[Part, ...] = ("event_count",)


def figure(tally: Tally) -> Decimal:
    """The figure of the tally."""
    return Decimal(tally.unique_count)
