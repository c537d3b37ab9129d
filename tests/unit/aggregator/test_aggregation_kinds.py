"""Figures of tallies, with the arithmetic written out."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.aggregations import KINDS, Tally, figures_of
from services.aggregator.domain import UNIQUE_COUNT

TALLY = Tally(
    event_count=3,
    amount_sum=Decimal("10.5"),
    amount_min=Decimal("1.5"),
    amount_max=Decimal(6),
    latest_value=Decimal(3),
    unique_count=2,
)


@pytest.mark.parametrize(
    ("aggregation", "figure"),
    [
        ("SUM", "10.5"),
        ("COUNT", "3"),
        ("MAX", "6"),
        ("MIN", "1.5"),
        ("AVG", "3.5"),
        ("LATEST", "3"),
        ("UNIQUE_COUNT", "2"),
    ],
)
def test_each_kind_gives_its_figure(aggregation: str, figure: str) -> None:
    assert KINDS[aggregation].figure(TALLY) == Decimal(figure)


@pytest.mark.parametrize("aggregation", sorted(KINDS.keys() - {UNIQUE_COUNT}))
def test_columns_of_parts_come_to_the_figure_of_each_row(aggregation: str) -> None:
    kind, tallies = KINDS[aggregation], [TALLY, replace(TALLY, event_count=7), TALLY]
    columns = [[getattr(tally, part) for tally in tallies] for part in kind.PARTS]
    assert figures_of(aggregation, columns) == [kind.figure(tally) for tally in tallies]
    assert figures_of(aggregation, [()] * len(kind.PARTS)) == []


@pytest.mark.parametrize("aggregation", KINDS)
def test_without_events_every_figure_is_zero(aggregation: str) -> None:
    assert KINDS[aggregation].figure(Tally()) == 0


@pytest.mark.parametrize(
    ("total", "count", "average"),
    [
        ("10", 3, "3.333333333333"),  # 3.3333333333333..
        ("20", 3, "6.666666666667"),  # 6.6666666666666..
        ("0.000000000001", 2, "0.000000000001"),  # 0.0000000000005: a half goes up
        ("0.000000000001", 3, "0"),
        ("99999999999999999999999999.999999999999", 1, "99999999999999999999999999.999999999999"),
        ("99999999999999999999999999.999999999999", 2, "50000000000000000000000000"),
    ],
)
def test_an_average_is_rounded_once_half_up(total: str, count: int, average: str) -> None:
    tally = Tally(event_count=count, amount_sum=Decimal(total))
    assert KINDS["AVG"].figure(tally) == Decimal(average)


@given(st.integers(0, 10**38), st.integers(1, 10**9))
def test_an_average_is_never_off_by_more_than_half_a_last_digit(scaled: int, count: int) -> None:
    total = Decimal(scaled).scaleb(-12)
    average = KINDS["AVG"].figure(Tally(event_count=count, amount_sum=total))
    difference = Fraction(average) - Fraction(total) / count
    assert -Fraction(1, 2 * 10**12) < difference <= Fraction(1, 2 * 10**12)
