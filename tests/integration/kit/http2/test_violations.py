"""What clients must not do, and what they may not do so often: the right code, and nobody else is
hurt.
"""

import asyncio
import struct
import tracemalloc
import zlib
from contextlib import AsyncExitStack, suppress

import hpack
import pytest

from services.kit.grpc_client import MESSAGE_BYTES_MAX
from services.kit.http2 import connection, patience
from services.kit.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ErrorCode,
    frame,
    number_frame,
    settings_frame,
)
from services.kit.http2.headers import RefusedError, header_block
from services.kit.http2.messages import unpacked
from tests.integration.kit.http2.serving import (
    REQUEST,
    SERVICE,
    Peer,
    Served,
    block,
    message,
    peer,
    serving,
    window_update,
)
from tests.waiting import until

CALM = ErrorCode.ENHANCE_YOUR_CALM
CLOSED = ErrorCode.STREAM_CLOSED
COMPRESSION = ErrorCode.COMPRESSION_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR
PROTOCOL = ErrorCode.PROTOCOL_ERROR
SIZE = ErrorCode.FRAME_SIZE_ERROR
OPEN = frame(HEADERS, END_HEADERS, 1, block())
BEGUN = frame(HEADERS, 0, 1, block()[:20])


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(DATA, 0, 0, b"x"), PROTOCOL, id="DATA on no stream"),
        pytest.param(frame(DATA, 0, 1, b"x"), PROTOCOL, id="DATA on an idle stream"),
        pytest.param(frame(HEADERS, END_HEADERS, 0, block()), PROTOCOL, id="HEADERS on no stream"),
        pytest.param(frame(HEADERS, END_HEADERS, 2, block()), PROTOCOL, id="a server's stream"),
        pytest.param(frame(DATA, 0, 1, bytes(16_385)), SIZE, id="too large a frame"),
        pytest.param(
            frame(HEADERS, END_HEADERS | END_STREAM, 3, block(path="/x/y"))
            + frame(HEADERS, END_HEADERS | END_STREAM, 1, block()),
            CLOSED,
            id="a lower stream",
        ),
        pytest.param(OPEN + frame(DATA, PADDED, 1, b""), SIZE, id="no room for padding"),
        pytest.param(OPEN + frame(DATA, PADDED, 1, b"\x03ab"), PROTOCOL, id="padding in DATA"),
        pytest.param(
            frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + block()),
            PROTOCOL,
            id="padding in HEADERS",
        ),
        pytest.param(
            frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, b"1234"), SIZE, id="no room for priority"
        ),
        pytest.param(frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL, id="PRIORITY of no stream"),
        pytest.param(frame(RST_STREAM, 0, 1, bytes(4)), PROTOCOL, id="RST_STREAM of an idle one"),
        pytest.param(OPEN + frame(RST_STREAM, 0, 1, bytes(3)), SIZE, id="size of RST_STREAM"),
        pytest.param(frame(SETTINGS, 0, 1), PROTOCOL, id="SETTINGS of a stream"),
        pytest.param(frame(SETTINGS, ACK, 0, bytes(6)), SIZE, id="size of SETTINGS' ACK"),
        pytest.param(frame(SETTINGS, 0, 0, bytes(5)), SIZE, id="size of SETTINGS"),
        pytest.param(settings_frame({2: 2}), PROTOCOL, id="ENABLE_PUSH"),
        pytest.param(settings_frame({4: 2**31}), FLOW, id="INITIAL_WINDOW_SIZE"),
        pytest.param(settings_frame({5: 16_383}), PROTOCOL, id="MAX_FRAME_SIZE, less"),
        pytest.param(settings_frame({5: 2**24}), PROTOCOL, id="MAX_FRAME_SIZE, more"),
        pytest.param(frame(PUSH_PROMISE, 0, 1, bytes(4)), PROTOCOL, id="PUSH_PROMISE"),
        pytest.param(frame(PING, 0, 1, bytes(8)), PROTOCOL, id="PING of a stream"),
        pytest.param(frame(PING, 0, 0, bytes(7)), SIZE, id="size of PING"),
        pytest.param(frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL, id="GOAWAY of a stream"),
        pytest.param(window_update(0, 0), PROTOCOL, id="WINDOW_UPDATE by nothing"),
        pytest.param(window_update(1, 1), PROTOCOL, id="WINDOW_UPDATE of an idle stream"),
        pytest.param(window_update(0, 2**31 - 1), FLOW, id="too large a window"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE, id="size of WINDOW_UPDATE"),
        pytest.param(
            OPEN + window_update(1, 2**31 - 1 - 65_535) + settings_frame({4: 65_536}),
            FLOW,
            id="a stream's window too large by SETTINGS",
        ),
        pytest.param(frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL, id="CONTINUATION alone"),
        pytest.param(BEGUN + frame(PING, 0, 0, bytes(8)), PROTOCOL, id="PING within headers"),
        pytest.param(BEGUN + frame(9, 0, 3, b""), PROTOCOL, id="CONTINUATION of another stream"),
        pytest.param(BEGUN + frame(11, 0, 1, b""), PROTOCOL, id="an unknown frame within headers"),
        pytest.param(BEGUN + frame(CONTINUATION, 0, 1) * 9, CALM, id="CONTINUATION flood"),
        pytest.param(
            BEGUN + frame(CONTINUATION, 0, 1, bytes(16_384)) * 2, CALM, id="too long headers"
        ),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\xff\xff"), COMPRESSION, id="half a number"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\xbe"), COMPRESSION, id="of an empty table"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\x3f\x01"), COMPRESSION, id="a table again"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, b"\x82" * 2_000), CALM, id="much in few bytes"),
        pytest.param(frame(PING, 0, 0, bytes(8)) * 10_001, CALM, id="PING flood"),
        pytest.param(settings_frame({}) * 101, CALM, id="SETTINGS flood"),
        pytest.param(OPEN + frame(DATA, 0, 1) * 10_020, CALM, id="flood of empty DATA"),
        pytest.param(frame(PRIORITY, 0, 1, bytes(5)) * 10_001, CALM, id="PRIORITY flood"),
        pytest.param(frame(77, 0, 0) * 10_001, CALM, id="flood of unknown frames"),
        pytest.param(window_update(0, 1) * 10_001, CALM, id="WINDOW_UPDATE flood"),
        pytest.param(frame(GOAWAY, 0, 0, bytes(8)) * 10_001, CALM, id="GOAWAY flood"),
        pytest.param(
            b"".join(
                frame(HEADERS, END_HEADERS, stream, block()) + number_frame(RST_STREAM, stream, 8)
                for stream in range(1, 4_003, 2)
            ),
            CALM,
            id="rapid reset",
        ),
        pytest.param(
            b"".join(
                frame(HEADERS, END_HEADERS, stream, block()) + window_update(stream, 0)
                for stream in range(1, 4_003, 2)
            ),
            CALM,
            id="resets that the server is made to send",
        ),
    ],
)
async def test_a_violation_ends_its_connection_alone(
    served: Served, client: Peer, sent: bytes, code: ErrorCode
) -> None:
    async with peer(served) as other:
        await client.send(sent)
        assert await client.goaway() is code
        await other.echo(1)
    await until("the end of its calls", lambda: not served.server.load.calls)
    assert served.server.load.held_bytes == 0


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        PREFACE + frame(PING, 0, 0, bytes(8)),
        PREFACE + frame(SETTINGS, ACK, 0),
    ],
)
async def test_a_connection_begins_with_the_preface_and_settings(
    served: Served, hello: bytes
) -> None:
    async with peer(served, hello, acknowledge=False) as client:
        assert await client.goaway() is PROTOCOL


