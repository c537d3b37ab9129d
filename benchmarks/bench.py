"""What all rows share: the stack, the plan, and how one measurement is taken."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from msgspec.structs import replace

from benchmarks.errors import BenchmarkError
from benchmarks.loads import Load, finish_load, load_of, start_load, together
from benchmarks.messages import LoadResult
from benchmarks.plan import Plan
from benchmarks.processes import Running
from benchmarks.processor import Meter
from benchmarks.stack import Answer, MeasuredStack

FULL_LOAD = "http_single_256"
HTTP_OK = 200
HTTP_NO_ROUTE = (404, 405, 415)
# What the server itself adds to an answer, if anything.
SERVER_HEADERS = ("connection", "date", "server")


@dataclass(frozen=True)
class Measured:
    """A load's figures, and how long after its end all of it was in the usage."""

    result: LoadResult
    catch_up_s: float
    # Processor time an event by part, microseconds.
    micros: Mapping[str, float] = field(default_factory=dict)


class Bench:
    """The stack that is measured and the plan by which; `report` gets lines for people."""

    def __init__(self, stack: MeasuredStack, plan: Plan, report: Callable[[str], None]) -> None:
        self.stack = stack
        self.plan = plan
        self.report = report
        self._full_load_per_s: float | None = None

    def load(self, name: str) -> Load:
        """The load of the row `name`."""
        return load_of(name, self.stack, self.plan)

    def start(self, load: Load) -> Running:
        """Start a load's generator, its metric being defined."""
        self.stack.define(load.metric)
        return start_load(load)

    def warm_up(self, load: Load) -> None:
        """Run a load without keeping its figures."""
        with self.start(replace(load, measure_s=self.plan.warm_up_s)) as running:
            self._finish([(running, load)])

    def measure(self, *loads: Load) -> Measured:
        """Run loads of one metric at once, then wait until all of them are in the usage.

        BenchmarkError unless every request was answered as it has to be and the usage is exactly
        what was accepted.
        """
        meter = Meter(self.stack.connection.pids)
        with ExitStack() as stack:
            running = [(stack.enter_context(self.start(load)), load) for load in loads]
            measured = self._finish(running)
        self._tell(measured)
        result = measured.result
        used = meter.used(result.accepted + result.duplicates)
        self.report(str(used))
        if list(loads) == [self.load(FULL_LOAD)]:
            self._full_load_per_s = result.requests_per_s
        return Measured(result, measured.catch_up_s, used.micros)

    def finish(self, running: Running, load: Load) -> Measured:
        """The rest of measure() for a load that was started."""
        measured = self._finish([(running, load)])
        self._tell(measured)
        return measured

    def _tell(self, measured: Measured) -> None:
        result = measured.result
        self.report(
            f"{result.events_per_s:,.0f} events/s, p50 {result.p50_ms:.1f} ms,"
            f" p99 {result.p99_ms:.1f} ms; all counted {measured.catch_up_s:.2f} s later;"
            f" generator {result.generator_cpu:.2f} cores"
        )
        if refused := sum(result.refused.values()):
            self.report(
                f"{refused:,} requests were refused, p99 after {result.refused_p99_ms:.1f} ms;"
                f" {result.unsent:,} were due while nothing was free to send them"
            )

    def _finish(self, running: Sequence[tuple[Running, Load]]) -> Measured:
        result = together([finish_load(each, load) for each, load in running])
        load = running[0][1]
        # Who was told that an event could not be stored in time may find it stored all the same.
        uncertain = sum(result.refused.values()) * load.events_per_request
        return Measured(result, self.stack.settle(load.metric, result.accepted, uncertain))

    def floor(self, per_s: float) -> float:
        """Report a floor, and return it."""
        self.report(f"floor {per_s:,.0f}/s")
        return per_s

    def full_load_per_s(self) -> float:
        """The rate of single events that the stack was last seen to take."""
        if self._full_load_per_s is None:
            self.measure(self.load(FULL_LOAD))
        assert self._full_load_per_s is not None
        return self._full_load_per_s

    def answer_to_one(self) -> Answer:
        """What the gateway answers to a single event, without what is about the connection."""
        body = '{"metric": "BENCHMARK_SAMPLE", "amount": 1, "customerId": "user_0000"}'
        answer = self.stack.post("/api/track", "application/json", body)
        if answer.status != HTTP_OK:
            raise BenchmarkError(f"the gateway answered {answer.status} {answer.body}")
        headers = [each for each in answer.headers if each[0].lower() not in SERVER_HEADERS]
        return Answer(answer.status, headers, answer.body)

    def takes_ndjson(self) -> bool:
        """Whether the gateway has the NDJSON route."""
        line = '{"metric": "BENCHMARK_SAMPLE", "amount": 1}\n'
        answer = self.stack.post("/api/track/batch", "application/x-ndjson", line)
        return answer.status not in HTTP_NO_ROUTE
