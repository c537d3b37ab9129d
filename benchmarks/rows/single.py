"""Rows of what one load reaches, and of what it is compared with."""

import dataclasses
import time

from msgspec.structs import replace

from benchmarks.bench import FULL_LOAD, Bench
from benchmarks.figures import Row, interleaved
from benchmarks.loads import run_load
from benchmarks.memory import peak_rss_mb, tree_pss_mb
from benchmarks.messages import (
    AsgiFloor,
    EchoFloor,
    GrpcEchoFloor,
    GrpcLoad,
    HttpLoad,
    VisibleProbe,
    VisibleResult,
)
from benchmarks.processes import run, serving
from benchmarks.rows.common import copy_floor, load_row, run_copy
from benchmarks.stack import Answer

# The form of bare COPY that gets the most into PostgreSQL.
CEILING_ROWS = 2_000
CEILING_CONNECTIONS = 2
PROBE_CUSTOMERS = 8
# Half of the 9,000 events/s that were wanted of two cores, as wanted latencies are of half of that.
HALF_WANTED_PER_S = 4_500


def idle_memory(bench: Bench, name: str) -> list[Row]:
    """Memory of the stack, PostgreSQL and NATS included, after some seconds without work."""
    time.sleep(bench.plan.idle_s)
    return [Row(name, tree_pss_mb(bench.stack.connection.supervisor_pid), "MB")]


def http_generator(bench: Bench, name: str) -> list[Row]:
    """What the HTTP load generator alone can do."""
    load = bench.load(FULL_LOAD)
    assert isinstance(load, HttpLoad)
    answer = http_answer(bench.answer_to_one())
    with serving("benchmarks.floors.echo", EchoFloor(answer=answer)) as port:
        result = run_load(replace(load, port=port, measure_s=bench.plan.floor_s))
    return [Row(name, result.requests_per_s, "requests/s", None, result.p50_ms, result.p99_ms)]


def grpc_generator(bench: Bench, name: str) -> list[Row]:
    """What the gRPC load generator alone can do."""
    load = bench.load("grpc_batch_500")
    assert isinstance(load, GrpcLoad)
    echo = GrpcEchoFloor(receipts=load.events_per_request)
    with serving("benchmarks.floors.grpc_echo", echo) as port:
        address = f"127.0.0.1:{port}"
        result = run_load(replace(load, address=address, measure_s=bench.plan.floor_s))
    return [Row(name, result.events_per_s, "events/s", None, result.p50_ms, result.p99_ms)]


def http_single(bench: Bench, name: str) -> list[Row]:
    """Single events over HTTP; floor: a no-op ASGI handler under the same load."""
    load = bench.load(name)
    assert isinstance(load, HttpLoad)
    bench.warm_up(load)
    answer = bench.answer_to_one()
    floor = AsgiFloor(headers=answer.headers, body=answer.body)
    with serving("benchmarks.floors.asgi", floor) as port:
        floor_load = replace(
            load,
            port=port,
            warm_up_s=bench.plan.floor_warm_up_s,
            measure_s=bench.plan.floor_s,
        )
        measured, floors = interleaved(
            lambda: bench.measure(load),
            lambda: bench.floor(run_load(floor_load).requests_per_s),
            bench.plan.rounds,
        )
    return [load_row(name, measured, floors)]


def stored(bench: Bench, name: str) -> list[Row]:
    """Events many at a time; floor: a bare COPY of the same rows."""
    if name == "http_ndjson" and not bench.takes_ndjson():
        bench.report("left out: the gateway takes no NDJSON")
        return []
    load = bench.load(name)
    bench.warm_up(load)
    floor = copy_floor(bench, load.metric)
    measured, floors = interleaved(
        lambda: bench.measure(load),
        lambda: bench.floor(run_copy(floor)),
        bench.plan.rounds,
    )
    rows = [load_row(name, measured, floors)]
    if name == "grpc_batch_500":
        rows.append(Row(f"{name}_catch_up", max(each.catch_up_s for each in measured), "s"))
    return rows


def copy_ceiling(bench: Bench, name: str) -> list[Row]:
    """The most rows that a bare COPY of prebuilt bytes gets into PostgreSQL: for comparison."""
    load = bench.load("grpc_batch_500")
    bench.warm_up(load)
    floor = replace(
        copy_floor(bench, load.metric),
        connections=CEILING_CONNECTIONS,
        rows_per_copy=CEILING_ROWS,
        prebuilt=True,
    )
    return [Row(name, run_copy(floor), "events/s")]


def visible_half_load(bench: Bench, name: str) -> list[Row]:
    """From accepted to visible in usage, at half the rate of single events that was measured."""
    return visible(bench, name, bench.full_load_per_s() / 2)


def visible_half_wanted(bench: Bench, name: str) -> list[Row]:
    """The same at half the rate that was wanted."""
    return visible(bench, name, HALF_WANTED_PER_S)


def visible(bench: Bench, name: str, rate_per_s: float) -> list[Row]:
    """From accepted to visible in usage beside so many single events a second."""
    full = bench.load(FULL_LOAD)
    assert isinstance(full, HttpLoad)
    load = replace(
        full,
        metric=f"{name.upper()}_LOAD",
        rate_per_s=rate_per_s,
        # The probes run within the load.
        measure_s=bench.plan.visible_s + bench.plan.warm_up_s,
    )
    probe = VisibleProbe(
        host=load.host,
        port=load.port,
        aggregator=bench.stack.connection.grpc["aggregator"],
        api_key=load.api_key,
        metric=name.upper(),
        customers=PROBE_CUSTOMERS,
        measure_s=bench.plan.visible_s,
    )
    bench.stack.define(probe.metric)
    with bench.start(load) as loading:
        time.sleep(load.warm_up_s)
        seen = run("benchmarks.generators.visible", probe, VisibleResult)
        bench.finish(loading, load)
    bench.stack.settle(probe.metric, seen.accepted)
    return [Row(name, seen.p99_ms, "ms", None, seen.p50_ms, seen.p99_ms)]


def half_load(bench: Bench, name: str) -> list[Row]:
    """Latency of single events at half the rate that was measured, from when each was due."""
    return at_rate(bench, name, bench.full_load_per_s() / 2)


def half_wanted(bench: Bench, name: str) -> list[Row]:
    """The same at half the rate that was wanted."""
    return at_rate(bench, name, HALF_WANTED_PER_S)


def at_rate(bench: Bench, name: str, rate_per_s: float) -> list[Row]:
    """Latency of so many single events a second, from when each was due."""
    load = replace(bench.load(FULL_LOAD), metric=name.upper(), rate_per_s=rate_per_s)
    row = load_row(name, [bench.measure(load) for _ in range(bench.plan.rounds)], [])
    assert row.p99_ms is not None
    return [dataclasses.replace(row, value=row.p99_ms, unit="ms")]


def peak_memory(bench: Bench, _name: str) -> list[Row]:
    """The most memory that the processes on an event's way ever had resident."""
    pids = bench.stack.connection.pids
    return [
        Row(f"{part}_peak_mb", peak_rss_mb(pids[part]), "MB")
        for part in ("gateway", "ingest", "aggregator")
    ]


def http_answer(answer: Answer) -> str:
    """An answer as it is on the wire."""
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    return f"HTTP/1.1 200 OK\r\n{head}\r\n{answer.body}"
