"""A connection to a server, from the client's side: calls out, answers in."""

import asyncio
import base64
import binascii
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import unquote

import grpc
import structlog
from grpc import StatusCode
from hpack import Decoder, HPACKError

from services.kit.grpc_client import KEEPALIVE_MS, MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, Metadata
from services.kit.http2 import frames, headers
from services.kit.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    GOAWAY,
    HEAD,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    STREAM_MASK,
    WINDOW_BYTES_LIMIT,
    WINDOW_UPDATE,
    ConnectionFailure,
    ErrorCode,
)
from services.kit.http2.messages import PREFIX

log = structlog.get_logger()

# Calls without an answer on one connection, be the server ready for more.
CALLS_MAX: Final = 1_000
# Room for the longest answer, so that no stream needs more; and for some at once.
STREAM_WINDOW_BYTES: Final = MESSAGE_BYTES_MAX + PREFIX.size
CONNECTION_WINDOW_BYTES: Final = 2 * STREAM_WINDOW_BYTES
# A server of which nothing is heard for so long is asked, and has so long to answer.
SILENT_S_MAX: Final = KEEPALIVE_MS / 1_000
PING_S_MAX: Final = 20.0
LOOK_S: Final = 5.0
# Of which nothing at all was heard for so long when a call's deadline passes, it is left.
DEAF_S_MAX: Final = 1.0
REMEMBERED_MAX: Final = 64
_ARE_YOU_THERE: Final = b"anybody?"

_HELLO: Final = b"".join(
    (
        PREFACE,
        frames.settings_frame(
            {
                frames.HEADER_TABLE_SIZE: 0,
                frames.ENABLE_PUSH: 0,
                frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                frames.MAX_HEADER_LIST_SIZE: METADATA_BYTES_MAX,
            }
        ),
        frames.number_frame(
            WINDOW_UPDATE, 0, CONNECTION_WINDOW_BYTES - frames.WINDOW_BYTES_DEFAULT
        ),
    )
)


def _literals(*fields: tuple[bytes, bytes]) -> bytes:
    block = bytearray()
    for name, value in fields:
        headers.append_literal(block, name, value)
    return bytes(block)


_OF_ALL_CALLS: Final = _literals((b"te", b"trailers"), (b"content-type", b"application/grpc"))


class AwayError(Exception):
    """The server is away: what became of a call is unknown, or nobody looked at it (`unseen`)."""

    def __init__(self, sentence: str, *, unseen: bool = False) -> None:
        super().__init__(sentence)
        self.unseen = unseen


@dataclass(slots=True)
class _Awaited:
    """A call that was sent. `unsent`: what there was no room for."""

    answer: asyncio.Future[bytes]
    begun_s: float
    send_window: int
    unsent: memoryview | None
    received: bytearray
    opened: bool = False


