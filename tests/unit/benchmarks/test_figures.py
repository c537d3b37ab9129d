import pytest

from benchmarks.figures import Row, interleaved, median_of, percentile


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
