"""Connections that a server, or a proxy before it, ends in good order while calls go on."""

import struct

import grpc
import pytest

from services.kit.http2 import client, frames
from services.kit.http2.frames import (
    DATA,
    END_STREAM,
    GOAWAY,
    RST_STREAM,
    ErrorCode,
    settings_frame,
)
from tests.integration.kit.http2.scripted import answer, asked, good, refused, scripted
from tests.integration.kit.http2.serving import SERVICE, Peer

ECHO = f"/{SERVICE}/Echo"
# Far longer than the deadlines of the calls.
NEVER_S = 600.0


def goaway(last_stream: int, code: ErrorCode = ErrorCode.NO_ERROR) -> bytes:
    return frames.frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, code))


async def one_call(peer: Peer) -> None:
    """As nginx does after keepalive_requests."""
    request = await asked(peer)
    await answer(peer, request.stream)
    await peer.send(goaway(request.stream))
    await peer.reader.read()


async def test_a_server_that_asks_for_another_connection_gets_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "RECONNECT_FIRST_S", NEVER_S)
    async with scripted(one_call) as (server, channel):
        for _ in range(5):
            assert await channel.call(ECHO, b"", 20.0, ()) == b"fine"
        assert server.connections >= 5


async def test_a_call_that_a_leaving_server_has_not_looked_at_is_made_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "RECONNECT_FIRST_S", NEVER_S)
    monkeypatch.setattr(client, "BACKOFF_FIRST_S", NEVER_S)

    async def leaving(peer: Peer) -> None:
        request = await asked(peer)
        await answer(peer, request.stream)
        await peer.wait_for(DATA, flags=END_STREAM)
        await peer.send(goaway(request.stream))
        await peer.reader.read()

    async with scripted(leaving, good) as (server, channel):
        for _ in range(2):
            assert await channel.call(ECHO, b"", 20.0, ()) == b"fine"
        assert server.connections == 2


async def test_a_refused_stream_is_made_again_at_once_and_but_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "BACKOFF_FIRST_S", NEVER_S)
    refusals = 1

    async def refusing(peer: Peer) -> None:
        await peer.send(settings_frame({}))
        left = refusals
        while True:
            request = await peer.wait_for(DATA, flags=END_STREAM)
            if left:
                left -= 1
                await peer.send(
                    frames.number_frame(RST_STREAM, request.stream, ErrorCode.REFUSED_STREAM)
                )
            else:
                await answer(peer, request.stream)

    async with scripted(refusing) as (_server, channel):
        assert await channel.call(ECHO, b"", 20.0, ()) == b"fine"
    refusals = 2
    async with scripted(refusing) as (_server, channel):
        error = await refused(channel.call(ECHO, b"", 20.0, ()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("code", [ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.INTERNAL_ERROR])
async def test_a_server_that_complains_is_not_asked_again_at_once(
    code: ErrorCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RECONNECT_FIRST_S", NEVER_S)

    async def complaining(peer: Peer) -> None:
        request = await asked(peer)
        await answer(peer, request.stream)
        await peer.send(goaway(request.stream, code))
        await peer.reader.read()

    async with scripted(complaining) as (server, channel):
        assert await channel.call(ECHO, b"", 20.0, ()) == b"fine"
        error = await refused(channel.call(ECHO, b"", 0.5, ()))
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert server.connections == 1