async def test_all_may_come_byte_by_byte(served: Served) -> None:
    sent = PREFACE + settings_frame({}) + frame(HEADERS, 0, 1, block()[:9])
    sent += frame(CONTINUATION, END_HEADERS, 1, block()[9:])
    sent += frame(DATA, PADDED, 1, b"\x02" + message(b"hello")[:4] + b"\0\0")
    sent += frame(DATA, END_STREAM, 1, message(b"hello")[4:])
    async with peer(served, b"", acknowledge=False) as client:
        for at in range(len(sent)):
            await client.send(sent[at : at + 1])
            await asyncio.sleep(0)
        assert (await client.wait_for(DATA, 1)).payload == message(b"hello")
        assert (await client.status(1))["grpc-status"] == "0"


async def test_what_nobody_knows_is_ignored(client: Peer) -> None:
    await client.send(
        settings_frame({1: 0, 3: 1, 6: 100, 99: 2**32 - 1}),
        frame(77, 0xFF, 5, b"unknown"),
        frame(GOAWAY, 0, 0, bytes(8)),
        frame(PRIORITY, 0, 9, bytes(5)),
        frame(HEADERS, END_HEADERS | WITH_PRIORITY | 0x40, 1, bytes(5) + block(trailer="t")),
        frame(DATA, 0xF6 & ~PADDED, 1, message(b"hello")),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, hpack.Encoder().encode([("own", "x", True)])),
    )
    assert (await client.wait_for(DATA, 1)).payload == message(b"hello")
    await client.echo(3)


