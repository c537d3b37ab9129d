"""The client of unary calls: with our server, with grpc.aio's, and with servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import hpack
import pytest
from google.rpc import code_pb2

from services.kit.errors import (
    DomainError,
    OverloadedError,
    UnavailableError,
    from_rpc_error,
    to_status,
)
from services.kit.grpc_client import MESSAGE_BYTES_MAX
from services.kit.http2 import client, client_connection, frames
from services.kit.http2.client import Channel
from services.kit.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
    settings_frame,
)
from tests.integration.kit.http2.scripted import (
    ENDED,
    OPENED,
    Script,
    answer,
    answer_all,
    asked,
    channel_to,
    ending,
    good,
    refused,
    scripted,
)
from tests.integration.kit.http2.serving import (
    SERVICE,
    WAIT_S,
    Peer,
    Served,
    message,
    serving,
    window_update,
)
from tests.waiting import until

ECHO, WAIT, ABORT = (f"/{SERVICE}/{name}" for name in ("Echo", "Wait", "Abort"))
LARGE = 5 * 1024 * 1024


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[Channel]:
    async with channel_to(served.address) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_535, LARGE])
async def test_a_message_of_any_size_comes_back(channel: Channel, size: int) -> None:
    content = b"m" * size
    assert await channel.call(ECHO, content, 30.0, ()) == content


async def test_many_large_calls_at_once_get_their_own_answers(channel: Channel) -> None:
    contents = [bytes([number]) * 300_000 for number in range(50)]
    answers = await asyncio.gather(*(channel.call(ECHO, each, 30.0, ()) for each in contents))
    assert answers == contents


async def test_metadata_and_the_deadline_arrive(served: Served, channel: Channel) -> None:
    metadata = (("x-one", "1"), ("x-long", "v" * 300))
    await channel.call(ECHO, b"", 7.0, metadata)
    [context] = served.handlers.contexts
    assert context.invocation_metadata() == metadata
    assert 6.0 < context.time_remaining() <= 7.0


async def test_a_refusal_is_what_grpc_would_raise(channel: Channel) -> None:
    error = await refused(channel.call(ABORT, "zu spät %".encode(), 5.0, ()))
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "zu spät %")
    trailing = error.trailing_metadata()
    assert trailing is not None
    assert (trailing["told"], trailing["told-bin"]) == ("why", b"\x00\xff")
    error = await refused(channel.call("/test.Bytes/Nothing", b"", 5.0, ()))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_the_call_on_both_sides(served: Served, channel: Channel) -> None:
    error = await refused(channel.call(WAIT, b"", 0.2, ()))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(served.handlers.cancelled.wait(), WAIT_S)
    assert await channel.call(ECHO, b"next", 5.0, ()) == b"next"


async def test_a_caller_who_goes_ends_the_call(served: Served, channel: Channel) -> None:
    call = asyncio.create_task(channel.call(WAIT, b"", 30.0, ()))
    await asyncio.wait_for(served.handlers.running.wait(), WAIT_S)
    call.cancel()
    await asyncio.wait_for(served.handlers.cancelled.wait(), WAIT_S)
    assert await channel.call(ECHO, b"next", 5.0, ()) == b"next"


async def test_replicas_take_turns_and_one_that_leaves_is_missed_by_nobody() -> None:
    async with serving() as one, serving() as two, channel_to(one.address, two.address) as channel:
        for _ in range(10):
            await channel.call(ECHO, b"", 5.0, ())
        assert (len(one.handlers.contexts), len(two.handlers.contexts)) == (5, 5)
        calls = [asyncio.create_task(channel.call(WAIT, b"w", 30.0, ())) for _ in range(4)]
        await asyncio.wait_for(one.handlers.running.wait(), WAIT_S)
        stopping = asyncio.create_task(one.server.stop(WAIT_S))
        for _ in range(10):
            await channel.call(ECHO, b"", 5.0, ())
        one.handlers.go_on.set()
        two.handlers.go_on.set()
        assert await asyncio.gather(*calls) == [b"w"] * 4
        await stopping
        assert await channel.call(ECHO, b"still", 5.0, ()) == b"still"


async def test_a_server_that_comes_back_is_found_again() -> None:
    async with serving() as first:
        port = first.port
        async with channel_to(first.address) as channel:
            await channel.call(ECHO, b"", 5.0, ())
            await first.server.stop(0.0)
            error = await refused(channel.call(ECHO, b"", 5.0, ()))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert isinstance(from_rpc_error(error), UnavailableError)
            async with serving(port):
                # It is looked for once a second, a call is tried for less.
                async def is_answered() -> bool:
                    try:
                        return await channel.call(ECHO, b"again", 10.0, ()) == b"again"
                    except grpc.aio.AioRpcError:
                        return False

                await until("the server is found", is_answered)


async def test_nobody_there_is_told_soon() -> None:
    async with serving() as gone:
        address = gone.address
    async with channel_to(address) as channel:
        began_s = asyncio.get_running_loop().time()
        error = await refused(channel.call(ECHO, b"", 60.0, ()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        # Far less than the deadline: after its attempts.
        assert asyncio.get_running_loop().time() - began_s < 30.0


async def test_grpc_aio_answers_it_too() -> None:
    async def echo(request: bytes, _context: object) -> bytes:
        return request

    async def fail(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        status = to_status(OverloadedError("Too many", retry_after_s=2.5))
        await context.abort(status.code, status.details, status.trailing_metadata)
        raise AssertionError

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    handlers: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with channel_to(f"localhost:{port}") as channel:
        contents = [bytes([number]) * (number * 9_000) for number in range(100)]
        answers = await asyncio.gather(*(channel.call(ECHO, each, 30.0, ()) for each in contents))
        assert answers == contents
        error = await refused(channel.call(f"/{SERVICE}/Fail", b"", 5.0, ()))
        domain: DomainError = from_rpc_error(error)
        assert isinstance(domain, OverloadedError)
        assert domain.retry_after_s == 2.5
    await server.stop(0)


@pytest.mark.parametrize(
    "script",
    [
        ending(lambda stream: frames.number_frame(RST_STREAM, stream, ErrorCode.REFUSED_STREAM)),
        ending(lambda _: frames.goaway_frame(0, ErrorCode.NO_ERROR)),
        ending(lambda _: b"\xff" * frames.HEAD.size),
        ending(lambda stream: frame(HEADERS, END_HEADERS, stream, b"\xff\xff\xff\xff\xff")),
        ending(
            lambda stream: frame(HEADERS, 0, stream, OPENED),
            lambda _: frame(PING, 0, 0, b"8" * 8),
        ),
        ending(lambda stream: frame(frames.CONTINUATION, END_HEADERS, stream, OPENED)),
        ending(lambda stream: frame(frames.PUSH_PROMISE, END_HEADERS, stream, b"\0\0\0\2")),
        ending(lambda _: window_update(0, frames.WINDOW_BYTES_LIMIT)),
        ending(lambda _: settings_frame({frames.INITIAL_WINDOW_SIZE: 2**32 - 1})),
        ending(
            lambda stream: frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                stream,
                hpack.Encoder().encode([(":status", "503", True)]),
            )
        ),
    ],
    ids=[
        "refused", "leaving", "too_large", "no_headers", "half_headers", "continuation", "push",
        "window", "setting", "proxy",
    ],
)  # fmt: skip
async def test_a_call_that_a_server_fails_is_made_again(script: Script) -> None:
    async with scripted(script, good) as (server, channel):
        assert await channel.call(ECHO, b"once", 20.0, ()) == b"fine"
        assert server.connections >= 1


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([lambda s: frame(HEADERS, END_HEADERS | END_STREAM, s, OPENED)], grpc.StatusCode.UNKNOWN),
        (
            [
                lambda s: frame(HEADERS, END_HEADERS, s, OPENED),
                lambda s: frame(DATA, END_STREAM, s, message(b"no status")),
            ],
            grpc.StatusCode.INTERNAL,
        ),
        (
            [lambda s: frame(HEADERS, END_HEADERS | END_STREAM, s, OPENED + ENDED)],
            grpc.StatusCode.INTERNAL,
        ),
        (
            [
                lambda s: frame(HEADERS, END_HEADERS, s, OPENED),
                lambda s: frame(DATA, 0, s, message(b"one") + message(b"two")),
                lambda s: frame(HEADERS, END_HEADERS | END_STREAM, s, ENDED),
            ],
            grpc.StatusCode.INTERNAL,
        ),
        (
            [
                lambda s: frame(HEADERS, END_HEADERS, s, OPENED),
                lambda s: frame(DATA, 0, s, message(b"packed", flag=1)),
                lambda s: frame(HEADERS, END_HEADERS | END_STREAM, s, ENDED),
            ],
            grpc.StatusCode.INTERNAL,
        ),
    ],
    ids=["no_status", "no_trailers", "no_message", "two_messages", "compressed"],
)
async def test_an_answer_that_is_none_is_an_error(
    parts: list[Callable[[int], bytes]], code: grpc.StatusCode
) -> None:
    async with scripted(ending(*parts)) as (_server, channel):
        assert (await refused(channel.call(ECHO, b"", 5.0, ()))).code() is code


async def test_what_a_server_pushes_back_is_not_tried_again() -> None:
    trailers = hpack.Encoder().encode(
        [
            ("grpc-status", str(code_pb2.UNAVAILABLE), True),
            ("grpc-message", "not%20now", True),
            ("grpc-retry-pushback-ms", "-1", True),
        ]
    )
    requests = 0

    async def script(peer: Peer) -> None:
        nonlocal requests
        await peer.send(settings_frame({}))
        while True:
            found = await peer.wait_for(DATA, flags=END_STREAM)
            requests += 1
            block = OPENED + trailers
            await peer.send(frame(HEADERS, END_HEADERS | END_STREAM, found.stream, block))

    async with scripted(script) as (_server, channel):
        error = await refused(channel.call(ECHO, b"", 5.0, ()))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "not now")
    assert requests == 1


async def test_what_is_unavailable_is_tried_as_often_as_it_may_be() -> None:
    requests = 0

    async def refusing(peer: Peer) -> None:
        nonlocal requests
        await peer.send(settings_frame({}))
        while True:
            found = await peer.wait_for(DATA, flags=END_STREAM)
            requests += 1
            await peer.send(frames.number_frame(RST_STREAM, found.stream, ErrorCode.REFUSED_STREAM))

    async with scripted(refusing) as (_server, channel):
        error = await refused(channel.call(ECHO, b"", 20.0, ()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert requests == client.ATTEMPTS_MAX


async def test_a_request_keeps_to_the_windows_of_the_server() -> None:
    sizes: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.send(settings_frame({frames.INITIAL_WINDOW_SIZE: 10}))
        await peer.wait_for(SETTINGS, flags=ACK)
        while sum(sizes) < 105:
            found = await peer.wait_for(DATA)
            sizes.append(len(found.payload))
            await peer.send(window_update(found.stream, 20))
        # The rest, all at once; then the window shrinks below nothing and grows again.
        await peer.send(settings_frame({frames.INITIAL_WINDOW_SIZE: 1_000}))
        await answer(peer, 1)
        await peer.reader.read()

    async with scripted(script) as (_server, channel):
        assert await channel.call(ECHO, b"r" * 100, 5.0, ()) == b"fine"
    # The first may have gone before the server's SETTINGS were known, but here they come first.
    assert max(sizes) <= 30
    assert sum(sizes) == 105


async def test_a_server_that_falls_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "LOOK_S", 0.05)
    monkeypatch.setattr(client_connection, "SILENT_S_MAX", 0.1)
    monkeypatch.setattr(client_connection, "PING_S_MAX", 0.1)
    pinged = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await asked(peer)
        await peer.wait_for(PING)
        pinged.set()
        await peer.reader.read()

    async with scripted(silent, good) as (server, channel):
        assert await channel.call(ECHO, b"", 20.0, ()) == b"fine"
        assert pinged.is_set()
        assert server.connections == 2


async def test_a_deadline_without_a_word_leaves_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_connection, "DEAF_S_MAX", 0.1)

    async def deaf(peer: Peer) -> None:
        await asked(peer)
        await peer.reader.read()

    async with scripted(deaf, good) as (server, channel):
        error = await refused(channel.call(ECHO, b"", 0.3, ()))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await channel.call(ECHO, b"", 10.0, ()) == b"fine"
        assert server.connections == 2


async def test_a_connection_that_is_over_gets_no_call(channel: Channel) -> None:
    await channel.call(ECHO, b"", 5.0, ())
    [connection] = list(channel._connections)
    connection.abort("a test")
    # In the same turn of the loop: on the old connection it would wait for its deadline.
    assert await channel.call(ECHO, b"now", 5.0, ()) == b"now"


async def test_a_short_deadline_leaves_other_calls_alone(served: Served, channel: Channel) -> None:
    long = asyncio.create_task(channel.call(WAIT, b"long", 30.0, ()))
    await asyncio.wait_for(served.handlers.running.wait(), WAIT_S)
    served.handlers.cancelled.clear()
    error = await refused(channel.call(WAIT, b"short", 0.01, ()))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(served.handlers.cancelled.wait(), WAIT_S)
    served.handlers.go_on.set()
    assert await long == b"long"
    assert len(served.server.connections) == 1


async def test_connections_that_are_over_at_once_are_not_made_again_at_once() -> None:
    async def brief(peer: Peer) -> None:
        await peer.send(settings_frame({}))

    async with scripted(brief) as (server, channel):
        error = await refused(channel.call(ECHO, b"", 2.0, ()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        # 0.1, 0.2, 0.4, .. s after one another.
        assert server.connections <= 6


async def test_a_replica_that_says_nothing_holds_up_nobody() -> None:
    async def mute(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    silent = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with serving() as good, channel_to(silent, good.address) as channel:
        assert await channel.call(ECHO, b"now", client.CONNECT_S_MAX / 2, ()) == b"now"
    listener.close()


async def test_names_that_are_not_found_for_a_while_keep_their_replicas(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RESOLVE_S", 0.05)
    monkeypatch.setattr(client, "RECONNECT_S_MAX", 0.05)
    failed = asyncio.Event()
    looked_up = 0

    async def addresses_of(host: str, port: int) -> set[tuple[str, int]]:
        nonlocal looked_up
        looked_up += 1
        if looked_up > 3:
            failed.set()
        if looked_up > 1:
            raise OSError(host)
        return {("127.0.0.1", port)}

    monkeypatch.setattr(client, "addresses_of", addresses_of)
    async with channel_to(f"ingest.example:{served.port}") as channel:
        assert await channel.call(ECHO, b"one", 5.0, ()) == b"one"
        await asyncio.wait_for(failed.wait(), WAIT_S)
        assert await channel.call(ECHO, b"two", 5.0, ()) == b"two"
        for connection in list(served.server.connections):
            connection.transport.abort()
        assert await channel.call(ECHO, b"three", 5.0, ()) == b"three"


async def test_a_name_that_nobody_knows_is_told_soon() -> None:
    async with channel_to("nobody.invalid:1") as channel:
        error = await refused(channel.call(ECHO, b"", 30.0, ()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_closed_channel_ends_its_calls_and_takes_none(
    served: Served, channel: Channel
) -> None:
    running = asyncio.create_task(channel.call(WAIT, b"", 60.0, ()))
    await asyncio.wait_for(served.handlers.running.wait(), WAIT_S)
    await channel.close()
    async with asyncio.timeout(WAIT_S):
        assert (await refused(running)).code() is grpc.StatusCode.UNAVAILABLE
        error = await refused(channel.call(ECHO, b"", 60.0, ()))
        assert error.details() == "the channel is closed"
        await served.handlers.cancelled.wait()


async def test_metadata_that_is_not_allowed_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, channel: Channel
) -> None:
    monkeypatch.setattr(client_connection, "CALLS_MAX", 3)
    for _ in range(5):
        with pytest.raises(ValueError, match="metadata"):
            await channel.call(ECHO, b"", 5.0, (("x", "ä"),))
    assert await channel.call(ECHO, b"fine", 5.0, ()) == b"fine"


async def test_what_comes_before_the_answer_is_not_the_answer() -> None:
    early = hpack.Encoder().encode([(":status", "103", True), ("link", "x", True)])

    async def script(peer: Peer) -> None:
        found = await asked(peer)
        await peer.send(frame(HEADERS, END_HEADERS, found.stream, early))
        await answer(peer, found.stream)
        await answer_all(peer)

    async with scripted(script) as (_server, channel):
        assert await channel.call(ECHO, b"", 5.0, ()) == b"fine"


async def test_a_decoder_without_a_table_understands_the_headers() -> None:
    fields: list[dict[str, str]] = []

    async def strict(peer: Peer) -> None:
        await peer.send(settings_frame({frames.HEADER_TABLE_SIZE: 0}))
        await peer.wait_for(SETTINGS, flags=ACK)
        peer.decoder.max_allowed_table_size = 0
        while True:
            found = await peer.wait_for(HEADERS)
            fields.append(peer.fields(found))
            await peer.wait_for(DATA, found.stream, END_STREAM)
            await answer(peer, found.stream)

    async with scripted(strict) as (_server, channel):
        for _ in range(2):
            assert await channel.call(ECHO, b"", 1.5, (("x-one", "1"),)) == b"fine"
    assert [each["x-one"] for each in fields] == ["1", "1"]
    assert fields[0][":path"] == ECHO
    assert fields[0]["grpc-timeout"].endswith("m")


async def test_what_a_proxy_says_is_told_as_grpc_does() -> None:
    block = hpack.Encoder().encode([(":status", "404", True)])
    script = ending(lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
    async with scripted(script) as (_server, channel):
        error = await refused(channel.call(ECHO, b"", 5.0, ()))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_server_that_never_greets_is_no_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CONNECT_S_MAX", 0.2)

    async def mute(peer: Peer) -> None:
        await peer.reader.read()

    async with scripted(mute) as (_server, channel):
        error = await refused(channel.call(ECHO, b"", 5.0, ()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_answer_beyond_what_is_taken_ends_the_connection() -> None:
    async def flood(peer: Peer) -> None:
        found = await asked(peer)
        await peer.send(frame(HEADERS, END_HEADERS, found.stream, OPENED))
        while True:
            await peer.send(frame(DATA, 0, found.stream, b"x" * frames.FRAME_BYTES_MAX))

    async with scripted(flood, good) as (server, channel):
        assert await channel.call(ECHO, b"", 30.0, ()) == b"fine"
        assert server.connections == 2


async def test_pings_are_answered_and_settings_acknowledged() -> None:
    done = asyncio.Event()

    async def curious(peer: Peer) -> None:
        found = await asked(peer)
        await peer.send(frame(PING, 0, 0, b"question"), settings_frame({}))
        assert (await peer.wait_for(PING, flags=ACK)).payload == b"question"
        await peer.wait_for(SETTINGS, flags=ACK)
        done.set()
        await answer(peer, found.stream)

    async with scripted(curious) as (_server, channel):
        assert await channel.call(ECHO, b"", 5.0, ()) == b"fine"
        assert done.is_set()


async def test_windows_are_given_back_to_a_server_that_sends_much() -> None:
    given: list[int] = []

    async def generous(peer: Peer) -> None:
        await peer.send(settings_frame({}))
        while True:
            found = await peer.next()
            if found.kind == WINDOW_UPDATE and not found.stream:
                given.append(int.from_bytes(found.payload, "big"))
            if found.kind == DATA and found.flags & END_STREAM:
                content = message(b"x" * (MESSAGE_BYTES_MAX - 100))
                await peer.send(frame(HEADERS, END_HEADERS, found.stream, OPENED))
                for at in range(0, len(content), frames.FRAME_BYTES_MAX):
                    part = content[at : at + frames.FRAME_BYTES_MAX]
                    await peer.send(frame(DATA, 0, found.stream, part))
                await peer.send(frame(HEADERS, END_HEADERS | END_STREAM, found.stream, ENDED))
            assert found.kind != GOAWAY

    async with scripted(generous) as (_server, channel):
        for _ in range(4):
            assert len(await channel.call(ECHO, b"", 30.0, ())) == MESSAGE_BYTES_MAX - 100
        # The hello's, and at least one for each window's half.
        await until("windows", lambda: asyncio.sleep(0, len(given) >= 4))
