"""Servers that do what a script says, and a channel to them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import hpack
import pytest

from services.kit.http2 import frames
from services.kit.http2.client import Channel
from services.kit.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame, settings_frame
from tests.integration.kit.http2.serving import Frame, Peer, message

OPENED = hpack.Encoder().encode(
    [(":status", "200", True), ("content-type", "application/grpc", True)]
)
ENDED = hpack.Encoder().encode([("grpc-status", "0", True)])
Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def channel_to(*addresses: str) -> AsyncIterator[Channel]:
    one = addresses[0] if len(addresses) == 1 else "ipv4:" + ",".join(addresses)
    channel = Channel(one)
    yield channel
    await channel.close()


async def refused(call: Awaitable[bytes]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


class Scripted:
    """A server that does to each connection what the next script says, and counts them."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        try:
            await reader.readexactly(len(frames.PREFACE))
            await script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[tuple[Scripted, Channel]]:
    server = Scripted(*scripts)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 24)
    async with channel_to(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}") as channel:
        yield server, channel
    listener.close()


async def asked(peer: Peer) -> Frame:
    """Greets, and waits for a whole request."""
    await peer.send(settings_frame({}))
    return await peer.wait_for(DATA, flags=END_STREAM)


async def answer(peer: Peer, stream: int, content: bytes = b"fine") -> None:
    await peer.send(
        frame(HEADERS, END_HEADERS, stream, OPENED),
        frame(DATA, 0, stream, message(content)),
        frame(HEADERS, END_HEADERS | END_STREAM, stream, ENDED),
    )


async def good(peer: Peer) -> None:
    await peer.send(settings_frame({}))
    await answer_all(peer)


async def answer_all(peer: Peer) -> None:
    while True:
        found = await peer.wait_for(DATA, flags=END_STREAM)
        await answer(peer, found.stream)


def ending(*parts: Callable[[int], bytes]) -> Script:
    """After the first request: what is sent, made of its stream's number; answers to others."""

    async def script(peer: Peer) -> None:
        request = await asked(peer)
        await peer.send(*(part(request.stream) for part in parts))
        await answer_all(peer)

    return script
