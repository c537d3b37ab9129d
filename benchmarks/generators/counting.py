"""Counts events as aggregator does: `python -m benchmarks.generators.counting`, a FoldLoad in, a
FoldResult out.

Without a database: what one core folds in memory, from the bytes of a message to buckets. With one:
what one replica counts, transactions included, as many batches in each as under a full load.
"""

import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
import uvloop
from usageflow.common.v1 import common_pb2
from usageflow.events.v1.events_pb2 import EventBatch

from benchmarks.messages import FoldLoad, FoldResult
from services.aggregator.fold import Definition, Fold, metrics_of, plain_series
from services.aggregator.folder import Folder
from services.kit.database import Database
from services.kit.tenant import TenantKey

EVENTS_A_BATCH = 500
BATCHES_A_GROUP = 20
METRIC = "FOLDED"


def payloads(load: FoldLoad, count: int) -> list[bytes]:
    """Batches of events that happen now, each with an id of its own."""
    made = []
    now_us = time.time_ns() // 1_000
    for number in range(count):
        batch = EventBatch(batch_id=str(uuid4()))
        batch.accept_time.FromDatetime(datetime.now(UTC))
        tenant = batch.tenants.add(organization_id=load.organization_id, mode=common_pb2.MODE_LIVE)
        columns = tenant.columns
        columns.metrics.append(METRIC)
        columns.amounts.append("1")
        columns.event_ids = b"".join(uuid4().bytes for _ in range(EVENTS_A_BATCH))
        columns.times_unix_micros.extend(range(now_us, now_us + EVENTS_A_BATCH))
        customers = [(number * EVENTS_A_BATCH + n) % load.customers for n in range(EVENTS_A_BATCH)]
        named = list(dict.fromkeys(customers))
        columns.customer_ids.extend(f"{load.prefix}{customer}" for customer in named)
        columns.customer_indexes.extend(map(named.index, customers))
        made.append(batch.SerializeToString())
    return made


def fold_in_memory(load: FoldLoad) -> FoldResult:
    """Everything of the fold but SQL."""
    group = payloads(load, BATCHES_A_GROUP)
    tenant = TenantKey(load.organization_id, "live")
    definitions = {tenant: {METRIC: Definition(1, ())}}

    def once() -> int:
        folded = Fold(definitions)
        for payload in group:
            batch = EventBatch.FromString(payload)
            assert metrics_of(batch) == {tenant: {METRIC}}
            folded.add(batch)
        cells, counted = folded.counted()
        assert not cells
        plain_series(counted)
        return sum(counted.event_counts)

    def until(end_s: float) -> int:
        events = 0
        while time.perf_counter() < end_s:
            events += once()
        return events

    until(time.perf_counter() + load.warm_up_s)
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    events = until(begun_s + load.measure_s)
    return result(events, begun_s, begun_cpu_s)


async def count(load: FoldLoad) -> FoldResult:
    """What a replica's fold counts."""
    database = Database(load.database_url)
    folder = Folder(database, lambda: None)
    template = [EventBatch.FromString(payload) for payload in payloads(load, BATCHES_A_GROUP)]

    async def until(end_s: float) -> int:
        events = 0
        while time.perf_counter() < end_s:
            for batch in template:
                batch.batch_id = str(uuid4())
            await folder.apply(template)
            events += EVENTS_A_BATCH * BATCHES_A_GROUP
        return events

    await until(time.perf_counter() + load.warm_up_s)
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    events = await until(begun_s + load.measure_s)
    counted = result(events, begun_s, begun_cpu_s)
    await database.close()
    return counted


def result(events: int, begun_s: float, begun_cpu_s: float) -> FoldResult:
    """So many events since then."""
    seconds, cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    return FoldResult(events / seconds, events / cpu_s, events)


async def main() -> None:
    """Run what stdin describes."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=FoldLoad)
    found = await count(load) if load.database_url else fold_in_memory(load)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    uvloop.run(main())
