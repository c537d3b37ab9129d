"""How buckets become one figure: a small pure module for each kind of aggregation.

PARTS names the columns of a Tally that a kind needs; SQL reads no others. Every part can be
combined in any order and any grouping (sums, extremes, the last by time and event id), so the
figure does not depend on how events were cut into batches, buckets and series.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

from services.aggregator.aggregations import average, count, latest, maximum, minimum, unique_count
from services.aggregator.aggregations import sum as sum_
from services.aggregator.aggregations.tally import Part, Tally


class Kind(Protocol):
    """What a module of this package has."""

    PARTS: tuple[Part, ...]

    def figure(self, tally: Tally) -> Decimal:
        """The figure of the tally; exact, for AVG see there."""


KINDS: Mapping[str, Kind] = {
    "SUM": sum_,
    "COUNT": count,
    "MAX": maximum,
    "MIN": minimum,
    "AVG": average,
    "LATEST": latest,
    "UNIQUE_COUNT": unique_count,
}


def figures_of(aggregation: str, columns: Sequence[Sequence[Any]]) -> Sequence[Decimal]:
    """The figure of each row of parts; `columns`: one for each of the kind's PARTS, in order.

    A kind of one part has no other figure than that. Not of UNIQUE_COUNT, whose values are no part.
    """
    kind = KINDS[aggregation]
    if len(columns) == 1:
        return list(map(Decimal, columns[0]))
    rows = zip(*columns, strict=True)
    return [kind.figure(Tally(**dict(zip(kind.PARTS, row, strict=True)))) for row in rows]


__all__ = ["KINDS", "Kind", "Part", "Tally", "figures_of"]
