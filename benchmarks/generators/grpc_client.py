"""Unary gRPC calls over a raw HTTP/2 connection: as little as a client can do.

RFC 9113 (frames), RFC 7541 (headers), and gRPC's "gRPC over HTTP2". Headers are sent as literals,
and the server is told to keep no table of them, so that of an answer's trailers nothing needs
decoding.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import cast

from grpc import StatusCode

from benchmarks.errors import BenchmarkError

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_CONTINUATION = 9
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
# Length and type, flags, stream.
_frame_head = struct.Struct(">IBI")
FRAME_BYTES_MAX = 16_384  # what every server takes
TEXT_CHARS_MAX = 126  # whose length is one byte
WINDOW_BYTES = 65_535  # until the server gives more
# What the server may send in all: nothing is given back to it.
RECEIVED_BYTES_MAX = 2**31 - 1
_NAMES = {str(code.value[0]): code.name for code in StatusCode}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return _frame_head.pack(len(payload) << 8 | kind, flags, stream) + payload


_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(
    (
        frame(
            _SETTINGS,
            0,
            0,
            struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, RECEIVED_BYTES_MAX),
        ),
        frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", RECEIVED_BYTES_MAX - WINDOW_BYTES)),
    )
)


def header_block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Literals that no table keeps. BenchmarkError for longer texts than TEXT_CHARS_MAX."""
    block = bytearray()
    for header in headers:
        block.append(0)
        for text in header:
            if len(text) > TEXT_CHARS_MAX:
                raise BenchmarkError(f"too long for a header: {text}")
            block.append(len(text))
            block += text.encode("ascii")
    return bytes(block)


def literal(block: bytes, name: str) -> str:
    """The value of a header in a block of literals, as far as TEXT_CHARS_MAX; "": there is none."""
    wanted = bytes((len(name),)) + name.encode()
    at = block.find(wanted) + len(wanted)
    if at < len(wanted):
        return ""
    length = block[at]
    start = at + 1
    return block[start : start + min(length, TEXT_CHARS_MAX)].decode("latin-1")


def refusal_of(trailers: bytes) -> str:
    """ "" of a call that went well, "NOT_FOUND: .." of another."""
    status = literal(trailers, "grpc-status")
    if status == "0":
        return ""
    return f"{_NAMES.get(status, status)}: {literal(trailers, 'grpc-message')}"


class Connection(asyncio.Protocol):
    """Calls `on_answer(begun_s, refusal)` for each call of `method` that was sent."""

    _transport: asyncio.Transport

    def __init__(
        self,
        method: str,
        metadata: Iterable[tuple[str, str]],
        on_answer: Callable[[float, str], None],
        on_lost: Callable[[Exception], None],
    ) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._headers = header_block(
            (
                (":method", "POST"),
                (":scheme", "http"),
                (":path", method),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                *metadata,
            )
        )
        self._begun_s: dict[int, float] = {}
        self._next_stream = 1
        self._received = b""
        self._window_bytes = WINDOW_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_HELLO)

    def send(self, request: bytes, begun_s: float) -> None:
        """Call; `begun_s` comes back with the answer. BenchmarkError for a request that does not
        fit into a frame, or that the server has given no room for.
        """
        message = b"\0" + len(request).to_bytes(4, "big") + request
        if len(message) > min(FRAME_BYTES_MAX, self._window_bytes):
            raise BenchmarkError(f"no room for a request of {len(request)} bytes")
        self._window_bytes -= len(message)
        stream = self._next_stream
        self._next_stream += 2
        self._begun_s[stream] = begun_s
        self._transport.write(
            frame(_HEADERS, _END_HEADERS, stream, self._headers)
            + frame(_DATA, _END_STREAM, stream, message)
        )

    def data_received(self, data: bytes) -> None:
        """asyncio calls this."""
        if self._received:
            data = self._received + data
        at, size = 0, len(data)
        while size - at >= _frame_head.size:
            length_and_kind, flags, stream = _frame_head.unpack_from(data, at)
            start = at + _frame_head.size
            end = start + (length_and_kind >> 8)
            if end > size:
                break
            kind = length_and_kind & 0xFF
            # Messages are not looked into.
            if kind != _DATA:
                self._take(kind, flags, stream, data[start:end])
            at = end
        self._received = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS and flags & _END_STREAM:
            self._on_answer(self._begun_s.pop(stream), refusal_of(payload))
        elif kind == _RST_STREAM and stream in self._begun_s:
            self._on_answer(self._begun_s.pop(stream), f"RST_STREAM: {payload.hex()}")
        elif kind == _WINDOW_UPDATE and not stream:
            self._window_bytes += int.from_bytes(payload, "big")
        elif kind in (_PING, _SETTINGS) and not flags & _ACK:
            self._transport.write(frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind in (_GOAWAY, _CONTINUATION):
            self._on_lost(BenchmarkError(f"frame {kind} of the server: {payload!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio calls this."""
        self._on_lost(BenchmarkError(f"the server closed the connection ({exc})"))

    def close(self) -> None:
        """Close at once."""
        self._transport.abort()
