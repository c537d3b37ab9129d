"""What questions about much usage cost, and how many checks of quotas are answered."""

import asyncio
import dataclasses
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec.structs import replace
from usageflow.aggregator.v1 import aggregator_pb2, quotas_pb2

from benchmarks.aggregated import WITHOUT_REPAIRS, Aggregated, aggregate
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Row, interleaved, median_of
from benchmarks.fresh import fresh_bench
from benchmarks.messages import CallLoad, GrpcEchoFloor, LoadResult
from benchmarks.processes import Running, run, serving

QUERY_USAGE = "/usageflow.aggregator.v1.AggregatorService/QueryUsage"
CHECK_QUOTA = "/usageflow.aggregator.v1.QuotaService/CheckQuota"
ECHO = "/usageflow.ingest.v1.IngestService/RecordEvents"
TOP = 100
KOLKATA = "Asia/Kolkata"
KOLKATA_BEHIND = timedelta(hours=5, minutes=30)
ASKED = 1_000
CHECKED_CUSTOMERS = 1_000
CHECKS_IN_FLIGHT = 6
# For so long all customers are asked about at once before, which reads them together.
FIRST_ASKED_S = 5.0

# Old enough that every fold knows of it.
_QUOTA = """
INSERT INTO quotas (quota_id, metric_id, customer_id, period, limit_amount, enforcement, time_zone,
    create_time, update_time, thresholds)
SELECT 'quota_' || md5(key), metric_id, '', 'MONTH', 1000000000, 'HARD', '',
    now() - interval '1 hour', now(), '{}'
FROM metrics WHERE key = $1
"""


def usage(bench: Bench, name: str) -> list[Row]:
    """Questions about 30 days, one after the other."""
    with fresh_bench(bench.plan, bench.report, WITHOUT_REPAIRS) as fresh:
        stored = aggregated(fresh, "AGGREGATED", fresh.plan.aggregated_customers)
        asked = {
            "hourly": hourly(stored),
            "top_100": [top(stored, timedelta(0), "")],
            "top_100_kolkata": [top(stored, KOLKATA_BEHIND, KOLKATA)],
        }
        rows = []
        for what, requests in asked.items():
            load = call_load(fresh, QUERY_USAGE, requests, 1)
            result = measured(fresh, load)
            each = Row(f"{name}_{what}", result.p99_ms, "ms", None, result.p50_ms, result.p99_ms)
            rows.append(each)
        unchanged(fresh, stored)
    # A quick run has fewer, and must not pass for the whole.
    if stored.events < 50_000_000:
        fewer = f"{stored.events // 1_000}k"
        rows = [dataclasses.replace(row, name=row.name.replace("50m", fewer)) for row in rows]
    return rows


