"""Calls are refused before they are read when those before them wait too long for that."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from usageflow.ingest.v1 import ingest_pb2 as pb
from usageflow.ingest.v1 import ingest_pb2_grpc

from services.ingest.admission import UNREAD_ALWAYS, WAIT_S_MAX, WAITS_REMEMBERED, Admission
from services.kit.errors import OverloadedError, from_rpc_error
from tests.waiting import until

CALL_S = 20.0
WAIT_S = 10.0
SERVICE = "usageflow.ingest.v1.IngestService"
REQUEST = pb.RecordEventsRequest(events=[pb.EventInput(metric="m", amount="1")])


async def answer_record(request: pb.RecordEventsRequest, context: object) -> Any:
    """RecordEvents, once its message has been read."""
    return pb.RecordEventsResponse()


async def answer_get(request: pb.GetEventRequest, context: object) -> Any:
    """GetEvent."""
    return pb.GetEventResponse()


METHODS: Any = {
    "RecordEvents": grpc.unary_unary_rpc_method_handler(
        answer_record,
        pb.RecordEventsRequest.FromString,
        pb.RecordEventsResponse.SerializeToString,
    ),
    "GetEvent": grpc.unary_unary_rpc_method_handler(
        answer_get, pb.GetEventRequest.FromString, pb.GetEventResponse.SerializeToString
    ),
}


@dataclass
class Clock:
    """Goes on by `step_s` with each look, and tells how often it was looked at."""

    step_s: float = 0.0
    now_s: float = 0.0
    looks: int = 0
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self) -> float:
        self.now_s += self.step_s
        self.looks += 1
        self.looked.set()
        return self.now_s

    async def looked_at(self, times: int) -> None:
        """Return when it has been looked at so often."""
        async with asyncio.timeout(WAIT_S):
            while self.looks < times:
                self.looked.clear()
                await self.looked.wait()


@dataclass
class Caller:
    """Calls a server with an Admission that goes by `clock`."""

    clock: Clock
    channel: grpc.aio.Channel

    async def record(self) -> None:
        """A whole call; AioRpcError."""
        stub: Any = ingest_pb2_grpc.IngestServiceStub(self.channel)
        await stub.RecordEvents(REQUEST, timeout=CALL_S)

    async def be_slow(self) -> None:
        """Calls that each wait too long for being read, as many as are remembered."""
        self.clock.step_s = WAIT_S_MAX * 2
        for _ in range(WAITS_REMEMBERED):
            await self.record()

    async def begin(self, calls: int) -> list[Any]:
        """Calls that the server has accepted, and whose message nobody has sent."""
        call: Any = self.channel.stream_unary(
            f"/{SERVICE}/RecordEvents",
            request_serializer=pb.RecordEventsRequest.SerializeToString,
            response_deserializer=pb.RecordEventsResponse.FromString,
        )
        before = self.clock.looks
        begun = [call(timeout=CALL_S) for _ in range(calls)]
        await self.clock.looked_at(before + calls)
        return begun


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    clock = Clock()
    server = grpc.aio.server(interceptors=[Admission(clock)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, METHODS)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Caller(clock, channel)
    await server.stop(None)


async def refusal(calling: Callable[[], Awaitable[None]]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await calling()
    return refused.value


async def test_behind_calls_that_wait_too_long_new_ones_are_refused_at_once(caller: Caller) -> None:
    await caller.be_slow()
    await caller.begin(UNREAD_ALWAYS)
    error = from_rpc_error(await refusal(caller.record))
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s


async def test_what_stores_nothing_is_answered_all_the_same(caller: Caller) -> None:
    await caller.be_slow()
    await caller.begin(UNREAD_ALWAYS)
    stub: Any = ingest_pb2_grpc.IngestServiceStub(caller.channel)
    await stub.GetEvent(pb.GetEventRequest(), timeout=CALL_S)


async def test_a_few_may_wait_however_long_it_takes(caller: Caller) -> None:
    await caller.be_slow()
    await caller.begin(UNREAD_ALWAYS - 1)
    await caller.record()


async def test_callers_that_never_send_their_message_keep_nobody_out(caller: Caller) -> None:
    await caller.begin(UNREAD_ALWAYS)
    caller.clock.now_s += 1_000
    await caller.record()


async def test_one_call_that_was_read_soon_ends_the_overload(caller: Caller) -> None:
    await caller.be_slow()
    begun = await caller.begin(UNREAD_ALWAYS)
    assert await refusal(caller.record)
    caller.clock.step_s = 0
    await begun[0].write(REQUEST)
    await begun[0].done_writing()
    await begun[0]
    await caller.record()  # there is one less, and it takes its place
    await caller.begin(1)
    await caller.record()


async def test_calls_that_go_away_unread_make_room(caller: Caller) -> None:
    await caller.be_slow()
    begun = await caller.begin(UNREAD_ALWAYS)
    assert await refusal(caller.record)
    for call in begun:
        call.cancel()

    async def is_taken() -> bool:
        try:
            await caller.record()
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED
        return True

    await until("a call that is taken", is_taken)
