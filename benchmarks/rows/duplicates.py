"""Traffic of which every event was stored before, beside new events of the same run."""

import secrets
import time

from msgspec.structs import replace

from benchmarks.bench import Bench, Measured
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Row, median_of
from benchmarks.fresh import fresh_bench
from benchmarks.loads import Load, limited
from benchmarks.rows.common import load_row

KINDS = ("http_single_256", "grpc_batch_500")
CLOSE_S_MAX = 120.0
CLOSE_POLL_S = 0.2
RUN_BYTES = 8


def duplicates_all(bench: Bench, name: str) -> list[Row]:
    """Duplicates of what was stored just now, and of what lies in closed segments.

    The floor of each is new events of the same load, in turn with them.
    """
    rows = [duplicates(bench, f"{name}_{kind}", bench.load(kind)) for kind in KINDS]
    environ = {"USAGEFLOW_SEGMENT_EVENTS_MAX": str(bench.plan.segment_events)}
    with fresh_bench(bench.plan, bench.report, environ) as small:
        if small.stack.closed_segments() is None:
            bench.report("left out: duplicates in closed segments, which ingest does not have")
            return rows
        for kind in KINDS:
            load = small.load(kind)
            known = closed_requests(small, load)
            rows.append(duplicates(small, f"{name}_closed_{kind}", load, known))
    return rows


def duplicates(bench: Bench, name: str, load: Load, known: Load | None = None) -> Row:
    """New events, then the same again or those of `known`, and so on."""
    bench.warm_up(load)
    new, again = [], []
    for _ in range(bench.plan.rounds):
        fresh = replace(load, run=secrets.token_hex(RUN_BYTES))
        new.append(bench.measure(fresh))
        again.append(bench.measure(known or repeated(fresh, new[-1])))
    return load_row(name, again, [median_of(new, lambda each: each.result.events_per_s)])


def repeated(load: Load, measured: Measured) -> Load:
    """The requests of a load over again: all of them were accepted."""
    return replace(load, known_requests=measured.result.requests)


def closed_requests(bench: Bench, load: Load) -> Load:
    """A load of requests whose events are all in closed segments with a key filter."""
    segment_events = bench.plan.segment_events
    fresh = replace(load, run=secrets.token_hex(RUN_BYTES))
    stored = bench.measure(limited(fresh, segment_events // load.events_per_request))
    before = bench.stack.closed_segments() or 0
    filler = bench.load("grpc_batch_500")
    filler = limited(filler, segment_events // filler.events_per_request)
    deadline_s = time.monotonic() + CLOSE_S_MAX
    # Two more closed ones: the one that was open when the first was counted, and the next.
    while (bench.stack.closed_segments() or 0) < before + 2:
        if time.monotonic() > deadline_s:
            raise BenchmarkError("segments are not closed")
        bench.measure(filler)
        time.sleep(CLOSE_POLL_S)
    return repeated(fresh, stored)
