"""Three times as much as is taken: what is still taken, how soon, and in how much memory."""

from msgspec.structs import replace

from benchmarks.bench import FULL_LOAD, Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Row
from benchmarks.loads import Load
from benchmarks.messages import GrpcLoad, HttpLoad
from benchmarks.rows.common import load_row
from benchmarks.sampling import resident_mb, sampled

TIMES = 3
# Fewer than connections_max of a gateway, which closes what is beyond without an answer.
CONNECTIONS = 8_000
# Of 500 events: ten times as many events as may wait in ingest.
CALLS_IN_FLIGHT = 1_000
SAMPLE_S = 0.25
PARTS = ("gateway", "ingest")


def overload(bench: Bench, name: str) -> list[Row]:
    """By a schedule that waits for nobody; floor: the peak, as fast as answers come."""
    http, grpc = bench.load(FULL_LOAD), bench.load("grpc_batch_500")
    assert isinstance(http, HttpLoad)
    assert isinstance(grpc, GrpcLoad)
    return [
        *overload_of(bench, f"{name}_http", http, replace(http, connections=CONNECTIONS)),
        *overload_of(bench, f"{name}_grpc", grpc, replace(grpc, in_flight=CALLS_IN_FLIGHT)),
    ]


def overload_of(bench: Bench, name: str, load: Load, wide: Load) -> list[Row]:
    """Goodput, with the latency of what was taken, and the memory of gateway and ingest."""
    bench.warm_up(load)
    peak = bench.measure(load).result
    heavy = replace(
        wide,
        metric=name.upper(),
        rate_per_s=peak.requests_per_s * TIMES,
        measure_s=bench.plan.overload_s,
        overload=True,
    )
    pids = {part: bench.stack.connection.pids[part] for part in PARTS}
    with sampled(lambda: resident_mb(pids), SAMPLE_S) as samples:
        measured = bench.measure(heavy)
    result = measured.result
    offered = (result.requests + result.unsent) / (heavy.warm_up_s + heavy.measure_s)
    sent = result.requests / (result.requests + result.unsent)
    bench.report(f"{offered:,.0f} requests/s were due, {sent:.0%} of them were sent")
    if not samples.taken:
        raise BenchmarkError("the overload was too short to look at memory")
    return [
        load_row(name, [measured], [peak.events_per_s]),
        *(
            Row(f"{name}_{part}_max_mb", max(sizes[part] for _, sizes in samples.taken), "MB")
            for part in PARTS
        ),
    ]