async def test_ping_is_answered(client: Peer) -> None:
    await client.send(frame(PING, 0, 0, b"12345678"))
    assert (await client.wait_for(PING, flags=ACK)).payload == b"12345678"


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        (block(), window_update(1, 0)),
        (block(method=None), b""),
        (block(scheme=None), b""),
        (block(path=None), b""),
        (block(path=""), b""),
        (hpack.Encoder().encode([(":path", "/", True)]) + block(), b""),
        (block() + hpack.Encoder().encode([(":authority", "late", True)]), b""),
        (block() + hpack.Encoder().encode([(":status", "200", True)]), b""),
        (hpack.Encoder().encode([("Upper", "x", True)]) + block(), b""),
        (block() + hpack.Encoder().encode([("with space", "x", True)]), b""),
        (block(grpc_timeout=" 1S"), b""),
        (block(value="x\ny"), b""),
        (block(connection="close"), b""),
        (block(te="gzip"), b""),
        (block(content_length="x"), b""),
        (block(content_length="1" * 19), b""),
        (block(content_length="1" * 5_000), b""),
        (block(content_length="3"), frame(DATA, 0, 1, message(b"hello"))),
        (block(), frame(HEADERS, END_HEADERS, 1, b"")),
        (block(), frame(HEADERS, END_HEADERS | END_STREAM, 1, block())),
    ],
)
async def test_malformed_requests_end_their_stream_alone(
    client: Peer, headers: bytes, rest: bytes
) -> None:
    await client.send(frame(HEADERS, END_HEADERS, 1, headers), rest)
    assert await client.reset(1) is PROTOCOL
    # What is still on its way is nothing to anybody.
    await client.send(frame(DATA, 0, 1, b"late"), frame(HEADERS, END_HEADERS | END_STREAM, 1, b""))
    await client.is_silent()
    await client.echo(3)


@pytest.mark.parametrize("length", ["9", "11"])
async def test_the_content_length_must_be_right(client: Peer, length: str) -> None:
    await client.call(1, headers=block(content_length=length))
    assert await client.reset(1) is PROTOCOL
    await client.call(3, headers=block(content_length="10"))
    assert (await client.status(3))["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(DATA, 0, 1, b"x"), CLOSED),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, b""), CLOSED),
        (window_update(1, 2**31 - 1), FLOW),
        (frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    ],
)
async def test_what_ends_a_stream_cancels_its_handler(
    served: Served, client: Peer, sent: bytes, code: ErrorCode
) -> None:
    await client.call(1, headers=block(path=f"/{SERVICE}/Wait"))
    await served.handlers.running.wait()
    await client.send(sent)
    assert await client.reset(1) is code
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)
    await client.echo(3)


async def test_data_after_the_end_of_a_stream(client: Peer) -> None:
    await client.echo(1)
    await client.send(frame(DATA, 0, 1, b"x"))
    assert await client.reset(1) is CLOSED
    await client.echo(3)


async def test_a_lost_connection_cancels_its_handlers(served: Served) -> None:
    async with peer(served) as client:
        await client.call(1, headers=block(path=f"/{SERVICE}/Wait"))
        await served.handlers.running.wait()
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)
    await until("its end", lambda: not served.server.load.calls)


