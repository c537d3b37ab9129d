import pytest

from benchmarks.figures import (
    Row,
    interleaved,
    lags_s,
    median_of,
    merged,
    percentile,
    slope,
)


def test_a_percentile_is_a_value_that_occurred() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert percentile(hundred, 0.50) == 50
    assert percentile(hundred, 0.99) == 99
    assert percentile([1.0, 2.0, 3.0], 0.50) == 2
    assert percentile([1.0, 2.0, 3.0], 0.99) == 3
    assert percentile([7.0], 0.50) == 7


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_floors_are_taken_around_every_measurement() -> None:
    taken = []

    def measure() -> str:
        taken.append("measure")
        return "outcome"

    def floor() -> float:
        taken.append("floor")
        return 1.0

    assert interleaved(measure, floor, rounds=2) == (["outcome", "outcome"], [1.0, 1.0, 1.0])
    assert taken == ["floor", "measure", "floor", "measure", "floor"]


def test_one_bad_round_does_not_move_the_median() -> None:
    assert median_of([10, 11, 500], float) == 11


def test_a_ratio_needs_a_floor() -> None:
    assert Row("http_single_64", 5_000, "events/s", floor=20_000).ratio == 0.25
    assert Row("idle_memory_mb", 500, "MB").ratio is None


def test_lag_is_the_age_of_the_oldest_event_that_is_not_counted() -> None:
    timeline = [(10.0, 100), (11.0, 200), (12.0, 300)]
    looks = [(10.5, 100), (12.5, 100), (12.5, 150), (13.0, 299), (14.0, 300), (9.0, 0)]
    assert lags_s(timeline, looks) == pytest.approx([0, 1.5, 1.5, 1.0, 0, 0])


def test_growth_is_that_after_the_beginning() -> None:
    points = [(0.0, 50.0), (1.0, 90.0), (2.0, 100.0), (3.0, 102.0), (4.0, 104.0)]
    assert slope(points, after=2.0) == pytest.approx(2.0)


def test_processor_time_of_several_rounds_is_the_median_of_each_part() -> None:
    rounds = [
        {"ingest": 10.0, "nats": 1.0},
        {"ingest": 12.0, "nats": 9.0},
        {"ingest": 11.0, "nats": 2.0},
    ]
    assert merged(rounds) == {"ingest": 11.0, "nats": 2.0}
