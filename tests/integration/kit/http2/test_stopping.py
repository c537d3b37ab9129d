"""A server that stops lets what runs end, for a while, and takes nothing new."""

import asyncio
from typing import Any

import grpc
import pytest

from services.kit.http2 import connection
from services.kit.http2.frames import ACK, DATA, GOAWAY, PING, ErrorCode, frame
from tests.integration.kit.http2.serving import SERVICE, Peer, Served, block, message, peer

WAIT = block(path=f"/{SERVICE}/Wait")
GRACE_S = 30.0


async def last_stream(client: Peer) -> int:
    """That a GOAWAY names, of a server which only stops."""
    while (found := await client.next()).kind != GOAWAY:
        assert found.kind != DATA
    assert found.code == ErrorCode.NO_ERROR
    return int.from_bytes(found.payload[:4], "big")


async def test_it_stops_in_two_steps(served: Served, client: Peer) -> None:
    await client.call(1, headers=WAIT)
    await served.handlers.running.wait()
    stopping = asyncio.create_task(served.server.stop(GRACE_S))
    assert await last_stream(client) == 2**31 - 1
    ping = await client.wait_for(PING)
    # As if the client did not know yet: it is served.
    await client.echo(3)
    await client.send(frame(PING, ACK, 0, ping.payload))
    assert await last_stream(client) == 3
    await client.call(5)
    assert await client.reset(5) is ErrorCode.REFUSED_STREAM
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", served.port)
    served.handlers.go_on.set()
    assert (await client.wait_for(DATA, 1)).payload == message(b"hello")
    assert (await client.status(1))["grpc-status"] == "0"
    assert await client.reader.read() == b""
    client.writer.close()
    await asyncio.wait_for(stopping, 5)
    assert not served.handlers.cancelled.is_set()


async def test_a_stream_that_was_refused_is_none_of_those_served(
    served: Served, client: Peer
) -> None:
    await client.call(1, headers=WAIT)
    await served.handlers.running.wait()
    stopping = asyncio.create_task(served.server.stop(GRACE_S))
    ping = await client.wait_for(PING)
    await client.send(frame(PING, ACK, 0, ping.payload))
    assert await last_stream(client) == 1
    await client.call(3)
    assert await client.reset(3) is ErrorCode.REFUSED_STREAM
    await client.send(frame(DATA, 0, 0))
    found = await client.next()
    while found.kind != GOAWAY:
        found = await client.next()
    assert found.code == ErrorCode.PROTOCOL_ERROR
    assert int.from_bytes(found.payload[:4], "big") == 1
    client.writer.close()
    await asyncio.wait_for(stopping, 5)


async def test_a_client_that_does_not_answer_is_told_all_the_same(
    served: Served, client: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DRAIN_PING_S_MAX", 0.1)
    await client.call(1, headers=WAIT)
    await served.handlers.running.wait()
    stopping = asyncio.create_task(served.server.stop(GRACE_S))
    assert await last_stream(client) == 2**31 - 1
    assert await last_stream(client) == 1
    served.handlers.go_on.set()
    assert (await client.status(1))["grpc-status"] == "0"
    client.writer.close()
    await asyncio.wait_for(stopping, 5)


async def test_what_outlasts_the_grace_is_unavailable_and_cancelled(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        wait: Any = channel.unary_unary(f"/{SERVICE}/Wait")
        call = asyncio.ensure_future(wait(b"", timeout=60))
        await served.handlers.running.wait()
        await served.server.stop(0.2)
        assert served.handlers.cancelled.is_set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_idle_clients_do_not_hold_it_up(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.address) as channel:
        echo: Any = channel.unary_unary(f"/{SERVICE}/Echo")
        assert await echo(b"x", timeout=5) == b"x"
        await asyncio.wait_for(served.server.stop(GRACE_S), 5)


async def test_a_client_that_does_not_close_is_left(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.1)
    async with peer(served) as client:
        stopping = asyncio.create_task(served.server.stop(GRACE_S))
        ping = await client.wait_for(PING)
        await client.send(frame(PING, ACK, 0, ping.payload))
        await asyncio.wait_for(stopping, 5)
