"""Nobody sends more than the other has room for, and nothing is lost by that."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.http2 import patience
from services.kit.http2.call import STREAM_WINDOW_BYTES, Call
from services.kit.http2.connection import WRITE_BUFFER_BYTES, Connection
from services.kit.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
    number_frame,
    settings_frame,
)
from tests.integration.kit.http2.h2_client import Client, Step, steps
from tests.integration.kit.http2.serving import (
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

WINDOW = 65_535
REPEAT = block(path=f"/{SERVICE}/Repeat")


async def sent_data(client: Peer, stream: int, size: int) -> bytes:
    """So many bytes of DATA."""
    content = b""
    while len(content) < size:
        found = await client.wait_for(DATA, stream)
        assert len(found.payload) <= FRAME_BYTES_MAX
        content += found.payload
    return content


async def test_an_answer_waits_for_its_streams_window(served: Served) -> None:
    async with peer(served, PREFACE + settings_frame({4: 10})) as client:
        await client.call(1, b"x" * 100)
        assert len(await sent_data(client, 1, 10)) == 10
        await client.is_silent()
        # Other streams have windows of their own.
        await client.call(3, b"x")
        assert await sent_data(client, 3, 6) == message(b"x")
        assert (await client.status(3))["grpc-status"] == "0"
        await client.send(number_frame(WINDOW_UPDATE, 1, 5))
        await sent_data(client, 1, 5)
        await client.send(settings_frame({4: 1_000}))
        await sent_data(client, 1, 90)
        assert (await client.status(1))["grpc-status"] == "0"


async def test_an_answer_waits_for_the_connections_window(served: Served) -> None:
    async with peer(served, PREFACE + settings_frame({4: 2**31 - 1})) as client:
        await client.call(1, b"x" * 60_000)
        await sent_data(client, 1, 60_005)
        await client.status(1)
        await client.call(3, b"x" * 10_000)
        await client.call(5, b"x" * 10_000)
        await sent_data(client, 3, WINDOW - 60_005)
        await client.wait_for(HEADERS, 5)
        await client.is_silent()
        await client.send(number_frame(WINDOW_UPDATE, 0, 2 * 10_005))
        assert (await client.status(3))["grpc-status"] == "0"
        assert (await client.status(5))["grpc-status"] == "0"


async def test_a_window_may_become_negative(served: Served) -> None:
    async with peer(served, PREFACE + settings_frame({4: 1_000})) as client:
        await client.call(1, b"x" * 3_000)
        await sent_data(client, 1, 1_000)
        await client.send(settings_frame({4: 0}), number_frame(WINDOW_UPDATE, 1, 1_000))
        await client.wait_for(4, flags=1)
        await client.is_silent()
        await client.send(number_frame(WINDOW_UPDATE, 1, 5))
        await sent_data(client, 1, 5)
        await client.send(settings_frame({4: 10_000}))
        await sent_data(client, 1, 2_000)
        assert (await client.status(1))["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("stream_window", "pushes"),
    # Its own window holds up each call: the connection's is nothing to it. And what one byte is
    # room for is one call's.
    [(0, 0), (2**31 - 1, 1)],
)
async def test_a_byte_of_room_is_no_work_for_all_that_wait(
    served: Served, monkeypatch: pytest.MonkeyPatch, stream_window: int, pushes: int
) -> None:
    pushed: list[Call] = []
    push = Call.push

    def pushing(call: Call) -> None:
        pushed.append(call)
        push(call)

    async with peer(served, PREFACE + settings_frame({4: stream_window})) as client:
        await client.call(1, b"x" * WINDOW)
        for stream in range(3, 103, 2):
            await client.call(stream, b"x")
        await client.wait_for(HEADERS, 101)
        monkeypatch.setattr(Call, "push", pushing)
        await client.send(window_update(0, 1) * 200)
        await client.send(frame(PING, 0, 0, bytes(8)))
        await client.wait_for(PING)
        assert len(pushed) == 200 * pushes
        # All of them had their turn.
        assert len(set(pushed)) == 51 * pushes
        await client.send(window_update(0, 2**20), settings_frame({4: 2**20}))
        for _ in range(51):
            await client.wait_for(HEADERS, flags=END_STREAM)
        assert not served.server.load.calls


async def test_a_slow_reader_holds_up_its_own_stream(served: Served, client: Peer) -> None:
    await client.call(1, b"1000 10000", REPEAT)
    await sent_data(client, 1, WINDOW)
    # One more than fits is with the server.
    assert served.handlers.given == 7
    await client.send(number_frame(WINDOW_UPDATE, 0, 1_000_000))
    await client.echo(3)
    assert served.handlers.given == 7
    await client.send(number_frame(WINDOW_UPDATE, 1, 10_005))
    await sent_data(client, 1, 10_005)
    await until("another", lambda: served.handlers.given == 8)
    await client.send(number_frame(RST_STREAM, 1, ErrorCode.CANCEL))
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)
    assert served.server.load.held_bytes == 0


async def test_a_socket_that_takes_nothing_holds_up_what_is_answered(served: Served) -> None:
    hello = PREFACE + settings_frame({4: 2**31 - 1}) + number_frame(WINDOW_UPDATE, 0, 2**30)
    async with peer(served, hello) as client:
        client.transport.pause_reading()
        await client.call(1, b"100000 10000", REPEAT)
        [connection] = served.server.connections
        await until("the socket to be full", lambda: connection.transport.get_write_buffer_size())
        for _ in range(20):
            unread = connection.transport.get_write_buffer_size()
            await client.send(frame(PING, 0, 0, bytes(8)))
            await until(
                "its answer",
                lambda: connection.transport.get_write_buffer_size() > unread,  # noqa: B023
            )
        assert connection.transport.get_write_buffer_size() < 3 * WRITE_BUFFER_BYTES
        assert served.handlers.given < 10_000
        client.transport.resume_reading()
        await sent_data(client, 1, 10_000 * served.handlers.given)


async def full_connection(served: Served, client: Peer) -> Connection:
    """Whose socket takes nothing more, by the answers of stream 1."""
    client.transport.pause_reading()
    await client.call(1, b"100000 10000", REPEAT)
    [connection] = served.server.connections
    await until("the socket to be full", lambda: connection.full)
    return connection


ROOMY = PREFACE + settings_frame({4: 2**31 - 1}) + number_frame(WINDOW_UPDATE, 0, 2**30)


async def test_no_answer_is_lost_on_a_client_that_reads_late(served: Served) -> None:
    refused = block(path=f"/{SERVICE}/Abort")
    async with peer(served, ROOMY) as client:
        connection = await full_connection(served, client)
        for stream in range(3, 1_003, 2):
            await client.call(stream, b"why" * 1_000, refused)
        await until("all to be answered", lambda: len(connection.ending) == 500)
        assert connection.transport.get_write_buffer_size() < 3 * WRITE_BUFFER_BYTES
        client.transport.resume_reading()
        for _ in range(500):
            found = await client.wait_for(HEADERS, flags=END_STREAM)
            assert client.fields(found)["grpc-status"] == "10"
        await client.send(number_frame(RST_STREAM, 1, ErrorCode.CANCEL))
        await until("their end", lambda: not served.server.load.calls)


async def test_a_refused_call_does_not_run_while_its_answer_waits(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with peer(served, ROOMY) as client:
        connection = await full_connection(served, client)
        monkeypatch.setattr("services.kit.http2.connection.CALLS_RUNNING_MAX", 1)
        await client.call(3, b"x")
        await client.call(5, b"x", block(path="/nobody/Has"))
        await until("their refusals", lambda: len(connection.ending) == 2)
        await until("all to have come", lambda: all(call.ended for call in connection.ending))
        assert not served.handlers.contexts
        client.transport.resume_reading()
        assert (await client.status(3))["grpc-status"] == "8"
        assert (await client.status(5))["grpc-status"] == "12"


async def test_a_deadline_is_told_once_there_is_room(served: Served) -> None:
    path = f"/{SERVICE}/Wait"
    async with peer(served, ROOMY) as client:
        connection = await full_connection(served, client)
        await client.call(3, b"x", block(path=path, grpc_timeout="100m"))
        await until("its end", lambda: len(connection.ending) == 1)
        await asyncio.wait_for(served.handlers.cancelled.wait(), 5)
        client.transport.resume_reading()
        # Not how its handler ended afterwards.
        assert (await client.status(3))["grpc-status"] == "4"


async def test_what_is_stopped_is_told_so_once_there_is_room(served: Served) -> None:
    path = f"/{SERVICE}/Wait"
    async with peer(served, ROOMY) as client:
        connection = await full_connection(served, client)
        await client.call(3, b"x", block(path=path))
        await served.handlers.running.wait()
        stopping = asyncio.create_task(served.server.stop(0.0))
        await until("its end", lambda: bool(connection.ending))
        client.transport.resume_reading()
        assert (await client.status(3))["grpc-status"] == "14"
        await client.reader.read()
        client.writer.close()
        await asyncio.wait_for(stopping, 5)


async def test_a_handler_that_does_not_read_holds_up_its_caller(
    served: Served, client: Peer
) -> None:
    path = f"/{SERVICE}/First"
    await client.send(frame(HEADERS, END_HEADERS, 1, block(path=path)))
    content = message(b"x" * 16_000)
    fitting = STREAM_WINDOW_BYTES // len(content)
    await client.send(*[frame(DATA, 0, 1, content)] * fitting)
    await served.handlers.running.wait()
    await client.is_silent()
    assert served.handlers.taken == 1
    # Who sends more all the same is told so.
    await client.send(frame(DATA, 0, 1, content), frame(DATA, 0, 1, content))
    assert await client.reset(1) is ErrorCode.FLOW_CONTROL_ERROR
    await client.echo(3)
    assert served.server.load.held_bytes == 0


async def test_a_stream_of_requests_goes_on_as_they_are_taken(served: Served, client: Peer) -> None:
    await client.send(frame(HEADERS, END_HEADERS, 1, block(path=f"/{SERVICE}/Measure")))
    content = message(b"x" * 16_000)
    room = STREAM_WINDOW_BYTES
    for _ in range(200):
        if room < len(content):
            update = await client.wait_for(WINDOW_UPDATE, 1)
            room += int.from_bytes(update.payload, "big")
        await client.send(frame(DATA, 0, 1, content))
        room -= len(content)
    await client.send(frame(DATA, END_STREAM, 1))
    assert await sent_data(client, 1, 12) == message(b"3200000")


async def test_what_does_not_fit_into_a_window_is_dropped_at_the_deadline(served: Served) -> None:
    timed = block(grpc_timeout="200m")
    async with peer(served, PREFACE + settings_frame({4: 0})) as client:
        await client.call(1, b"x", timed)
        # Nothing of the message was sent, so there is room for what happened.
        assert (await client.status(1))["grpc-status"] == "4"
    async with peer(served, PREFACE + settings_frame({4: 5})) as client:
        await client.call(1, b"x", timed)
        assert await client.reset(1) is ErrorCode.CANCEL
    await until("their end", lambda: not served.server.load.calls)
    assert served.server.load.held_bytes == 0


@settings(max_examples=60)
@given(steps=steps())
async def test_every_call_is_answered_whatever_else_a_client_does(steps: list[Step]) -> None:
    async with serving() as served:
        client = await Client.connect(served.port)
        for step in steps:
            await client.do(step)
        await client.finish()
        for stream, content in client.expected.items():
            assert client.answers[stream] == (message(content), "0")
        await client.close()
        await until("the end", lambda: not served.server.load.calls)
        assert served.server.load.held_bytes == 0


FRAMES = st.builds(
    lambda kind, flags, stream, payload: frame(kind, flags, stream, payload),
    st.one_of(st.integers(0, 10), st.integers(0, 255)),
    st.sampled_from([0, 1, 4, 5, 8, 12, 0x20, 0x24, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 + 1]),
    st.one_of(
        st.binary(max_size=40),
        st.just(block()),
        st.just(message(b"hello")),
        st.sampled_from([bytes(4), bytes(8), (1).to_bytes(4, "big")]),
    ),
)


@settings(max_examples=300)
@given(sent=st.lists(FRAMES, max_size=20), chunk=st.integers(1, 100))
async def test_no_frames_bring_the_server_out_of_step(sent: list[bytes], chunk: int) -> None:
    async with serving() as served:
        async with peer(served) as client:
            raw = b"".join(sent)
            for at in range(0, len(raw), chunk):
                client.writer.write(raw[at : at + chunk])
                await asyncio.sleep(0)
            client.writer.write_eof()
            while head := await client.reader.read(9):
                size = int.from_bytes(head[:3], "big")
                content = await client.reader.readexactly(size)
                if head[3] == GOAWAY:
                    code = ErrorCode(int.from_bytes(content[4:8], "big"))
                    assert code is not ErrorCode.INTERNAL_ERROR
        async with peer(served) as other:
            await other.echo(1)
        await until("the end", lambda: not served.server.load.calls)
        assert served.server.load.held_bytes == 0


@pytest.mark.parametrize("answers", [b"50 100000", b"10000 10"], ids=["large", "small"])
async def test_who_takes_much_may_give_back_every_bit_of_it(
    answers: bytes, client: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As HAProxy does, up to four times for a frame."""
    monkeypatch.setattr(patience, "IDLE_FRAMES_PER_S_MAX", 50)
    await client.call(1, answers, REPEAT)
    while (found := await client.next()).kind != HEADERS or not found.flags & END_STREAM:
        assert found.kind != GOAWAY, found.payload
        half = len(found.payload) // 2
        if found.kind == DATA and half:
            await client.send(*(window_update(stream, half) for stream in (0, 0, 1, 1)))
    assert client.fields(found)["grpc-status"] == "0"


async def test_who_takes_a_byte_at_a_time_is_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    hello = PREFACE + settings_frame({4: 1})
    async with peer(served, hello) as client:
        monkeypatch.setattr(patience, "IDLE_FRAMES_PER_S_MAX", 50)
        await client.call(1, b"1 100000", REPEAT)
        await client.send(*[window_update(1, 1)] * 100)
        assert await client.goaway() is ErrorCode.ENHANCE_YOUR_CALM