@pytest.mark.parametrize(
    ("headers", "content", "http_status", "grpc_status"),
    [
        (block(content_type="application/json"), message(b""), "415", "3"),
        (block(content_type="application/grpc-web"), message(b""), "415", "3"),
        (block(content_type=None), message(b""), "415", "3"),
        (block(method="GET"), b"", "405", "13"),
        (block(content_type="application/grpc+proto"), message(b""), "200", "0"),
        (block(path="/nobody/Has"), message(b""), "200", "12"),
        (block(grpc_encoding="br"), message(b"", 1), "200", "12"),
        (block(grpc_timeout="5"), message(b""), "200", "13"),
        (block(grpc_timeout="123456789S"), message(b""), "200", "13"),
        (block(grpc_timeout="99999999H"), message(b""), "200", "0"),
        (block(grpc_timeout="0n", path=f"/{SERVICE}/Wait"), message(b""), "200", "4"),
        (block(own_bin="!"), message(b""), "200", "13"),
        (block(), b"", "200", "13"),
        (block(), message(b"x")[:-1], "200", "13"),
        (block(), message(b"x")[:3], "200", "13"),
        (block(), message(b"x") * 2, "200", "13"),
        (block(), message(b"x", 2), "200", "13"),
        (block(), message(b"x", 1), "200", "13"),
        (block(grpc_encoding="gzip"), message(b"x", 1), "200", "13"),
        (block(), struct.pack(">BI", 0, MESSAGE_BYTES_MAX + 1), "200", "8"),
        (block(path=f"/{SERVICE}/Measure"), message(b"x")[:-1], "200", "13"),
        (block(path=f"/{SERVICE}/Measure"), message(b"x") + message(b"x", 2), "200", "13"),
        (block(path=f"/{SERVICE}/Measure"), b"", "200", "0"),
    ],
)
async def test_what_is_not_grpc_is_answered_as_the_protocol_says(
    client: Peer, headers: bytes, content: bytes, http_status: str, grpc_status: str
) -> None:
    await client.send(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, END_STREAM, 1, content))
    first = await client.wait_for(HEADERS, 1)
    told = client.fields(first)
    assert told[":status"] == http_status
    assert told["content-type"] == "application/grpc"
    if not first.flags & END_STREAM:
        told = await client.status(1)
    assert told["grpc-status"] == grpc_status
    await client.echo(3)


async def test_no_field_of_an_answer_begins_or_ends_with_a_space(client: Peer) -> None:
    await client.call(1, b" why ", block(path=f"/{SERVICE}/Abort"))
    assert (await client.status(1))["grpc-message"] == "%20why%20"
    fields = hpack.Decoder().decode(header_block([("one", " a b "), ("two", " ")]), raw=True)
    assert [value for _, value in fields] == [b"a b", b""]


async def test_too_large_a_message_is_refused_before_it_comes(served: Served, client: Peer) -> None:
    sent = struct.pack(">BI", 0, MESSAGE_BYTES_MAX + 1) + bytes(1_000)
    await client.send(OPEN, frame(DATA, 0, 1, sent))
    assert (await client.status(1))["grpc-status"] == "8"
    # The client need not send the rest; what it has sent already is nothing to anybody.
    assert await client.reset(1) is ErrorCode.NO_ERROR
    await client.send(frame(DATA, 0, 1, sent))
    await client.is_silent()
    await client.echo(3)
    assert served.server.load.held_bytes == 0


async def test_blocks_are_remembered_only_of_clients_without_a_table(
    served: Served, client: Peer
) -> None:
    encoder = hpack.Encoder()
    first, second = encoder.encode(list(REQUEST)), encoder.encode(list(REQUEST))
    # Whose table is empty: it is remembered.
    await client.call(1, headers=first)
    assert (await client.status(1))["grpc-status"] == "0"
    async with peer(served, acknowledge=False) as other:
        # The same block fills this one's table, which the next one needs.
        for stream, headers in ((1, first), (3, second), (5, second)):
            await other.call(stream, headers=headers)
            assert (await other.status(stream))["grpc-status"] == "0"
        await other.send(frame(SETTINGS, ACK, 0))
        await other.call(7, headers=second)
        assert await other.goaway() is COMPRESSION
    await client.call(3, headers=second)
    assert await client.goaway() is COMPRESSION


