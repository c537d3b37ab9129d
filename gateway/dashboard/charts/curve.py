"""A curve: what something costs by how much of it there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gateway.dashboard import text
from gateway.dashboard.charts.bars import Line
from gateway.dashboard.charts.scale import nice_maximum, percent

_LABELS: Final = 4


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the curve, as percentages, and what it says."""

    x: Decimal
    y: Decimal
    tip: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart; `line` and `area` are the points of SVG's polyline and polygon."""

    points: Sequence[Point]
    line: str
    area: str
    ticks: Sequence[Line]
    labels: Sequence[Line]


def priced(quantities: Sequence[Decimal], amounts: Sequence[Decimal], currency: str) -> Curve:
    """The chart of amounts (in the currency) by quantities, which ascend from 0."""
    end, step = nice_maximum(max(amounts))
    last = quantities[-1]
    points = [
        Point(
            percent(quantity, last),
            Decimal(100) - percent(max(amount, Decimal(0)), end),
            f"{text.number(quantity)}: {text.money(amount, currency)}",
        )
        for quantity, amount in zip(quantities, amounts, strict=True)
    ]
    line = " ".join(f"{point.x},{point.y}" for point in points)
    return Curve(
        points=points,
        line=line,
        area=f"0,100 {line} 100,100",
        ticks=[
            Line(Decimal(100) - percent(step * number, end), text.compact(step * number))
            for number in range(int(end / step) + 1)
        ],
        labels=[
            Line(percent(number, _LABELS), text.compact(last * number / _LABELS))
            for number in range(_LABELS + 1)
        ],
    )
