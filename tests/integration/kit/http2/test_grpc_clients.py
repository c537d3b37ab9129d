"""What grpc's own clients get of the HTTP/2 server: all kinds of calls, and their ends."""

import asyncio
import contextvars
import json
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from services.kit.grpc_client import MESSAGE_BYTES_MAX, METADATA_BYTES_MAX
from services.kit.http2 import connection
from tests.integration.kit.http2.serving import SERVICE, Served, message
from tests.waiting import until

LARGE = 4 * 1024 * 1024
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
]


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(served.address, options=UNLIMITED) as made:
        yield made


def unary(channel: Any, name: str) -> Any:
    return channel.unary_unary(f"/{SERVICE}/{name}")


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_535, LARGE])
async def test_a_message_of_any_size_comes_back(channel: grpc.aio.Channel, size: int) -> None:
    content = b"m" * size
    assert await unary(channel, "Echo")(content, timeout=30) == content


async def test_all_four_kinds_of_calls(channel: Any) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for number in range(100):
            yield str(number).encode()

    numbers = [str(number).encode() for number in range(100)]
    assert await unary(channel, "Echo")(b"one", timeout=5) == b"one"
    total = await channel.stream_unary(f"/{SERVICE}/Measure")(requests(), timeout=5)
    assert total == b"190"
    repeated = channel.unary_stream(f"/{SERVICE}/Repeat")(b"5 3", timeout=5)
    assert [answer async for answer in repeated] == [b"xxx"] * 5
    written = channel.unary_stream(f"/{SERVICE}/Write")(b"100", timeout=5)
    assert [answer async for answer in written] == numbers
    chat = channel.stream_stream(f"/{SERVICE}/Chat")(requests(), timeout=5)
    assert [answer async for answer in chat] == numbers


async def test_large_messages_in_streams(channel: Any) -> None:
    async def requests() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"r" * LARGE

    chat = channel.stream_stream(f"/{SERVICE}/Chat")(requests(), timeout=60)
    assert [len(answer) async for answer in chat] == [LARGE] * 4


async def test_the_synchronous_client(served: Served) -> None:
    def call() -> list[Any]:
        with grpc.insecure_channel(served.address) as channel:
            several: Any = channel.stream_stream(f"/{SERVICE}/Chat")
            return [
                unary(channel, "Echo")(b"one", timeout=5),
                *several(iter([b"two", b"three"]), timeout=5),
            ]

    with ThreadPoolExecutor() as pool:
        answers = await asyncio.get_running_loop().run_in_executor(pool, call)
    assert answers == [b"one", b"two", b"three"]


async def test_metadata_both_ways(channel: grpc.aio.Channel, served: Served) -> None:
    sent = (("word", "a b"), ("raw-bin", b"\x00\x01\xfe"), ("word", "twice"))
    call = unary(channel, "Headers")(b"", timeout=5, metadata=sent)
    assert await call == b""
    first, last = await call.initial_metadata(), await call.trailing_metadata()
    assert (first["first"], first["first-bin"]) == ("1", b"\x01")
    assert (last["last"], last["last-bin"]) == ("2", b"\x02")
    context = served.handlers.contexts[0]
    own = [pair for pair in context.invocation_metadata() if pair[0] in ("word", "raw-bin")]
    assert sorted(own, key=str) == sorted(sent, key=str)
    assert {name for name, _ in context.invocation_metadata()} == {"word", "raw-bin", "user-agent"}
    assert context.peer().startswith("ipv4:127.0.0.1:")
    # grpc rounds a time up to the next hundredth of a second.
    assert 4 < context.time_remaining() < 5.02


@pytest.mark.parametrize("value", ["a ", " a", " a b ", " ", ""])
async def test_spaces_around_metadata_are_let_go(
    channel: grpc.aio.Channel, served: Served, value: str
) -> None:
    await unary(channel, "Echo")(b"", timeout=5, metadata=(("word", value),))
    [context] = served.handlers.contexts
    assert ("word", value.strip()) in context.invocation_metadata()


@pytest.mark.parametrize("sentence", ["no metric 'x ' or ", " no metric", " ", "  "])
async def test_details_keep_their_spaces(channel: grpc.aio.Channel, sentence: str) -> None:
    error = await refusal(unary(channel, "Abort")(sentence.encode(), timeout=5))
    assert error.details() == sentence


async def test_a_handler_that_aborts_tells_code_details_and_metadata(
    channel: grpc.aio.Channel,
) -> None:
    sentence = "100 % naïve\n→ 😀"
    error = await refusal(unary(channel, "Abort")(sentence.encode(), timeout=5))
    assert error.code() is grpc.StatusCode.ABORTED
    assert error.details() == sentence
    told = error.trailing_metadata()
    assert told is not None
    assert (told["told"], told["told-bin"]) == ("why", b"\x00\xff")


async def test_trailers_may_be_longer_than_a_frame(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "Abort")(b"d" * 40_000, timeout=5))
    assert error.details() == "d" * 40_000


async def test_a_handler_that_fails_tells_nothing_of_the_inside(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "Fail")(b"password", timeout=5))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "password" not in str(error)


async def test_a_method_that_nobody_has(channel: grpc.aio.Channel) -> None:
    error = await refusal(unary(channel, "Nothing")(b"", timeout=5))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_handler_is_cancelled_at_the_deadline(
    channel: grpc.aio.Channel, served: Served
) -> None:
    error = await refusal(unary(channel, "Wait")(b"", timeout=0.3))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)


