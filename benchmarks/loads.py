"""The loads of the rows, by the row's name."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from benchmarks.errors import BenchmarkError
from benchmarks.messages import (
    OVERLOADED_GRPC,
    OVERLOADED_HTTP,
    GrpcLoad,
    HttpLoad,
    LoadResult,
    Shape,
)
from benchmarks.plan import Plan
from benchmarks.processes import Running
from benchmarks.stack import MeasuredStack

Load = HttpLoad | GrpcLoad
OVERLOADED = (OVERLOADED_HTTP, OVERLOADED_GRPC)
TRACK = "/api/track"
BATCH = "/api/track/batch"
LIMITED_S_MAX = 3_600.0


def http_load(
    stack: MeasuredStack,
    plan: Plan,
    name: str,
    *,
    connections: int,
    shape: Shape = "single",
    events_per_request: int = 1,
) -> HttpLoad:
    """A load of POSTs as fast as answers come."""
    return HttpLoad(
        host=stack.host,
        port=stack.port,
        path=TRACK if shape == "single" else BATCH,
        api_key=stack.connection.api_key,
        metric=name.upper(),
        shape=shape,
        events_per_request=events_per_request,
        connections=connections,
        warm_up_s=plan.warm_up_s,
        measure_s=plan.measure_s,
    )


def grpc_load(stack: MeasuredStack, plan: Plan, name: str, *, stream: bool) -> GrpcLoad:
    """500 events a request, 4 requests in flight."""
    return GrpcLoad(
        address=stack.connection.grpc["ingest"],
        api_key=stack.connection.api_key,
        metric=name.upper(),
        stream=stream,
        events_per_request=500,
        in_flight=4,
        warm_up_s=plan.warm_up_s,
        measure_s=plan.measure_s,
    )


LOADS: dict[str, Callable[[MeasuredStack, Plan, str], Load]] = {
    "http_single_64": partial(http_load, connections=64),
    "http_single_256": partial(http_load, connections=256),
    "http_batch_100": partial(http_load, connections=8, shape="batch", events_per_request=100),
    "http_ndjson": partial(http_load, connections=4, shape="ndjson", events_per_request=1_000),
    "grpc_batch_500": partial(grpc_load, stream=False),
    "grpc_stream_500": partial(grpc_load, stream=True),
}


def load_of(name: str, stack: MeasuredStack, plan: Plan) -> Load:
    """The load of the row `name`."""
    return LOADS[name](stack, plan, name)


def limited(load: Load, requests: int) -> Load:
    """The load that ends after so many requests, for which it has an hour.

    All count: a fast machine would store some within the time for warming up.
    """
    return replace(load, requests_max=requests, warm_up_s=0.0, measure_s=LIMITED_S_MAX)


def start_load(load: Load) -> Running:
    """Start its generator."""
    kind = "http" if isinstance(load, HttpLoad) else "grpc"
    return Running(f"benchmarks.generators.{kind}", load)


def finish_load(running: Running, load: Load) -> LoadResult:
    """Wait for its end; BenchmarkError unless every single request was answered as it has to be:
    taken, as new or as known; in an overload, or refused as such.
    """
    result = running.result(LoadResult)
    others = {answer for answer in result.refused if not load.overload or answer not in OVERLOADED}
    if others:
        raise BenchmarkError(f"requests were refused: {result.refused}")
    unexpected = result.duplicates if load.known_requests is None else result.accepted
    if unexpected:
        kind = "known" if load.known_requests is None else "new"
        raise BenchmarkError(f"{unexpected} events were taken as {kind}")
    return result


def run_load(load: Load) -> LoadResult:
    """start_load() and finish_load()."""
    with start_load(load) as running:
        return finish_load(running, load)


def together(results: Sequence[LoadResult]) -> LoadResult:
    """Loads that ran at once, as one: rates and counts in sum, latencies of the slowest."""
    if len(results) == 1:
        return results[0]
    refused: Counter[str] = Counter()
    for result in results:
        refused.update(result.refused)
    return LoadResult(
        requests_per_s=sum(result.requests_per_s for result in results),
        events_per_s=sum(result.events_per_s for result in results),
        p50_ms=max(result.p50_ms for result in results),
        p99_ms=max(result.p99_ms for result in results),
        requests=sum(result.requests for result in results),
        accepted=sum(result.accepted for result in results),
        duplicates=sum(result.duplicates for result in results),
        refused=dict(refused),
        refused_p99_ms=max(result.refused_p99_ms for result in results),
        unsent=sum(result.unsent for result in results),
        timeline=[],
        generator_cpu=sum(result.generator_cpu for result in results),
    )