def test_a_message_is_unpacked_no_further_than_it_may_be_large() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = b"".join(packer.compress(bytes(MESSAGE_BYTES_MAX)) for _ in range(8)) + packer.flush()
    tracemalloc.start()
    with pytest.raises(RefusedError, match="larger"):
        unpacked(packed, "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MESSAGE_BYTES_MAX


async def test_a_client_that_reads_nothing_is_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "IDLE_FRAMES_PER_S_MAX", 10**9)
    monkeypatch.setattr(connection, "STALLED_S_MAX", 10**9)
    async with peer(served) as client:
        client.transport.pause_reading()
        with pytest.raises(ConnectionError):
            while True:
                await client.send(frame(PING, 0, 0, bytes(8)) * 10_000)
    async with peer(served) as other:
        await other.echo(1)


async def test_a_client_that_takes_nothing_of_its_answers_is_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_S_MAX", 0.1)
    hello = PREFACE + settings_frame({4: 2**31 - 1}) + window_update(0, 2**30)
    async with peer(served, hello) as client:
        client.transport.pause_reading()
        await client.call(1, b"100000 10000", block(path=f"/{SERVICE}/Repeat"))
        await asyncio.wait_for(served.handlers.cancelled.wait(), 10)
        await until("its end", lambda: not served.server.connections)


async def test_streams_beyond_those_allowed_are_refused(
    client: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STREAMS_MAX", 1)
    await client.send(OPEN)
    await client.call(3)
    assert await client.reset(3) is ErrorCode.REFUSED_STREAM
    await client.send(frame(DATA, END_STREAM, 1, message(b"hello")))
    assert (await client.wait_for(DATA, 1)).payload == message(b"hello")


async def test_connections_beyond_those_allowed_are_refused(
    served: Served, client: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kit.http2.server.CONNECTIONS_MAX", 1)
    async with peer(served, acknowledge=False) as other:
        assert await other.goaway() is CALM
    await client.echo(1)


async def test_far_more_connections_than_those_allowed_are_closed_at_once(
    served: Served, client: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kit.http2.server.CONNECTIONS_MAX", 1)
    monkeypatch.setattr("services.kit.http2.server.TURNED_AWAY_MAX", 2)
    monkeypatch.setattr(connection, "LINGER_S", 10**9)
    async with AsyncExitStack() as several:
        for _ in range(2):
            told = await several.enter_async_context(peer(served, b"", acknowledge=False))
            assert (await told.wait_for(SETTINGS)).kind == SETTINGS
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.transport.abort()
        await until("their end", lambda: len(served.server.connections) == 3)
        await client.echo(1)
    await until("their end", lambda: len(served.server.connections) == 1)
    async with peer(served, acknowledge=False) as other:
        assert await other.goaway() is CALM


@pytest.mark.parametrize(
    "begun", [b"", PREFACE[:10], PREFACE, PREFACE + settings_frame({}) + BEGUN]
)
async def test_half_a_handshake_or_block_does_not_stay(
    served: Served, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_S_MAX", 0.1)
    async with peer(served, begun, acknowledge=False) as client:
        assert await client.goaway() is PROTOCOL


async def test_a_silent_client_is_asked_and_then_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENT_S_MAX", 0.1)
    async with peer(served) as client:
        asked = await client.wait_for(PING)
        await client.send(frame(PING, ACK, 0, asked.payload))
        await client.wait_for(PING)
        monkeypatch.setattr(connection, "PING_S_MAX", 0.1)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            while True:
                await client.next()


async def test_a_failure_of_one_look_is_not_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.kit.http2.server.LOOK_S", 0.01)
    looked = []

    def look(self: connection.Connection, now_s: float) -> None:
        looked.append(self)
        raise RuntimeError

    async with serving() as served, peer(served):
        with monkeypatch.context() as broken:
            broken.setattr(connection.Connection, "look", look)
            await until("another look", lambda: len(looked) > 1)


async def test_more_than_the_server_holds_is_refused(
    served: Served, client: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.kit.http2.call.HELD_BYTES_MAX", 10_000)
    half = struct.pack(">BI", 0, 20_000) + bytes(6_000)
    await client.send(OPEN, frame(DATA, 0, 1, half))
    await client.send(frame(HEADERS, END_HEADERS, 3, block()), frame(DATA, 0, 3, half))
    assert (await client.status(3))["grpc-status"] == "8"
    await client.send(number_frame(RST_STREAM, 1, 8))
    await client.echo(5)
    assert served.server.load.held_bytes == 0
