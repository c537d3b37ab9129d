"""What a full table costs: the same load on 20 million stored events and on none, and lists."""

import secrets
import time
from datetime import UTC, datetime

from msgspec.structs import replace

from benchmarks.bench import Bench
from benchmarks.figures import Row, interleaved
from benchmarks.fresh import fresh_bench
from benchmarks.generators.requests import idempotency_key
from benchmarks.loads import limited
from benchmarks.rows.common import load_row
from benchmarks.rows.lists import Span, lists

LOAD = "grpc_batch_500"
METRIC = "STORED"
RUN_BYTES = 8


def stored_before(bench: Bench, name: str) -> list[Row]:
    """Events/s with many stored events; floor: with an empty table, in turn on a stack beside it.

    What is stored came the same way, by gRPC, with keys that are random to PostgreSQL.
    """
    report, count = bench.report, bench.plan.stored_events
    with fresh_bench(bench.plan, report) as full:
        run = secrets.token_hex(RUN_BYTES)
        span = seed(full, count, run)
        suffix = f"_at_{short(count)}"
        requests = count // full.load(LOAD).events_per_request
        keys = stored_keys(run, requests, full.plan.list_questions)
        listed = lists(full, suffix, METRIC, span, keys)
        with fresh_bench(bench.plan, report) as empty:
            load, floor_load = full.load(LOAD), empty.load(LOAD)
            full.warm_up(load)
            empty.warm_up(floor_load)
            measured, floors = interleaved(
                lambda: full.measure(load),
                lambda: empty.floor(empty.measure(floor_load).result.events_per_s),
                bench.plan.rounds,
            )
    # A quick run stores fewer, and must not pass for the whole.
    return [load_row(name.replace("_at_20m", suffix), measured, floors), *listed]


def seed(bench: Bench, count: int, run: str) -> Span:
    """Store events, and wait until all is at rest: counted, and closed segments equipped."""
    load = bench.load(LOAD)
    begun, begun_s = datetime.now(UTC), time.monotonic()
    seeding = replace(load, metric=METRIC, run=run)
    bench.measure(limited(seeding, count // load.events_per_request))
    ended = datetime.now(UTC)
    bench.stack.await_segments()
    bench.report(f"{count:,} events stored and at rest after {time.monotonic() - begun_s:.0f} s")
    return begun, ended


def stored_keys(run: str, requests: int, wanted: int) -> list[str]:
    """Idempotency keys out of the whole run (generators/requests.py makes them)."""
    return [idempotency_key(run, number * requests // wanted, 0) for number in range(wanted)]


def short(count: int) -> str:
    """ "20m", "200k", "150"."""
    for factor, unit in ((1_000_000, "m"), (1_000, "k")):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)
