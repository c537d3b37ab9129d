import time

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.generators.window import Window


def test_the_warm_up_is_accepted_but_not_measured() -> None:
    window = Window(warm_up_s=60, measure_s=60)
    window.answered(time.perf_counter(), 500)
    with pytest.raises(BenchmarkError, match="nothing was taken"):
        window.result(1)


def test_answers_in_the_window_are_rates_and_latencies() -> None:
    window = Window(warm_up_s=0, measure_s=50)
    for _ in range(10):
        window.answered(time.perf_counter() - 0.2, 500)
    window.refused(time.perf_counter() - 0.1, "503")
    window.refused(time.perf_counter(), "503")
    result = window.result(12)
    assert (result.requests_per_s, result.events_per_s) == (0.2, 100)
    assert (result.requests, result.accepted, result.duplicates) == (12, 5_000, 0)
    assert result.refused == {"503": 2}
    assert 200 <= result.p50_ms <= result.p99_ms
    assert 100 <= result.refused_p99_ms < 200


def test_known_events_count_for_the_rate_but_are_not_accepted() -> None:
    window = Window(warm_up_s=0, measure_s=50)
    window.answered(time.perf_counter(), 0, 500)
    result = window.result(1)
    assert (result.events_per_s, result.accepted, result.duplicates) == (10, 0, 500)


def test_the_timeline_tells_how_many_were_accepted_by_when() -> None:
    window = Window(warm_up_s=0, measure_s=50)
    begun_s = time.perf_counter()
    window.answered(begun_s, 3)
    time.sleep(0.06)
    window.answered(begun_s, 4)
    (first_s, first), (second_s, second) = window.result(2).timeline
    assert (first, second) == (3, 7)
    assert begun_s <= first_s < second_s <= time.perf_counter()


def test_what_ends_early_is_measured_until_then() -> None:
    window = Window(warm_up_s=0, measure_s=3_600)
    window.answered(time.perf_counter(), 1)
    window.end_now()
    assert window.result(1).events_per_s > 1
