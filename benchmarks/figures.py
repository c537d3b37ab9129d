"""Figures of a run: percentiles, medians, and the order in which they are taken. Pure."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median
from typing import TypeVar

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Row:
    """One line of the results; `ratio` is value / floor. None: not applicable."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    # Processor time an event by part, microseconds.
    micros: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Share of its floor that the row reaches."""
        return self.value / self.floor if self.floor else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of `ordered` (ascending) do not exceed.

    The nearest-rank method: always a value that occurred. ValueError without values.
    """
    if not ordered:
        raise ValueError("no values")
    rank = -(-len(ordered) * round(share * 1_000) // 1_000)
    return ordered[max(rank, 1) - 1]


def interleaved(
    measure: Callable[[], Outcome], floor: Callable[[], float], rounds: int
) -> tuple[list[Outcome], list[float]]:
    """floor, measure, floor, measure, .. floor: what slows the machine down slows both."""
    floors = [floor()]
    outcomes = []
    for _ in range(rounds):
        outcomes.append(measure())
        floors.append(floor())
    return outcomes, floors


def median_of(outcomes: Sequence[Outcome], figure: Callable[[Outcome], float]) -> float:
    """The median of one figure over all rounds."""
    return median(figure(outcome) for outcome in outcomes)


def lags_s(timeline: Sequence[tuple[float, int]], seen: Sequence[tuple[float, int]]) -> list[float]:
    """How far behind whoever counts was, at each look: (instant, count) in, seconds out.

    `timeline` says how many events were acknowledged by when. The lag at a look is the age of the
    oldest of them that was not counted; 0 when all were.
    """
    counts = [count for _, count in timeline]
    lags = []
    for looked_s, counted in seen:
        first_missing = bisect_right(counts, counted)
        behind = first_missing < len(timeline) and timeline[first_missing][0] < looked_s
        lags.append(looked_s - timeline[first_missing][0] if behind else 0.0)
    return lags


def slope(points: Sequence[tuple[float, float]], after: float) -> float:
    """How fast y grows with x (least squares) in the points with x >= `after`."""
    late = [point for point in points if point[0] >= after]
    return linear_regression(*zip(*late, strict=True)).slope


def merged(micros: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each part."""
    return {part: median(each[part] for each in micros) for part in micros[0]}
