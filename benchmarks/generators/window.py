"""What happens while a load runs: nothing counts in the warm-up, everything in the window."""

import time
from array import array

from benchmarks.errors import BenchmarkError
from benchmarks.figures import percentile
from benchmarks.messages import LoadResult

TIMELINE_STEP_S = 0.05


class Window:
    """Answers and latencies of a run, seconds of time.perf_counter()."""

    def __init__(self, warm_up_s: float, measure_s: float) -> None:
        self._begin_s = time.perf_counter() + warm_up_s
        self.end_s = self._begin_s + measure_s
        self._latencies_s = array("d")
        self._refused_latencies_s = array("d")
        self._events = 0
        self._accepted = 0
        self._duplicates = 0
        self._refused: dict[str, int] = {}
        self._timeline: list[tuple[float, int]] = []
        self._next_step_s = 0.0
        self._cpu_begin_s = 0.0
        self._cpu_end_s = 0.0
        self.unsent = 0

    def answered(self, begun_s: float, accepted: int, duplicates: int = 0) -> None:
        """A request that began at `begun_s` was answered now: so many events are new or known."""
        now_s = time.perf_counter()
        self._accepted += accepted
        self._duplicates += duplicates
        if now_s >= self._begin_s and now_s < self.end_s:
            self._latencies_s.append(now_s - begun_s)
            self._events += accepted + duplicates
        if now_s >= self._next_step_s:
            self._next_step_s = now_s + TIMELINE_STEP_S
            self._timeline.append((now_s, self._accepted))

    def refused(self, begun_s: float, answer: str) -> None:
        """A request was answered otherwise."""
        self._refused_latencies_s.append(time.perf_counter() - begun_s)
        self._refused[answer] = self._refused.get(answer, 0) + 1

    def note_cpu_at_begin(self) -> None:
        """Call when the window begins."""
        self._cpu_begin_s = time.process_time()

    def note_cpu_at_end(self) -> None:
        """Call when the window ends."""
        self._cpu_end_s = time.process_time()

    def end_now(self) -> None:
        """Call when everything is sent before the window's time is over."""
        self.end_s = min(self.end_s, time.perf_counter())

    def result(self, requests: int) -> LoadResult:
        """The figures of so many requests; BenchmarkError when none was answered in the window."""
        window_s = self.end_s - self._begin_s
        ordered = sorted(self._latencies_s)
        refused = sorted(self._refused_latencies_s)
        if not ordered:
            raise BenchmarkError(f"nothing was taken while it counted; refused: {self._refused}")
        return LoadResult(
            requests_per_s=len(ordered) / window_s,
            events_per_s=self._events / window_s,
            p50_ms=percentile(ordered, 0.50) * 1_000,
            p99_ms=percentile(ordered, 0.99) * 1_000,
            requests=requests,
            accepted=self._accepted,
            duplicates=self._duplicates,
            refused=self._refused,
            refused_p99_ms=percentile(refused, 0.99) * 1_000 if refused else 0.0,
            unsent=self.unsent,
            timeline=self._timeline,
            generator_cpu=(self._cpu_end_s - self._cpu_begin_s) / window_s,
        )
