"""Figures counted plainly from events."""

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from usageflow.events.v1.events_pb2 import UsageEvent

from cli.auditing.audit import days
from cli.auditing.recount import Recount, Tally, text_of
from cli.auditing.report import _text

HOUR = datetime(2026, 3, 2, 10, tzinfo=UTC)
MICROS = int(HOUR.timestamp()) * 1_000_000


def event(amount: str, seconds: int = 0, customer_id: str = "", **metadata: Any) -> UsageEvent:
    return UsageEvent(
        event_id=bytes([seconds % 256]) * 16,
        metric="A",
        amount=amount,
        customer_id=customer_id,
        time_unix_micros=MICROS + seconds * 1_000_000,
        metadata_json=json.dumps(metadata) if metadata else "",
    )


FIGURES = {
    "SUM": Fraction("3.3"),
    "COUNT": Fraction(3),
    "MAX": Fraction(2),
    "MIN": Fraction("0.3"),
    "AVG": Fraction("1.1"),
    "LATEST": Fraction("0.3"),
    "UNIQUE_COUNT": Fraction(2),
}


@pytest.mark.parametrize("aggregation", FIGURES)
def test_each_aggregation_has_its_figure(aggregation: str) -> None:
    recount = Recount(unique_by="user")
    recount.add([event("1", user="a"), event("0.3", 9, user="b"), event("2", 8, user="a")])
    [tally] = recount.by_customer.values()
    assert tally.figure(aggregation) == FIGURES[aggregation]
    assert recount.events == 3


def test_averages_are_rounded_half_up_to_twelve_digits() -> None:
    tally = Tally()
    for amount in ("1", "1", "0"):
        tally.add(event(amount), "")
    assert tally.figure("AVG") == Fraction("0.666666666667")


def test_dimensions_are_counted_apart_and_full_ones_as_they_are_told() -> None:
    recount = Recount(dimensions=("model", "region"))
    recount.add(
        [
            event("1", model="a", region="eu"),
            event("2", model="b", region="eu"),
            event("4", model="c"),
            event("8", model="b"),
        ]
    )

    def sums(*told: tuple[str, str]) -> dict[tuple[str, ...], Fraction]:
        return {group: tally.total for group, tally in recount.groups(told).items()}

    apart = {("a", "eu"): 1, ("b", "eu"): 2, ("c", ""): 4, ("b", ""): 8}
    assert sums() == apart
    assert sums(("a", "eu")) == apart
    full = sums(("a", "eu"), ("__other__", "eu"), ("__other__", ""))
    assert full == {("a", "eu"): 1, ("__other__", "eu"): 2, ("__other__", ""): 12}


def test_percentiles_are_the_nearest_rank_of_amounts_with_three_digits() -> None:
    recount = Recount()
    amounts = ["0", "0.0012345", "1.005", "12.35", "999.5", "123456"]
    recount.add([event(amount, number) for number, amount in enumerate(amounts)])
    rounded = [Fraction(text) for text in ("0", "0.00123", "1.01", "12.4", "1000", "123000")]
    assert sorted(recount.amounts) == rounded
    assert [recount.percentile(percent) for percent in (1, 50, 51, 99)] == [
        rounded[0],
        rounded[2],
        rounded[3],
        rounded[5],
    ]


def test_hours_and_customers_are_counted_apart() -> None:
    recount = Recount()
    recount.add([event("1"), event("2", 3_599), event("4", 3_600), event("8", customer_id="c")])
    sums = {key: tally.total for key, tally in recount.by_hour.items()}
    assert sums == {(HOUR, ""): 3, (HOUR + timedelta(hours=1), ""): 4, (HOUR, "c"): 8}


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ("", ""),
        ("{}", ""),
        ('{"v": null}', ""),
        ('{"v": "x"}', "x"),
        ('{"v": 1.50}', "1.50"),
        ('{"v": 1e3}', "1e3"),
        ('{"v": true}', "true"),
        ('{"v": false}', "false"),
    ],
)
def test_values_are_read_as_they_were_sent(metadata: str, text: str) -> None:
    assert text_of(metadata, "v") == text


def test_a_range_is_cut_at_midnights() -> None:
    start = HOUR.replace(minute=15)
    midnight = HOUR.replace(hour=0) + timedelta(days=1)
    end = midnight + timedelta(hours=30)
    assert list(days(start, end)) == [
        (start, midnight),
        (midnight, midnight + timedelta(days=1)),
        (midnight + timedelta(days=1), end),
    ]
    assert list(days(start, start)) == []


def test_figures_are_shown_exactly() -> None:
    assert _text(Fraction("7.500")) == "7.5"
    assert _text(Fraction(7)) == "7"
    assert _text(Fraction("0.000000000001")) == "0.000000000001"
    assert _text(None) == "nothing"
