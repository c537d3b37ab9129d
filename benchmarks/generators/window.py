"""What happens while a load runs: nothing counts in the warm-up, everything in the window."""

import time
from array import array

from benchmarks.figures import percentile
from benchmarks.messages import LoadResult


class Window:
    """Answers and latencies of a run, seconds of time.perf_counter()."""

    def __init__(self, warm_up_s: float, measure_s: float) -> None:
        self._begin_s = time.perf_counter() + warm_up_s
        self.end_s = self._begin_s + measure_s
        self._latencies_s = array("d")
        self._events = 0
        self._accepted = 0
        self._refused: dict[str, int] = {}
        self._cpu_begin_s = 0.0
        self._cpu_end_s = 0.0

    def answered(self, begun_s: float, accepted: int) -> None:
        """A request that began at `begun_s` was answered now; `accepted` events are new."""
        now_s = time.perf_counter()
        self._accepted += accepted
        if now_s >= self._begin_s and now_s < self.end_s:
            self._latencies_s.append(now_s - begun_s)
            self._events += accepted

    def refused(self, answer: str) -> None:
        """A request was answered otherwise."""
        self._refused[answer] = self._refused.get(answer, 0) + 1

    def note_cpu_at_begin(self) -> None:
        """Call when the window begins."""
        self._cpu_begin_s = time.process_time()

    def note_cpu_at_end(self) -> None:
        """Call when the window ends."""
        self._cpu_end_s = time.process_time()

    def result(self) -> LoadResult:
        """The figures; ValueError when nothing was answered in the window."""
        window_s = self.end_s - self._begin_s
        ordered = sorted(self._latencies_s)
        return LoadResult(
            requests_per_s=len(ordered) / window_s,
            events_per_s=self._events / window_s,
            p50_ms=percentile(ordered, 0.50) * 1_000,
            p99_ms=percentile(ordered, 0.99) * 1_000,
            accepted=self._accepted,
            refused=self._refused,
            generator_cpu=(self._cpu_end_s - self._cpu_begin_s) / window_s,
        )