class ClientConnection(asyncio.Protocol):
    """`over` is called once, when it takes no more calls: when the server leaves or is gone."""

    _transport: asyncio.Transport

    def __init__(self, authority: str, over: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        # There is no table for either side, and a decoder wants to be told so.
        self._pseudo = headers.NO_TABLE + _literals(
            (b":method", b"POST"), (b":scheme", b"http"), (b":authority", authority.encode())
        )
        self._over = over
        # Done when the server has said its settings; AwayError when it will not.
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ready.add_done_callback(_look_at)
        # Whether calls may be made.
        self.open = False
        self._answered = False
        # Whether the server has answered calls and then asked in good order for another connection.
        self.told_to_leave = False
        self._calls: dict[int, _Awaited] = {}
        self._next_stream = 1
        self._streams_max = CALLS_MAX
        self._send_window = self._stream_window = frames.WINDOW_BYTES_DEFAULT
        self._window = CONNECTION_WINDOW_BYTES
        self._paused = False
        self._rest = b""
        self._decoder = Decoder(max_header_list_size=METADATA_BYTES_MAX)
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        # Blocks depend on nothing, as there is no table.
        self._remembered: dict[bytes, headers.Fields] = {}
        self._block: tuple[int, int, bytearray] | None = None
        self._heard_s = self._loop.time()
        self._asked_s: float | None = None
        self._looking: asyncio.TimerHandle | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_HELLO)
        self._looking = self._loop.call_later(LOOK_S, self._look)

    def data_received(self, data: bytes) -> None:
        """asyncio calls this."""
        self._heard_s, self._asked_s = self._loop.time(), None
        try:
            self._take_frames(self._rest + data if self._rest else data)
        except ConnectionFailure as failure:
            log.warning("server_left", code=failure.code.name, why=failure.sentence)
            self._transport.write(frames.goaway_frame(0, failure.code, failure.sentence))
            self._transport.close()
            self._lose(AwayError(failure.sentence))

    def pause_writing(self) -> None:
        """asyncio calls this."""
        self._paused = True

    def resume_writing(self) -> None:
        """asyncio calls this."""
        self._paused = False
        self._push_all()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio calls this."""
        self._lose(AwayError(f"the connection is lost ({exc})" if exc else "the server has left"))

    def abort(self, why: str) -> None:
        """Leave the server; calls without an answer fail."""
        self._transport.abort()
        self._lose(AwayError(why))

    def _lose(self, error: AwayError) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self.leave()
        for stream in list(self._calls):
            self._fail(stream, error)
        if not self.ready.done():
            self.ready.set_exception(error)

    def leave(self) -> None:
        """Make no more calls. Those without an answer may still get theirs."""
        if self.open or not self.ready.done():
            self.open = False
            self._over()

    # Calls.

    async def call(
        self, method: str, request: bytes, timeout_s: float, metadata: Metadata
    ) -> bytes:
        """The answer's message. grpc.aio.AioRpcError, AwayError; ValueError for such metadata."""
        if len(self._calls) >= self._streams_max:
            raise AwayError("too many calls are without an answer")
        timeout = f"{max(1, round(timeout_s * 1_000))}m"
        head = b"".join(
            (
                self._pseudo,
                _literals((b":path", method.encode()), (b"grpc-timeout", timeout.encode())),
                _OF_ALL_CALLS,
                headers.header_block(metadata),
            )
        )
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        if self._next_stream > STREAM_MASK:
            self.leave()
        answer: asyncio.Future[bytes] = self._loop.create_future()
        awaited = _Awaited(
            answer,
            self._loop.time(),
            self._stream_window,
            memoryview(PREFIX.pack(0, len(request)) + request),
            bytearray(),
        )
        self._calls[stream] = awaited
        self._write_head(stream, head)
        self._push(stream, awaited)
        timer = self._loop.call_later(timeout_s, self._expire, stream)
        try:
            return await answer
        finally:
            timer.cancel()
            if self._calls.pop(stream, None) is not None:
                # Its caller has gone.
                self._cut(stream)

    def _write_head(self, stream: int, block: bytes) -> None:
        kind = HEADERS
        while len(block) > FRAME_BYTES_MAX:
            self._transport.write(frames.frame(kind, 0, stream, block[:FRAME_BYTES_MAX]))
            kind, block = CONTINUATION, block[FRAME_BYTES_MAX:]
        self._transport.write(frames.frame(kind, END_HEADERS, stream, block))

    def _push(self, stream: int, call: _Awaited) -> None:
        """Send of the message what there is room for."""
        parts: list[bytes | memoryview] = []
        while call.unsent is not None and not self._paused:
            size = min(FRAME_BYTES_MAX, call.send_window, self._send_window, len(call.unsent))
            if size <= 0:
                break
            part, rest = call.unsent[:size], call.unsent[size:]
            call.send_window -= size
            self._send_window -= size
            call.unsent = rest if len(rest) else None
            flags = 0 if call.unsent is not None else END_STREAM
            parts += (HEAD.pack(size << 8 | DATA, flags, stream), part)
        if parts:
            self._transport.write(b"".join(parts))

    def _push_all(self) -> None:
        for stream, call in list(self._calls.items()):
            if call.unsent is not None:
                self._push(stream, call)

    def _expire(self, stream: int) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        self._fail(stream, rpc_error(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        if self._loop.time() - max(self._heard_s, call.begun_s) > DEAF_S_MAX:
            # The next call had better be made elsewhere.
            self.abort("nothing is heard of the server")
        else:
            self._cut(stream)

    def _cut(self, stream: int) -> None:
        """Nobody waits for the answer any more."""
        if not self._transport.is_closing():
            self._transport.write(frames.number_frame(RST_STREAM, stream, ErrorCode.CANCEL))

    def _fail(self, stream: int, error: Exception) -> None:
        call = self._calls.pop(stream)
        if not call.answer.done():
            call.answer.set_exception(error)

    # Frames in.

    def _take_frames(self, data: bytes) -> None:
        at, size = 0, len(data)
        while size - at >= HEAD.size:
            length_and_kind, flags, stream = HEAD.unpack_from(data, at)
            start = at + HEAD.size
            end = start + (length_and_kind >> 8)
            if end - start > FRAME_BYTES_MAX:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "too large a frame")
            if end > size:
                break
            at = end
            self._take(length_and_kind & 0xFF, flags, stream & STREAM_MASK, data[start:end])
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and (kind != CONTINUATION or stream != self._block[0]):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "headers were not finished")
        if not self.ready.done() and kind != SETTINGS:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS must come first")
        if kind == DATA:
            self._take_data(flags, stream, payload)
        elif kind == HEADERS:
            block = frames.without_padding(flags, payload)
            if flags & frames.WITH_PRIORITY:
                block = block[frames.PRIORITY_BYTES :]
            self._take_part(flags, (stream, flags, bytearray()), block)
        elif kind == CONTINUATION:
            if self._block is None:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
            self._take_part(flags, self._block, payload)
        elif kind == SETTINGS:
            self._take_settings(flags, payload)
        else:
            self._take_other(kind, flags, stream, payload)

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._window -= len(payload)
        if self._window < CONNECTION_WINDOW_BYTES // 2:
            self._transport.write(
                frames.number_frame(WINDOW_UPDATE, 0, CONNECTION_WINDOW_BYTES - self._window)
            )
            self._window = CONNECTION_WINDOW_BYTES
        call = self._calls.get(stream)
        if call is None:
            return
        call.received += frames.without_padding(flags, payload)
        if len(call.received) > STREAM_WINDOW_BYTES:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "too long an answer")
        if flags & END_STREAM:
            self._fail(stream, rpc_error(StatusCode.INTERNAL, "The answer has no status"))

    def _take_part(self, flags: int, block: tuple[int, int, bytearray], payload: bytes) -> None:
        """Of a block of headers: (stream, flags of its first frame, what was there before)."""
        stream, first_flags, before = block
        before += payload
        if len(before) > headers.HEADERS_BYTES_MAX:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too long headers")
        if not flags & END_HEADERS:
            self._block = block
            return
        self._block = None
        fields = self._decoded(bytes(before))
        call = self._calls.get(stream)
        if call is not None:
            self._take_fields(stream, call, fields, ended=bool(first_flags & END_STREAM))

    def _decoded(self, block: bytes) -> headers.Fields:
        fields = self._remembered.get(block)
        if fields is None:
            try:
                fields = list(self._decoder.decode(block, raw=True))
            except HPACKError as error:
                failure = ConnectionFailure(ErrorCode.COMPRESSION_ERROR, "headers can't be read")
                raise failure from error
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[block] = fields
        return fields

    def _take_fields(
        self, stream: int, call: _Awaited, fields: headers.Fields, *, ended: bool
    ) -> None:
        if not call.opened:
            status = dict(fields).get(b":status", b"").decode("latin-1")
            if status.startswith("1") and not ended:
                return  # There is more to come.
            call.opened = True
            if status != "200":
                # A proxy's, for a server of gRPC says 200.
                code = _OF_HTTP.get(status, StatusCode.UNKNOWN)
                self._fail(stream, rpc_error(code, f"HTTP status {status}"))
                if not ended:
                    self._cut(stream)
                return
        if not ended:
            return
        if call.unsent is not None:
            self._cut(stream)
        try:
            message = answer_of(fields, bytes(call.received))
        except grpc.aio.AioRpcError as error:
            self._fail(stream, error)
        else:
            del self._calls[stream]
            self._answered = True
            if not call.answer.done():
                call.answer.set_result(message)

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        if len(payload) % frames.SETTING_BYTES:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "half a setting")
        for name, value in struct.iter_unpack(">HI", payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > WINDOW_BYTES_LIMIT:
                    raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "too large a window")
                for call in self._calls.values():
                    call.send_window += value - self._stream_window
                self._stream_window = value
            elif name == frames.MAX_CONCURRENT_STREAMS:
                self._streams_max = min(CALLS_MAX, value)
        self._transport.write(frames.frame(SETTINGS, ACK, 0))
        if not self.ready.done():
            self.open = True
            self.ready.set_result(None)
        self._push_all()

    def _take_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._take_window_update(stream, _number(payload) & STREAM_MASK)
        elif kind == RST_STREAM:
            if stream in self._calls:
                code = _number(payload)
                refused = code == ErrorCode.REFUSED_STREAM
                error = AwayError(f"the server has ended the call ({code})", unseen=refused)
                self._fail(stream, error)
        elif kind == PING:
            if not flags & ACK:
                self._transport.write(frames.frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            if len(payload) < 8:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "half a GOAWAY")
            self.told_to_leave = self._answered and _number(payload[4:8]) == ErrorCode.NO_ERROR
            self.leave()
            last_stream = _number(payload[:4]) & STREAM_MASK
            for each in [each for each in self._calls if each > last_stream]:
                self._fail(each, AwayError("the server is leaving", unseen=True))
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "nothing may be pushed")

    def _take_window_update(self, stream: int, increment: int) -> None:
        if not stream:
            self._send_window += increment
            if self._send_window > WINDOW_BYTES_LIMIT:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "too large a window")
            self._push_all()
        elif (call := self._calls.get(stream)) is not None:
            call.send_window += increment
            if call.unsent is not None:
                self._push(stream, call)

    def _look(self) -> None:
        """Ask a server of which nothing is heard while calls wait for it, then leave it; and close
        what is left when all have their answers.
        """
        self._looking = self._loop.call_later(LOOK_S, self._look)
        now_s = self._loop.time()
        if self._calls:
            if self._asked_s is not None and now_s - self._asked_s > PING_S_MAX:
                self.abort("the server does not answer")
            elif self._asked_s is None and now_s - self._heard_s > SILENT_S_MAX:
                self._asked_s = now_s
                self._transport.write(frames.frame(PING, 0, 0, _ARE_YOU_THERE))
        elif self.ready.done() and not self.open:
            self._transport.abort()


