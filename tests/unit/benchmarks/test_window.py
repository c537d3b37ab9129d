import time

import pytest

from benchmarks.generators.window import Window


def test_the_warm_up_is_accepted_but_not_measured() -> None:
    window = Window(warm_up_s=60, measure_s=60)
    window.answered(time.perf_counter(), 500)
    with pytest.raises(ValueError, match="no values"):
        window.result()


def test_answers_in_the_window_are_rates_and_latencies() -> None:
    window = Window(warm_up_s=0, measure_s=50)
    for _ in range(10):
        window.answered(time.perf_counter() - 0.2, 500)
    window.refused("503")
    window.refused("503")
    result = window.result()
    assert (result.requests_per_s, result.events_per_s) == (0.2, 100)
    assert result.accepted == 5_000
    assert result.refused == {"503": 2}
    assert 200 <= result.p50_ms <= result.p99_ms
