"""Figures of a run: percentiles, medians, and the order in which they are taken. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
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
