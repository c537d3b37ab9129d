"""Where bars and curves stand."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dashboard.charts.bars import Column, stacked
from gateway.dashboard.charts.curve import priced
from gateway.dashboard.charts.scale import nice_maximum

AMOUNTS = st.decimals(min_value=0, max_value=10**26, places=6)


@given(AMOUNTS.filter(bool))
def test_an_axis_ends_a_little_above_the_largest_value_on_a_round_number(
    largest: Decimal,
) -> None:
    end, step = nice_maximum(largest)
    assert largest <= end < largest + step
    assert step.normalize().as_tuple().digits in ((1,), (2,), (2, 5), (5,))
    assert end / step <= 4


def test_an_axis_without_values_ends_at_one() -> None:
    assert nice_maximum(Decimal(0)) == (Decimal(1), Decimal(1))


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=12))
def test_parts_stand_on_each_other_inside_the_plot(values: list[tuple[Decimal, Decimal]]) -> None:
    columns = [Column("a", "b", each) for each in values]
    chart = stacked(["first", "second"], columns)
    assert len(chart.bars) == len(columns)
    for bar in chart.bars:
        below = Decimal(100)
        for part in bar.parts:
            assert part.y + part.height == below
            below = part.y
        assert below >= Decimal("-0.02")
        assert 0 <= bar.place <= bar.x
        assert bar.x + bar.width <= Decimal("100.01")


def test_a_bar_tells_what_it_shows() -> None:
    columns = [Column("1 Jan", "Thursday", [Decimal(1200), Decimal(0), Decimal("0.5")])]
    [bar] = stacked(["eu", "us", "asia"], columns, "tokens").bars
    assert bar.tip == "Thursday\n1,200.5 tokens\neu: 1,200\nasia: 0.5"


def test_a_curve_goes_from_the_left_edge_to_the_right_one() -> None:
    quantities = [Decimal(0), Decimal(5), Decimal(10)]
    curve = priced(quantities, [("", [Decimal(0), Decimal(50), Decimal(100)])], "USD")
    [line] = curve.lines
    assert line.path == "0.00,100.00 50.00,50.00 100.00,0.00"
    assert curve.area == f"0,100 {line.path} 100,100"
    assert [label.label for label in curve.labels] == ["0", "2.5", "5", "7.5", "10"]
    assert line.points[1].tip == "5: $50.00"


def test_lines_of_a_chart_share_its_axes_and_are_told_apart() -> None:
    quantities = [Decimal(0), Decimal(10)]
    low, high = [Decimal(0), Decimal(25)], [Decimal(0), Decimal(100)]
    curve = priced(quantities, [("eu", low), ("any other", high)], "USD")
    assert [line.path for line in curve.lines] == [
        "0.00,100.00 100.00,75.00",
        "0.00,100.00 100.00,0.00",
    ]
    assert curve.area == ""
    assert curve.lines[0].points[1].tip == "eu\n10: $25.00"


@pytest.mark.parametrize("count", [1, 7, 30, 96])
def test_labels_are_few_however_many_bars_there_are(count: int) -> None:
    columns = [Column(str(number), "", [Decimal(number)]) for number in range(count)]
    assert 1 <= len(stacked(["only"], columns).labels) <= 8
