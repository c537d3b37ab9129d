"""Curves: what something costs by how much of it there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from gateway.dashboard import text
from gateway.dashboard.charts.bars import Line
from gateway.dashboard.charts.scale import nice_maximum, percent


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the curve, as percentages, and what it says."""

    x: Decimal
    y: Decimal
    tip: str


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One line of the chart; `path` are the points of SVG's polyline."""

    name: str
    points: Sequence[Point]
    path: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart; `area` are the points of SVG's polygon below its only line, "" when it has more."""

    lines: Sequence[PriceLine]
    area: str
    ticks: Sequence[Line]
    labels: Sequence[Line]


def priced(
    quantities: Sequence[Decimal],
    lines: Sequence[tuple[str, Sequence[Decimal]]],
    currency: str,
) -> Curve:
    """The chart of lines, each a name and amounts (in the currency) by quantities, which ascend
    from 0.
    """
    end, step = nice_maximum(max(max(amounts) for _name, amounts in lines))
    last = quantities[-1]
    _end, across = nice_maximum(last)
    drawn = [
        _line(quantities, name if len(lines) > 1 else "", amounts, (last, end), currency)
        for name, amounts in lines
    ]
    return Curve(
        lines=drawn,
        area=f"0,100 {drawn[0].path} 100,100" if len(drawn) == 1 else "",
        ticks=[
            Line(Decimal(100) - percent(step * number, end), text.compact(step * number))
            for number in range(int(end / step) + 1)
        ],
        labels=[
            Line(percent(across * number, last), text.compact(across * number))
            for number in range(int(last / across) + 1)
        ],
    )


def _line(
    quantities: Sequence[Decimal],
    name: str,
    amounts: Sequence[Decimal],
    ends: tuple[Decimal, Decimal],
    currency: str,
) -> PriceLine:
    of = f"{name}\n" if name else ""
    points = [
        Point(
            percent(quantity, ends[0]),
            Decimal(100) - percent(max(amount, Decimal(0)), ends[1]),
            f"{of}{text.number(quantity)}: {text.money(amount, currency)}",
        )
        for quantity, amount in zip(quantities, amounts, strict=True)
    ]
    return PriceLine(name, points, " ".join(f"{point.x},{point.y}" for point in points))
