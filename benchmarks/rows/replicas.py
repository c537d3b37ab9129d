"""Two gateways and two ingests on the same cores, beside one of each."""

from msgspec.structs import replace

from benchmarks.bench import Bench
from benchmarks.figures import Row, interleaved
from benchmarks.fresh import fresh_bench
from benchmarks.loads import Load
from benchmarks.messages import GrpcLoad, HttpLoad
from benchmarks.rows.common import load_row

REPLICAS = {"USAGEFLOW_REPLICAS": "ingest=2,gateway=2"}
GENERATORS = 2
KINDS = ("http_single_256", "grpc_batch_500")


def two_replicas(bench: Bench, name: str) -> list[Row]:
    """The total of two; floor: one, in turn with them, under the same two generators."""
    with (
        fresh_bench(bench.plan, bench.report) as one,
        fresh_bench(bench.plan, bench.report, REPLICAS) as two,
    ):
        return [compared(f"{name}_{kind}", kind, one, two) for kind in KINDS]


def compared(name: str, kind: str, one: Bench, two: Bench) -> Row:
    """The row of one kind of load."""
    loads, floor_loads = shared(two, kind), shared(one, kind)
    two.warm_up(loads[0])
    one.warm_up(floor_loads[0])
    measured, floors = interleaved(
        lambda: two.measure(*loads),
        lambda: one.floor(one.measure(*floor_loads).result.events_per_s),
        one.plan.rounds,
    )
    return load_row(name, measured, floors)


def shared(bench: Bench, kind: str) -> list[Load]:
    """A load in GENERATORS parts, one for each gateway; gRPC calls go to all ingests in turn."""
    load, gateways = bench.load(kind), bench.stack.gateways()
    if isinstance(load, GrpcLoad):
        part = replace(
            load,
            address=bench.stack.ingest_address(),
            in_flight=load.in_flight // GENERATORS,
            # In so long each closes a segment, which costs some percent of its time.
            measure_s=bench.plan.sustained_s / 2,
        )
        return [part] * GENERATORS
    assert isinstance(load, HttpLoad)
    targets = [gateways[number % len(gateways)] for number in range(GENERATORS)]
    connections = load.connections // GENERATORS
    return [replace(load, host=host, port=port, connections=connections) for host, port in targets]
