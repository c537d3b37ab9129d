"""A server of bytes with every kind of method, and a client that sends whatever it is told."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import hpack

from services.kit.grpc_server import Methods
from services.kit.http2 import frames
from services.kit.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
    settings_frame,
)
from services.kit.http2.server import Server

SERVICE = "test.Bytes"
WAIT_S = 10.0
REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"/{SERVICE}/Echo"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


@dataclass
class Handlers:
    """What a test's calls do, and what became of them."""

    running: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: list[Any] = field(default_factory=list)
    # How many answers of a stream were taken from its handler, and requests by it.
    given: int = 0
    taken: int = 0
    measured: list[int] = field(default_factory=list)

    async def echo(self, request: bytes, context: Any) -> bytes:
        self.contexts.append(context)
        return request

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.running.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        raise RuntimeError(request.decode())

    async def abort(self, request: bytes, context: Any) -> bytes:
        trailing = (("told-bin", b"\x00\xff"), ("told", "why"))
        await context.abort(grpc.StatusCode.ABORTED, request.decode(), trailing)
        raise AssertionError

    async def headers(self, request: bytes, context: Any) -> bytes:
        self.contexts.append(context)
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x01")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x02")))
        return request

    async def measure(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        total = 0
        async for request in requests:
            total += len(request)
            self.taken += 1
            self.running.set()
        self.measured.append(total)
        return str(total).encode()

    async def first(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for request in requests:
            self.taken += 1
            self.running.set()
            await self.go_on.wait()
            return request
        return b""

    async def repeat(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        count, size = (int(part) for part in request.split())
        try:
            for _ in range(count):
                self.given += 1
                yield b"x" * size
        finally:
            self.cancelled.set()

    async def write(self, request: bytes, context: Any) -> None:
        for number in range(int(request)):
            await context.write(str(number).encode())

    async def stubborn(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Does not end when it is cancelled."""
        async for request in requests:
            self.running.set()
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
            self.taken += len(request)
        self.measured.append(self.taken)
        return b""

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    def by_name(self) -> dict[str, Any]:
        return {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Abort": grpc.unary_unary_rpc_method_handler(self.abort),
            "Headers": grpc.unary_unary_rpc_method_handler(self.headers),
            "Measure": grpc.stream_unary_rpc_method_handler(self.measure),
            "First": grpc.stream_unary_rpc_method_handler(self.first),
            "Stubborn": grpc.stream_unary_rpc_method_handler(self.stubborn),
            "Repeat": grpc.unary_stream_rpc_method_handler(self.repeat),
            "Write": grpc.unary_stream_rpc_method_handler(self.write),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }


@dataclass
class Served:
    server: Server
    methods: Methods
    port: int
    handlers: Handlers

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(port: int = 0) -> AsyncIterator[Served]:
    handlers = Handlers()
    methods = Methods(lambda handler, _method: handler)
    methods.add_registered_method_handlers(SERVICE, handlers.by_name())
    server = Server(methods.find)
    port = await server.listen(f"127.0.0.1:{port}")
    yield Served(server, methods, port, handlers)
    await server.stop(0.0)


def message(content: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(content)) + content


def block(headers: Iterable[tuple[str, str]] = REQUEST, **changed: str | None) -> bytes:
    """Of literals; `path="/x"` changes, and None leaves out, a header."""
    names = {"path": ":path", "method": ":method", "scheme": ":scheme"}
    new = {names.get(name, name.replace("_", "-")): value for name, value in changed.items()}
    kept = [(name, new.pop(name, value)) for name, value in headers]
    found = [(name, value) for name, value in [*kept, *new.items()] if value is not None]
    # Marked as sensitive, they go into no table.
    return hpack.Encoder().encode([(name, value, True) for name, value in found])


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of GOAWAY or RST_STREAM."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4], "big")


@dataclass
class Peer:
    """A client that keeps no rule by itself, but that it has told its SETTINGS."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    decoder: hpack.Decoder = field(default_factory=hpack.Decoder)

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def next(self) -> Frame:
        async with asyncio.timeout(WAIT_S):
            head = await self.reader.readexactly(9)
            length_and_kind, flags, stream = frames.HEAD.unpack(head)
            payload = await self.reader.readexactly(length_and_kind >> 8)
        return Frame(length_and_kind & 0xFF, flags, stream, payload)

    async def wait_for(self, kind: int, stream: int | None = None, flags: int = 0) -> Frame:
        """The next frame that is one of these."""
        while True:
            found = await self.next()
            if (
                found.kind == kind
                and stream in (None, found.stream)
                and found.flags & flags == flags
            ):
                return found
            assert found.kind != GOAWAY or not found.code, ErrorCode(found.code)

    async def acknowledged(self) -> None:
        """Both sides know each other's SETTINGS."""
        await self.wait_for(SETTINGS, flags=ACK)
        await self.send(frame(SETTINGS, ACK, 0))

    async def call(
        self, stream: int, content: bytes = b"hello", headers: bytes | None = None
    ) -> None:
        await self.send(
            frame(HEADERS, END_HEADERS, stream, block() if headers is None else headers)
        )
        rest = message(content)
        while len(rest) > FRAME_BYTES_MAX:
            await self.send(frame(DATA, 0, stream, rest[:FRAME_BYTES_MAX]))
            rest = rest[FRAME_BYTES_MAX:]
        await self.send(frame(DATA, END_STREAM, stream, rest))

    @property
    def transport(self) -> asyncio.Transport:
        return cast(asyncio.Transport, self.writer.transport)

    def fields(self, found: Frame) -> dict[str, str]:
        """Of HEADERS."""
        decoded = self.decoder.decode(found.payload, raw=True)
        return {name.decode(): value.decode() for name, value in decoded}

    async def status(self, stream: int) -> dict[str, str]:
        """The headers that end the stream."""
        while True:
            found = await self.wait_for(HEADERS, stream)
            fields = self.fields(found)
            if found.flags & END_STREAM:
                return fields

    async def echo(self, stream: int) -> None:
        """A call that goes well."""
        await self.call(stream)
        answer = await self.wait_for(DATA, stream)
        assert answer.payload == message(b"hello")
        assert (await self.status(stream))["grpc-status"] == "0"

    async def is_silent(self) -> None:
        """Nothing is on its way but the answer to this PING."""
        await self.send(frame(PING, 0, 0, b"anything"))
        assert (await self.next()).payload == b"anything"

    async def goaway(self) -> ErrorCode:
        """Why the server ends the connection, which it then does."""
        while True:
            found = await self.next()
            if found.kind == GOAWAY:
                async with asyncio.timeout(WAIT_S):
                    assert await self.reader.read() == b""
                return ErrorCode(found.code)

    async def reset(self, stream: int) -> ErrorCode:
        """Why the server ends the stream."""
        return ErrorCode((await self.wait_for(RST_STREAM, stream)).code)


@asynccontextmanager
async def peer(
    served: Served, hello: bytes = PREFACE + settings_frame({}), acknowledge: bool = True
) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1 << 24)
    client = Peer(reader, writer)
    await client.send(hello)
    if acknowledge:
        await client.acknowledged()
    yield client
    writer.transport.abort()


def window_update(stream: int, increment: int) -> bytes:
    return frames.number_frame(WINDOW_UPDATE, stream, increment)