def check_quota(bench: Bench, name: str) -> list[Row]:
    """Checks of customers who use nothing meanwhile, and of customers whose usage is counted."""
    with fresh_bench(bench.plan, bench.report, WITHOUT_REPAIRS) as fresh:
        stored = aggregated(fresh, "CHECKED", CHECKED_CUSTOMERS)
        asyncio.run(execute(fresh, _QUOTA, stored.metric))
        requests = [
            quotas_pb2.CheckQuotaRequest(
                metric=stored.metric, customer_id=customer
            ).SerializeToString()
            for customer in shuffled(customers(stored))
        ]
        load = call_load(fresh, CHECK_QUOTA, requests, CHECKS_IN_FLIGHT)
        # A customer's first check reads their usage: for one after the other that outlasts the
        # warm-up.
        measured(
            fresh,
            replace(load, in_flight=len(requests), warm_up_s=0.0, measure_s=FIRST_ASKED_S),
        )
        with serving("benchmarks.floors.grpc_echo", GrpcEchoFloor(receipts=1)) as port:
            floor = replace(
                load,
                address=f"127.0.0.1:{port}",
                method=ECHO,
                warm_up_s=bench.plan.floor_warm_up_s,
                measure_s=bench.plan.floor_s,
            )
            results, floors = interleaved(
                lambda: measured(fresh, load),
                lambda: fresh.floor(called(floor).requests_per_s),
                bench.plan.rounds,
            )
        unchanged(fresh, stored)
        counting = fresh.load("grpc_batch_500")
        busy = replace(
            counting,
            metric=stored.metric,
            events_per_request=200,
            rate_per_s=10.0,
            measure_s=load.warm_up_s + load.measure_s,
        )
        with Running("benchmarks.generators.grpc", busy) as running:
            result = measured(fresh, load)
            sent = running.result(LoadResult)
        fresh.report(f"{sent.accepted:,} events were counted meanwhile")
    return [
        Row(
            name,
            median_of(results, lambda each: each.requests_per_s),
            "checks/s",
            sorted(floors)[len(floors) // 2],
            median_of(results, lambda each: each.p50_ms),
            median_of(results, lambda each: each.p99_ms),
        ),
        Row(
            f"{name}_counting",
            result.requests_per_s,
            "checks/s",
            None,
            result.p50_ms,
            result.p99_ms,
        ),
    ]


def aggregated(bench: Bench, metric: str, count: int) -> Aggregated:
    """A defined metric with usage of so many customers; aggregator tells the same total."""
    bench.stack.define(metric)
    url = bench.stack.connection.databases["aggregator"]
    stored = aggregate(url, metric, count, bench.report)
    unchanged(bench, stored)
    return stored


def unchanged(bench: Bench, stored: Aggregated) -> None:
    """BenchmarkError unless the usage is what was written."""
    told = bench.stack.usage_of(total(stored))
    if told != stored.events:
        raise BenchmarkError(f"{stored.events} events were written, but {told} used")


def total(stored: Aggregated) -> aggregator_pb2.QueryUsageRequest:
    """All of it."""
    return question(stored, stored.start, stored.end, aggregator_pb2.WINDOW_TOTAL)


def hourly(stored: Aggregated) -> list[bytes]:
    """30 days by hour of customers who have usage in each quarter of an hour."""
    busy = customers(stored)[::10]
    made = []
    for customer in shuffled(busy)[:ASKED]:
        request = question(stored, stored.start, stored.end, aggregator_pb2.WINDOW_HOUR)
        request.customer_id = customer
        made.append(request.SerializeToString())
    return made


def top(stored: Aggregated, behind: timedelta, time_zone: str) -> bytes:
    """The largest customers of 30 days that begin so long before those of UTC."""
    window = aggregator_pb2.WINDOW_TOTAL
    request = question(stored, stored.start - behind, stored.end - behind, window)
    request.group_by.append("customerId")
    request.top = TOP
    request.time_zone = time_zone
    return request.SerializeToString()


def question(
    stored: Aggregated, start: datetime, end: datetime, window: aggregator_pb2.Window.ValueType
) -> aggregator_pb2.QueryUsageRequest:
    """A question about [start, end)."""
    request = aggregator_pb2.QueryUsageRequest(
        metric=stored.metric, to=timestamp(end), window=window
    )
    # "from" is a word of Python.
    getattr(request, "from").CopyFrom(timestamp(start))
    return request


def timestamp(time: datetime) -> Timestamp:
    """Of proto."""
    return Timestamp(seconds=round(time.astimezone(UTC).timestamp()))


def customers(stored: Aggregated) -> list[str]:
    """As aggregate() calls them."""
    return [f"user_{number:04}" for number in range(stored.customers)]


def shuffled(names: list[str]) -> list[str]:
    """The same order each time."""
    return random.Random(1).sample(names, len(names))


def call_load(bench: Bench, method: str, requests: list[bytes], in_flight: int) -> CallLoad:
    """A load on the stack's aggregator."""
    return CallLoad(
        address=bench.stack.connection.grpc["aggregator"],
        method=method,
        api_key=bench.stack.connection.api_key,
        requests=requests,
        in_flight=in_flight,
        warm_up_s=bench.plan.warm_up_s,
        measure_s=bench.plan.measure_s,
    )


def called(load: CallLoad) -> LoadResult:
    """Run a load."""
    return run("benchmarks.generators.calls", load, LoadResult)


def measured(bench: Bench, load: CallLoad) -> LoadResult:
    """Run a load of which nothing may be refused, and report it."""
    result = called(load)
    bench.report(
        f"{result.requests_per_s:,.0f}/s, p50 {result.p50_ms:.1f} ms, p99 {result.p99_ms:.1f} ms"
    )
    if result.refused:
        raise BenchmarkError(f"refused: {result.refused}")
    return result


async def execute(bench: Bench, statement: str, *values: object) -> None:
    """Run a statement in aggregator's database."""
    connect: Any = asyncpg.connect
    connection = await connect(bench.stack.connection.databases["aggregator"])
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()
