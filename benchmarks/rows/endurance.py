"""Loads that last: whether aggregator keeps up, and whether memory grows."""

from msgspec.structs import replace

from benchmarks.bench import FULL_LOAD, Bench
from benchmarks.figures import Row, lags_s, percentile, slope
from benchmarks.loads import Load
from benchmarks.rows.common import copy_floor, load_row, run_copy
from benchmarks.sampling import resident_mb, sampled

LAG_SAMPLE_S = 0.1
MEMORY_SAMPLE_S = 1.0
# Queues, caches and allocators fill up at first.
GROWN_SHARE = 0.3
SECONDS_PER_MINUTE = 60.0
PARTS = ("gateway", "ingest")


def sustained(bench: Bench, name: str) -> list[Row]:
    """A minute of batches; floor: bare COPY. And how far behind aggregator ever was.

    Lag is the age of the oldest acknowledged event that is not in the usage.
    """
    load = bench.load("grpc_batch_500")
    bench.warm_up(load)
    # A metric of its own: what is in the usage is then what this load has sent.
    load = replace(load, metric=name.upper(), measure_s=bench.plan.sustained_s)
    bench.stack.define(load.metric)
    with sampled(lambda: bench.stack.usage(load.metric), LAG_SAMPLE_S) as seen:
        measured = bench.measure(load)
    floor = copy_floor(bench, load.metric)
    floors = [bench.floor(run_copy(floor)) for _ in range(bench.plan.rounds)]
    lags_ms = [lag * 1_000 for lag in sorted(lags_s(measured.result.timeline, seen.taken))]
    return [
        load_row(name, [measured], floors),
        Row(
            f"{name}_lag_max",
            lags_ms[-1] / 1_000,
            "s",
            None,
            percentile(lags_ms, 0.50),
            percentile(lags_ms, 0.99),
        ),
    ]


def soak(bench: Bench, name: str) -> list[Row]:
    """Minutes of single events at full rate: the memory of gateway and ingest, and its growth."""
    return soaked(bench, name, bench.load(FULL_LOAD))


def soak_grpc(bench: Bench, name: str) -> list[Row]:
    """The same of batches: some 60 million events are stored."""
    return soaked(bench, name, bench.load("grpc_batch_500"))


def soaked(bench: Bench, name: str, load: Load) -> list[Row]:
    """What the load reached; the most memory, and its growth.

    Growth is the slope of the least squares after the first GROWN_SHARE of the time.
    """
    load = replace(load, metric=name.upper(), measure_s=bench.plan.soak_s)
    pids = {part: bench.stack.connection.pids[part] for part in PARTS}
    with sampled(lambda: resident_mb(pids), MEMORY_SAMPLE_S) as seen:
        measured = bench.measure(load)
    begun_s = seen.taken[0][0]
    rows = [load_row(name, [measured], [])]
    for part in PARTS:
        points = [((at_s - begun_s) / SECONDS_PER_MINUTE, mb[part]) for at_s, mb in seen.taken]
        growth = slope(points, after=points[-1][0] * GROWN_SHARE)
        rows.append(Row(f"{name}_{part}_max_mb", max(mb for _, mb in points), "MB"))
        rows.append(Row(f"{name}_{part}_growth", growth, "MB/min"))
    return rows
