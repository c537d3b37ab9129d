"""ingest over gRPC, in this process."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import ingest_pb2 as pb
from usageflow.ingest.v1 import ingest_pb2_grpc

from services.ingest.domain import Status
from services.ingest.history import Histories
from services.ingest.replay import Replays
from services.ingest.servicer import IngestInternalServicer, IngestServicer
from services.ingest.strict_metrics import StrictMetrics
from services.kit.auth import Principal, invalid_key
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import api_key_metadata, internal_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.keys import make_key
from services.kit.metrics import FoundMetrics
from services.kit.settings import ServiceSettings
from tests.integration.ingest.instance import NATS_AWAY, TOKEN, Instance, event, now_micros

CALL_S = 20.0
ACCEPTED, DUPLICATE = Status.ACCEPTED, Status.DUPLICATE
CONFLICT, REJECTED = Status.CONFLICT, Status.REJECTED
INTERNAL = internal_metadata(SecretStr(TOKEN))


@dataclass
class Keys:
    """A KeyResolver that knows the keys it has made."""

    known: dict[str, Principal] = field(default_factory=dict)

    def new(
        self, organization: str, *scopes: str, event_past_days: int = 35, strict: bool = False
    ) -> str:
        """A key of an organization, live mode."""
        secret = make_key("live")
        organization_id = f"org_{organization.encode().hex():0>32}"
        self.known[secret] = Principal(
            "key",
            organization_id,
            1,
            "live",
            frozenset(scopes),
            event_past_days=event_past_days,
            strict_metrics=strict,
        )
        return secret

    async def resolve(self, secret: str) -> Principal:
        """UnauthenticatedError for a key that was not made here, or revoked."""
        if secret not in self.known:
            raise invalid_key()
        return self.known[secret]


class OneMetric:
    """A MetricsSource: somebody has defined API_CALL, and nothing else."""

    async def find(self, organization_id: str, mode: int, keys: Collection[str]) -> FoundMetrics:
        """Those that there are."""
        return FoundMetrics(defined=frozenset({"API_CALL"} & set(keys)))


@dataclass
class Served:
    """ingest behind its gRPC server."""

    keys: Keys
    public: Any
    internal: Any

    async def record(self, secret: str, *events: pb.EventInput) -> list[pb.EventReceipt]:
        """RecordEvents."""
        response = await self.public.RecordEvents(
            pb.RecordEventsRequest(events=events), timeout=CALL_S, metadata=api_key_metadata(secret)
        )
        return list(response.receipts)


@pytest.fixture
async def served(ingest: Instance) -> AsyncIterator[Served]:
    """A gRPC server before an instance of ingest."""
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr(NATS_AWAY),
        internal_token=SecretStr(TOKEN),
        shutdown_s=2,
    )
    keys = Keys()
    server = GrpcServer(settings, keys)
    server.add(
        ingest_pb2_grpc.add_IngestServiceServicer_to_server,
        IngestServicer(ingest.ingest, ingest.voids, StrictMetrics(OneMetric())),
        "usageflow.ingest.v1.IngestService",
    )
    server.add(
        ingest_pb2_grpc.add_IngestInternalServiceServicer_to_server,
        IngestInternalServicer(
            ingest.ingest,
            Replays(ingest.database),
            Histories(ingest.database),
            StrictMetrics(OneMetric()),
        ),
        "usageflow.ingest.v1.IngestInternalService",
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield Served(
            keys,
            ingest_pb2_grpc.IngestServiceStub(channel),
            ingest_pb2_grpc.IngestInternalServiceStub(channel),
        )
    await server.stop()


def statuses(receipts: Iterable[pb.EventReceipt]) -> list[Status]:
    return [Status(receipt.status) for receipt in receipts]


async def test_each_call_needs_its_scope(served: Served) -> None:
    track, read = (served.keys.new("acme", scope) for scope in ("track", "read"))
    [receipt] = await served.record(track, event("k"))
    request = pb.GetEventRequest(event_id=receipt.event_id)
    found = await served.public.GetEvent(request, timeout=CALL_S, metadata=api_key_metadata(read))
    assert found.event.event_id == receipt.event_id
    assert found.event.accept_time.ToMicroseconds() >= now_micros() - 60_000_000
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.public.GetEvent(request, timeout=CALL_S, metadata=api_key_metadata(track))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.record(read, event("l"))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_another_organizations_events_are_not_seen(served: Served) -> None:
    acme, other = (served.keys.new(name, "track", "read") for name in ("acme", "other"))
    [receipt] = await served.record(acme, event("k"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.public.GetEvent(
            pb.GetEventRequest(event_id=receipt.event_id),
            timeout=CALL_S,
            metadata=api_key_metadata(other),
        )
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    listed = await served.public.ListEvents(
        pb.ListEventsRequest(), timeout=CALL_S, metadata=api_key_metadata(other)
    )
    assert list(listed.events) == []


@pytest.mark.parametrize("count", [0, 10_001])
async def test_a_call_carries_from_1_to_10000_events(served: Served, count: int) -> None:
    key = served.keys.new("acme", "track")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.record(key, *[event()] * count)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    [problem] = from_rpc_error(refused.value).problems
    assert problem.field == "events"
    assert "10000" in problem.message


async def test_a_list_is_limited_by_what_the_request_says(served: Served) -> None:
    key = served.keys.new("acme", "track", "read")
    start = now_micros() - 10_000_000
    await served.record(
        key,
        *(
            event(at_micros=start + n, metric=f"M{n % 2}", customer_id=f"c{n % 3}")
            for n in range(12)
        ),
    )
    request = pb.ListEventsRequest(
        customer_id="c0",
        metric="M0",
        to=Timestamp(seconds=start // 10**6, nanos=12_000),
        page_size=1,
    )
    getattr(request, "from").seconds = start // 10**6
    times = []
    while True:
        page = await served.public.ListEvents(
            request, timeout=CALL_S, metadata=api_key_metadata(key)
        )
        times += [found.time.ToMicroseconds() - start for found in page.events]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert times == [6, 0]


async def test_gateways_send_events_of_several_organizations_at_once(served: Served) -> None:
    acme, other = (f"org_{number:032x}" for number in (1, 2))
    parts = [
        (acme, common_pb2.MODE_LIVE, [event("k"), event("bad", amount="x")]),
        (other, common_pb2.MODE_LIVE, [event("k")]),
        (acme, common_pb2.MODE_TEST, [event("k"), event("k", amount="2")]),
    ]
    request = pb.RecordTenantEventsRequest(
        tenants=[
            pb.TenantEventInputs(organization_id=organization, mode=mode, events=events)
            for organization, mode, events in parts
        ]
    )
    response = await served.internal.RecordTenantEvents(request, timeout=CALL_S, metadata=INTERNAL)
    assert statuses(response.receipts) == [ACCEPTED, REJECTED, ACCEPTED, ACCEPTED, CONFLICT]
    ids = [receipt.event_id for receipt in response.receipts]
    assert len({ids[0], ids[2], ids[3]}) == 3
    assert ids[3] == ids[4]


def days_ago(*days: int) -> list[pb.EventInput]:
    return [event(at_micros=now_micros() - day * 86_400 * 10**6) for day in days]


async def test_how_late_an_event_may_come_is_the_organization_s_setting(served: Served) -> None:
    events = days_ago(34, 36, 399, 401)
    usual = served.keys.new("acme", "track")
    receipts = await served.record(usual, *events)
    assert statuses(receipts) == [ACCEPTED, REJECTED, REJECTED, REJECTED]
    assert "from 35 days ago" in receipts[1].errors[0].message
    importing = served.keys.new("other", "track", event_past_days=400)
    receipts = await served.record(importing, *events)
    assert statuses(receipts) == [ACCEPTED, ACCEPTED, ACCEPTED, REJECTED]
    assert "from 400 days ago" in receipts[3].errors[0].message


async def test_with_strict_metrics_events_of_undefined_metrics_are_rejected(
    served: Served,
) -> None:
    events = [event(), event(metric="API_CALLS"), event()]
    strict = served.keys.new("acme", "track", "read", strict=True)
    receipts = await served.record(strict, *events)
    assert statuses(receipts) == [ACCEPTED, REJECTED, ACCEPTED]
    assert receipts[1].errors[0].field == "metric"
    parts = [
        pb.TenantEventInputs(
            organization_id=f"org_{'0' * 32}",
            mode=common_pb2.MODE_LIVE,
            events=events,
            strict_metrics=is_strict,
        )
        for is_strict in (True, False)
    ]
    response = await served.internal.RecordTenantEvents(
        pb.RecordTenantEventsRequest(tenants=parts), timeout=CALL_S, metadata=INTERNAL
    )
    usual = [ACCEPTED] * 3
    assert statuses(response.receipts) == [ACCEPTED, REJECTED, ACCEPTED, *usual]


@pytest.mark.parametrize(
    ("told", "taken"), [(0, 35), (-5, 35), (34, 35), (35, 35), (100, 100), (400, 400), (9_999, 400)]
)
async def test_what_gateways_tell_of_late_events_is_kept_within_its_limits(
    served: Served, told: int, taken: int
) -> None:
    part = pb.TenantEventInputs(
        organization_id=f"org_{'0' * 32}",
        mode=common_pb2.MODE_LIVE,
        events=days_ago(taken - 1, taken + 1),
        event_past_days=told,
    )
    response = await served.internal.RecordTenantEvents(
        pb.RecordTenantEventsRequest(tenants=[part]), timeout=CALL_S, metadata=INTERNAL
    )
    assert statuses(response.receipts) == [ACCEPTED, REJECTED]


@pytest.mark.parametrize(
    ("organization", "mode"), [("acme", 1), (f"org_{'0' * 32}", 0), (f"org_{'0' * 32}", 7)]
)
async def test_gateways_must_say_whose_events_they_send(
    served: Served, organization: str, mode: int
) -> None:
    part = pb.TenantEventInputs(
        organization_id=organization,
        mode=mode,  # type: ignore[arg-type] # a number that is no mode
        events=[event()],
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.internal.RecordTenantEvents(
            pb.RecordTenantEventsRequest(tenants=[part]), timeout=CALL_S, metadata=INTERNAL
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_internal_calls_need_the_internal_token(served: Served) -> None:
    key = served.keys.new("acme", "track", "read")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.internal.GetWatermark(
            pb.GetWatermarkRequest(), timeout=CALL_S, metadata=api_key_metadata(key)
        )
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_watermark_stays_before_what_is_not_applied(served: Served) -> None:
    key = served.keys.new("acme", "track", "read")
    [receipt] = await served.record(key, event("k"))
    answer = await served.internal.GetWatermark(
        pb.GetWatermarkRequest(), timeout=CALL_S, metadata=INTERNAL
    )
    found = await served.public.GetEvent(
        pb.GetEventRequest(event_id=receipt.event_id),
        timeout=CALL_S,
        metadata=api_key_metadata(key),
    )
    assert answer.watermark.ToMicroseconds() == found.event.accept_time.ToMicroseconds()


async def test_a_stream_answers_each_request_in_order_while_more_come(served: Served) -> None:
    key = served.keys.new("acme", "track")
    stream = served.public.StreamEvents(metadata=api_key_metadata(key), timeout=CALL_S)
    for number in range(3):
        await stream.write(pb.StreamEventsRequest(events=[event(f"a{number}"), event("shared")]))
        response = await stream.read()
        expected = [ACCEPTED, DUPLICATE if number else ACCEPTED]
        assert statuses(response.receipts) == expected
    for number in range(20):
        await stream.write(pb.StreamEventsRequest(events=[event(f"b{number}")] * (number + 1)))
    await stream.done_writing()
    sizes = []
    while (response := await stream.read()) is not grpc.aio.EOF:
        sizes.append(len(response.receipts))
    assert sizes == list(range(1, 21))
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_request_of_a_stream_that_is_too_large_ends_it_after_the_answers_before(
    served: Served,
) -> None:
    key = served.keys.new("acme", "track")
    stream = served.public.StreamEvents(metadata=api_key_metadata(key), timeout=CALL_S)
    await stream.write(pb.StreamEventsRequest(events=[event("k")]))
    await stream.write(pb.StreamEventsRequest())
    assert statuses((await stream.read()).receipts) == [ACCEPTED]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_revoked_key_ends_its_stream(served: Served) -> None:
    key = served.keys.new("acme", "track")
    stream = served.public.StreamEvents(metadata=api_key_metadata(key), timeout=CALL_S)
    await stream.write(pb.StreamEventsRequest(events=[event("k")]))
    assert statuses((await stream.read()).receipts) == [ACCEPTED]
    del served.keys.known[key]
    await stream.write(pb.StreamEventsRequest(events=[event()]))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream.read()
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_waits_where_a_call_would_be_refused(
    served: Served, ingest: Instance
) -> None:
    """30 requests of 4,000 events: more than twice what may wait at a time."""
    key = served.keys.new("acme", "track")
    stream = served.public.StreamEvents(metadata=api_key_metadata(key), timeout=3 * CALL_S)

    async def write() -> None:
        request = pb.StreamEventsRequest(events=[event()] * 4_000)
        for _ in range(30):
            await stream.write(request)
        await stream.done_writing()

    writing = asyncio.create_task(write())
    while (response := await stream.read()) is not grpc.aio.EOF:
        assert set(statuses(response.receipts)) == {ACCEPTED}
    await writing
    assert await ingest.count() == 120_000
