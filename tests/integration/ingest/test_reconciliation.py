"""What was accepted is counted by hour, and batches are given out once more as they were."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import reconciliation_pb2 as pb
from usageflow.ingest.v1 import reconciliation_pb2_grpc

from services.ingest.reconciliation.repository import CountedHour, EventRange
from services.ingest.reconciliation.service import BATCHES_MAX, Reconciliation
from services.ingest.reconciliation.servicer import ReconciliationServicer
from services.kit.errors import InvalidArgumentError, from_rpc_error
from services.kit.grpc_client import internal_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.settings import ServiceSettings
from tests.columns import events_of
from tests.integration.ingest.instance import (
    ACME,
    ACME_TEST,
    NATS_AWAY,
    OTHER,
    TOKEN,
    Instance,
    event,
)
from tests.integration.ingest.test_ingest_grpc import Keys

HOUR = timedelta(hours=1)
# Whole hours, a day ago.
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
DAY = EventRange(START, START + 24 * HOUR)


def at(hours: int, minutes: int = 0) -> int:
    """Microseconds of an instant after START."""
    return int((START + hours * HOUR + timedelta(minutes=minutes)).timestamp()) * 1_000_000


async def counted(ingest: Instance, wanted: EventRange = DAY) -> list[CountedHour]:
    parts = [part async for part in Reconciliation(ingest.database).count_events(wanted)]
    return [hour for part in parts for hour in part]


async def found(ingest: Instance, wanted: EventRange) -> list[UUID]:
    parts = [part async for part in Reconciliation(ingest.database).find_batches(wanted)]
    return [batch.batch_id for part in parts for batch in part]


async def confirm_all(ingest: Instance) -> None:
    await ingest.outbox.confirm([message.message_id for message in await ingest.outbox.pending(99)])


async def test_hours_are_counted_by_tenant_and_metric(ingest: Instance) -> None:
    await ingest.record(
        event("a", amount="0.1", at_micros=at(0)),
        event("b", amount="0.2", at_micros=at(0, 59), customer_id="c"),
        event("c", amount="4", at_micros=at(1)),
        event("d", amount="8", at_micros=at(0), metric="OTHER"),
        event("e", amount="16", at_micros=at(24)),
    )
    await ingest.record(event("a", amount="32", at_micros=at(0)), tenant=ACME_TEST)
    await ingest.record(event("a", amount="64", at_micros=at(0)), tenant=OTHER)
    await confirm_all(ingest)
    assert await counted(ingest) == [
        CountedHour(ACME, "API_CALL", START, 2, Decimal("0.3"), False),
        CountedHour(ACME, "API_CALL", START + HOUR, 1, Decimal(4), False),
        CountedHour(ACME, "OTHER", START, 1, Decimal(8), False),
        CountedHour(ACME_TEST, "API_CALL", START, 1, Decimal(32), False),
        CountedHour(OTHER, "API_CALL", START, 1, Decimal(64), False),
    ]
    only = EventRange(DAY.start, DAY.end, ACME, "OTHER")
    assert [hour.amount_sum for hour in await counted(ingest, only)] == [Decimal(8)]


async def test_voids_are_taken_out_and_what_is_not_confirmed_moves(ingest: Instance) -> None:
    receipts = await ingest.record(
        event("a", amount="3", at_micros=at(0)), event("b", amount="5", at_micros=at(2))
    )
    assert [hour.moving for hour in await counted(ingest)] == [True, True]
    await confirm_all(ingest)
    assert [hour.moving for hour in await counted(ingest)] == [False, False]
    await ingest.voids.void(ACME, [receipts[0].event_id], "", key_id="key_1")
    first, second = await counted(ingest)
    assert (first.event_count, first.amount_sum, first.moving) == (0, Decimal(0), True)
    assert (second.event_count, second.amount_sum, second.moving) == (1, Decimal(5), False)


async def test_events_of_closed_segments_count_too(ingest: Instance) -> None:
    await ingest.record(event("a", at_micros=at(0)))
    await ingest.rotate()
    await ingest.record(event("b", at_micros=at(0)))
    [hour] = await counted(ingest)
    assert hour.event_count == 2


async def test_batches_are_found_by_their_events_and_voids_and_given_out_again(
    ingest: Instance,
) -> None:
    [receipt] = await ingest.record(event("a", at_micros=at(0)))
    await ingest.record(event("b", at_micros=at(0), metric="OTHER"))
    await ingest.record(event("c", at_micros=at(5)))
    await ingest.voids.void(ACME, [receipt.event_id], "", key_id="key_1")
    rows = await ingest.sql(
        "SELECT batch_id FROM event_batches LEFT JOIN events USING (batch_id) "
        "ORDER BY void_count, event_time, metric"
    )
    first, _other, later, voids = [row.batch_id for row in rows]
    wanted = EventRange(START, START + HOUR, ACME, "API_CALL")
    assert await found(ingest, wanted) == [first, voids]
    *events, last = await found(ingest, EventRange(DAY.start, DAY.end, ACME, "API_CALL"))
    assert (set(events), last) == ({first, later}, voids)
    assert await found(ingest, EventRange(START, START + HOUR, OTHER, "API_CALL")) == []
    reconciliation = Reconciliation(ingest.database)
    ids = [str(batch_id) for batch_id in (first, later, voids)]
    given = [batch async for batch in reconciliation.get_batches([*ids, str(uuid4())])]
    sent = {message.message_id: message.payload for message in await ingest.outbox.load(ids)}
    assert {batch.batch_id: batch.SerializeToString() for batch in given} == sent
    assert len(sent) == 3


async def test_many_batches_are_given_out_in_several_steps(ingest: Instance) -> None:
    for start in range(0, 12_000, 4_000):
        await ingest.record(*(event(f"k{n}", at_micros=at(0)) for n in range(start, start + 4_000)))
    ids = await found(ingest, EventRange(START, START + HOUR, ACME, "API_CALL"))
    reconciliation = Reconciliation(ingest.database)
    given = [batch async for batch in reconciliation.get_batches([str(each) for each in ids])]
    events = {each.event_id for batch in given for each in events_of(batch)}
    assert len(events) == 12_000
    assert len(given) == len(ids)


@asynccontextmanager
async def serving(ingest: Instance) -> AsyncIterator[Any]:
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr(NATS_AWAY),
        internal_token=SecretStr(TOKEN),
        shutdown_s=2,
    )
    server = GrpcServer(settings, Keys())
    server.add(
        reconciliation_pb2_grpc.add_ReconciliationInternalServiceServicer_to_server,
        ReconciliationServicer(Reconciliation(ingest.database)),
        "usageflow.ingest.v1.ReconciliationInternalService",
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield reconciliation_pb2_grpc.ReconciliationInternalServiceStub(channel)
    await server.stop()


def stamp(time: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(time)
    return made


def ranged(message: Any, start: datetime, end: datetime) -> Any:
    getattr(message, "from").CopyFrom(stamp(start))
    message.to.CopyFrom(stamp(end))
    return message


INTERNAL = internal_metadata(SecretStr(TOKEN))


async def all_of(call: Any) -> list[Any]:
    return [response async for response in call]


async def test_it_is_told_over_grpc(ingest: Instance) -> None:
    await ingest.record(event("a", amount="1.50", at_micros=at(0)))
    async with serving(ingest) as stub:
        request = ranged(pb.CountEventsRequest(), DAY.start, DAY.end)
        [response] = await all_of(stub.CountEvents(request, timeout=10, metadata=INTERNAL))
        [count] = response.counts
        assert (count.organization_id, count.mode) == (ACME.organization_id, ACME.mode)
        assert (count.metric, count.event_count, count.amount_sum) == ("API_CALL", 1, "1.5")
        assert count.hour == stamp(START)
        assert count.moving
        wanted = pb.FindBatchesRequest(
            organization_id=ACME.organization_id, mode=common_pb2.MODE_LIVE, metric="API_CALL"
        )
        request = ranged(wanted, DAY.start, DAY.end)
        [response] = await all_of(stub.FindBatches(request, timeout=10, metadata=INTERNAL))
        request = pb.GetBatchesRequest(batch_ids=[response.batches[0].batch_id])
        [response] = await all_of(stub.GetBatches(request, timeout=10, metadata=INTERNAL))
        assert [each.amount for each in events_of(response.batch)] == ["1.5"]


async def test_nobody_else_may_ask(ingest: Instance) -> None:
    async with serving(ingest) as stub:
        requests = {
            "CountEvents": pb.CountEventsRequest(),
            "FindBatches": pb.FindBatchesRequest(),
            "GetBatches": pb.GetBatchesRequest(),
        }
        for name, request in requests.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await all_of(getattr(stub, name)(request, timeout=10))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


WRONG: list[tuple[str, Any, set[str]]] = [
    ("CountEvents", pb.CountEventsRequest(), {"from", "to"}),
    ("CountEvents", ranged(pb.CountEventsRequest(), START, START), {"from"}),
    ("CountEvents", ranged(pb.CountEventsRequest(), START, START + 25 * HOUR), {"to"}),
    (
        "CountEvents",
        ranged(pb.CountEventsRequest(mode=common_pb2.MODE_LIVE, metric="A"), START, START + HOUR),
        {"mode", "metric"},
    ),
    ("FindBatches", pb.FindBatchesRequest(), {"from", "to", "mode", "metric"}),
    ("GetBatches", pb.GetBatchesRequest(), {"batchIds"}),
    ("GetBatches", pb.GetBatchesRequest(batch_ids=["x"]), {"batchIds"}),
    (
        "GetBatches",
        pb.GetBatchesRequest(batch_ids=[str(uuid4())] * (BATCHES_MAX + 1)),
        {"batchIds"},
    ),
]


async def test_what_is_wrong_is_named(ingest: Instance) -> None:
    async with serving(ingest) as stub:
        for name, request, fields in WRONG:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await all_of(getattr(stub, name)(request, timeout=10, metadata=INTERNAL))
            error = from_rpc_error(caught.value)
            assert isinstance(error, InvalidArgumentError), (name, error)
            assert {problem.field for problem in error.problems} == fields