async def test_a_handler_is_cancelled_with_its_call(
    channel: grpc.aio.Channel, served: Served
) -> None:
    call = unary(channel, "Wait")(b"", timeout=60)
    task = asyncio.ensure_future(call)
    await served.handlers.running.wait()
    call.cancel()
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)
    assert await asyncio.gather(task, return_exceptions=True)
    # The connection goes on.
    assert await unary(channel, "Echo")(b"more", timeout=5) == b"more"


async def test_a_stream_of_answers_ends_with_its_call(channel: Any, served: Served) -> None:
    call = channel.unary_stream(f"/{SERVICE}/Repeat")(b"1000000 1000", timeout=60)
    assert await call.read() == b"x" * 1_000
    call.cancel()
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)
    assert served.handlers.given < 1_000_000


async def test_a_handler_may_answer_before_all_requests_have_come(
    channel: Any, served: Served
) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    served.handlers.go_on.set()
    call = channel.stream_unary(f"/{SERVICE}/First")(requests(), timeout=10)
    assert await call == b"first"


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_packed_requests(channel: Any, how: grpc.Compression) -> None:
    content = json.dumps(list(range(10_000))).encode()
    assert await unary(channel, "Echo")(content, timeout=5, compression=how) == content

    async def requests() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield content

    call = channel.stream_unary(f"/{SERVICE}/Measure")(requests(), timeout=5, compression=how)
    assert await call == str(3 * len(content)).encode()


async def test_a_packed_request_that_is_too_large_unpacked(channel: grpc.aio.Channel) -> None:
    content = bytes(MESSAGE_BYTES_MAX + 1)
    call = unary(channel, "Echo")(content, timeout=30, compression=grpc.Compression.Gzip)
    error = await refusal(call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_too_large_a_message_either_way(channel: Any) -> None:
    error = await refusal(unary(channel, "Echo")(bytes(MESSAGE_BYTES_MAX + 1), timeout=30))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    large = f"1 {MESSAGE_BYTES_MAX + 1}".encode()
    call = channel.unary_stream(f"/{SERVICE}/Repeat")(large, timeout=30)
    assert (await refusal(call.read())).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await unary(channel, "Echo")(b"more", timeout=5) == b"more"


async def test_the_largest_messages(channel: grpc.aio.Channel) -> None:
    content = bytes(MESSAGE_BYTES_MAX)
    assert await unary(channel, "Echo")(content, timeout=60) == content


async def test_too_much_metadata(channel: grpc.aio.Channel) -> None:
    metadata = [("much", "x" * 17_000)]
    error = await refusal(unary(channel, "Echo")(b"", timeout=5, metadata=metadata))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await unary(channel, "Echo")(b"more", timeout=5) == b"more"


async def test_a_thousand_calls_at_once(channel: grpc.aio.Channel, served: Served) -> None:
    contents = [str(number).encode() for number in range(1_000)]
    waiting = [asyncio.ensure_future(unary(channel, "Wait")(each, timeout=60)) for each in contents]
    await until("all of them", lambda: len(served.server.load.calls) == 1_000)
    served.handlers.go_on.set()
    assert await asyncio.gather(*waiting) == contents
    await until("their end", lambda: not served.server.load.calls)
    assert served.server.load.held_bytes == 0


async def test_more_calls_than_may_run_are_refused(
    channel: grpc.aio.Channel, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CALLS_RUNNING_MAX", 2)
    running = [asyncio.ensure_future(unary(channel, "Wait")(b"", timeout=60)) for _ in range(2)]
    await until("two calls", lambda: len(served.server.load.calls) == 2)
    error = await refusal(unary(channel, "Echo")(b"", timeout=5))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    served.handlers.go_on.set()
    await asyncio.gather(*running)
    assert await unary(channel, "Echo")(b"more", timeout=5) == b"more"


async def test_watches_that_anybody_may_begin_leave_room_for_others(
    channel: Any, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WATCHES_MAX", 2)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, served.methods.registrar())
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
    for watch in watches:
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    error = await refusal(stub.Watch(health_pb2.HealthCheckRequest()).read())
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    # What ends by itself is not among them, nor is what needs a key.
    await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    repeated = channel.unary_stream(f"/{SERVICE}/Repeat")(b"1 3", timeout=5)
    assert await repeated.read() == b"xxx"
    watches[0].cancel()
    await until("its end", lambda: len(served.server.load.watches) == 1)
    again = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await again.read()).status == health_pb2.HealthCheckResponse.SERVING


async def test_calls_do_not_see_each_others_context(served: Served, channel: Any) -> None:
    seen = contextvars.ContextVar("seen", default=0)

    async def look(request: bytes, context: Any) -> bytes:
        found = seen.get()
        seen.set(int(request))
        await asyncio.sleep(0)
        assert seen.get() == int(request)
        return str(found).encode()

    served.methods.add_registered_method_handlers(
        "test.Context", {"Look": grpc.unary_unary_rpc_method_handler(look)}
    )
    calls = (channel.unary_unary("/test.Context/Look")(str(n).encode()) for n in range(1, 50))
    assert set(await asyncio.gather(*calls)) == {b"0"}


async def test_curl_is_told_the_status_in_trailers(served: Served) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    process = await asyncio.create_subprocess_exec(
        curl,
        *("-s", "-i", "--http2-prior-knowledge", "-m", "10", "--data-binary", "@-"),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://{served.address}/{SERVICE}/Echo",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(message(b"by curl"))
    assert out.startswith(b"HTTP/2 200")
    assert message(b"by curl") in out
    assert out.endswith(b"grpc-status: 0\r\n")