def answer_of(fields: headers.Fields, received: bytes) -> bytes:
    """The only message of a call with these trailers; grpc.aio.AioRpcError: it was refused."""
    texts = dict(fields)
    status = texts.get(b"grpc-status", b"").decode("latin-1")
    if status != "0":
        details = unquote(texts.get(b"grpc-message", b"").decode("latin-1"))
        code = _CODES.get(status, StatusCode.UNKNOWN)
        raise rpc_error(code, details, _trailing(fields))
    if len(received) < PREFIX.size:
        raise rpc_error(StatusCode.INTERNAL, "The answer has no message")
    flag, length = PREFIX.unpack_from(received)
    if flag or length != len(received) - PREFIX.size:
        raise rpc_error(StatusCode.INTERNAL, "The answer is no single, plain message")
    return received[PREFIX.size :]


# As gRPC has it ("HTTP to gRPC Status Code Mapping").
_OF_HTTP: Final = {
    "400": StatusCode.INTERNAL,
    "401": StatusCode.UNAUTHENTICATED,
    "403": StatusCode.PERMISSION_DENIED,
    "404": StatusCode.UNIMPLEMENTED,
    "429": StatusCode.UNAVAILABLE,
    "502": StatusCode.UNAVAILABLE,
    "503": StatusCode.UNAVAILABLE,
    "504": StatusCode.UNAVAILABLE,
}
_CODES: Final = {str(code.value[0]): code for code in StatusCode}


def _trailing(fields: headers.Fields) -> Iterable[tuple[str, str | bytes]]:
    for name, value in fields:
        text = name.decode("latin-1")
        if text.startswith(":"):
            continue
        if not text.endswith("-bin"):
            yield text, value.decode("latin-1")
            continue
        try:
            yield text, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            log.warning("trailer_unreadable", name=text)


def rpc_error(
    code: StatusCode, details: str, trailing: Iterable[tuple[str, str | bytes]] = ()
) -> grpc.aio.AioRpcError:
    """As if grpc.aio had made the call: who handles its errors handles these."""
    metadata: Any = grpc.aio.Metadata(*trailing)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details)


def _number(payload: bytes) -> int:
    if len(payload) != 4:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"{len(payload)} bytes, not 4")
    return int.from_bytes(payload, "big")


def _look_at(ready: asyncio.Future[None]) -> None:
    """Nobody may be left who waits for it: then its error is not to be complained of."""
    if not ready.cancelled():
        ready.exception()
