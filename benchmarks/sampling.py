"""Figures that are taken over and over while a load runs."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import psutil

from benchmarks.errors import BenchmarkError

Figure = TypeVar("Figure")

BYTES_PER_MB = 1024 * 1024


class Samples(Generic[Figure]):
    """(instant, figure), in time.perf_counter() at the beginning of the look."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, Figure]] = []
        self.failure: Exception | None = None


@contextmanager
def sampled(look: Callable[[], Figure], interval_s: float) -> Iterator[Samples[Figure]]:
    """Look every `interval_s` seconds in a thread meanwhile; BenchmarkError when a look fails."""
    samples: Samples[Figure] = Samples()
    ended = threading.Event()

    def take() -> None:
        while not ended.wait(interval_s):
            now_s = time.perf_counter()
            try:
                samples.taken.append((now_s, look()))
            except Exception as error:
                samples.failure = error
                return

    thread = threading.Thread(target=take, name="sampler", daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()
    if samples.failure is not None:
        raise BenchmarkError(f"a sample could not be taken: {samples.failure!r}")


def resident_mb(pids: Mapping[str, int]) -> dict[str, float]:
    """MB that each process has resident now."""
    return {
        part: psutil.Process(pid).memory_info().rss / BYTES_PER_MB for part, pid in pids.items()
    }
