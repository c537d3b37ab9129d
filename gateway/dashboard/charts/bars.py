"""Bars over time, each cut into the parts that it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gateway.dashboard import text
from gateway.dashboard.charts.scale import nice_maximum, percent, thinned

LABELS_MAX: Final = 8
# Of a bar's place: the rest is the gap to the next.
_FILLED: Final = Decimal("0.78")


@dataclass(frozen=True, slots=True)
class Column:
    """What one bar shows: a value for each part, in the order of the legend."""

    label: str
    title: str
    values: Sequence[Decimal]


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a bar; `color` is the part's number in the legend."""

    color: int
    y: Decimal
    height: Decimal


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: `x` and `width` of its rectangles, and the whole place that it answers in."""

    x: Decimal
    width: Decimal
    place: Decimal
    place_width: Decimal
    tip: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Line:
    """A line across the plot, or a label below it."""

    at: Decimal
    label: str


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart; `columns` are what it was made of, for those who read it as a table."""

    legend: Sequence[str]
    bars: Sequence[Bar]
    ticks: Sequence[Line]
    labels: Sequence[Line]
    columns: Sequence[Column]


def stacked(legend: Sequence[str], columns: Sequence[Column], unit: str = "") -> Bars:
    """The chart of `columns`, whose values are >= 0."""
    totals = [sum(each.values, Decimal(0)) for each in columns]
    end, step = nice_maximum(max(totals, default=Decimal(0)))
    lines = int(end / step)
    ticks = [
        Line(Decimal(100) - percent(step * number, end), text.compact(step * number))
        for number in range(lines + 1)
    ]
    count = len(columns)
    labels = [
        Line(percent(2 * index + 1, 2 * count), columns[index].label)
        for index in thinned(count, LABELS_MAX)
    ]
    bars = [_bar(legend, column, index, count, end, unit) for index, column in enumerate(columns)]
    return Bars(legend, bars, ticks, labels, columns)


def _bar(
    legend: Sequence[str], column: Column, index: int, count: int, end: Decimal, unit: str
) -> Bar:
    place, following = percent(index, count), percent(index + 1, count)
    width = (following - place) * _FILLED
    parts = []
    top = Decimal(100)
    for color, value in enumerate(column.values):
        height = percent(value, end)
        top -= height
        if height:
            parts.append(Part(color, top, height))
    return Bar(
        x=place + (following - place - width) / 2,
        width=width,
        place=place,
        place_width=following - place,
        tip=_tip(legend, column, unit),
        parts=parts,
    )


def _tip(legend: Sequence[str], column: Column, unit: str) -> str:
    total = f"{text.number(sum(column.values, Decimal(0)))} {unit}".strip()
    lines = [column.title, total]
    if len(legend) > 1:
        named = zip(legend, column.values, strict=True)
        lines += [f"{name}: {text.number(value)}" for name, value in named if value]
    return "\n".join(lines)
