import os
import time

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.sampling import resident_mb, sampled

WAIT_S = 10.0


def test_a_figure_is_taken_again_and_again_with_its_instants() -> None:
    begun_s = time.perf_counter()
    with sampled(lambda: resident_mb({"own": os.getpid()}), 0.01) as samples:
        while len(samples.taken) < 3 and time.perf_counter() < begun_s + WAIT_S:
            time.sleep(0.01)
    instants = [at_s for at_s, _ in samples.taken]
    assert len(instants) >= 3
    assert instants == sorted(instants)
    assert all(sizes["own"] > 1 for _, sizes in samples.taken)


def test_a_look_that_fails_fails_the_measurement() -> None:
    def look() -> int:
        raise ValueError("gone")

    with pytest.raises(BenchmarkError, match="gone"):
        with sampled(look, 0.001):
            time.sleep(0.1)
