"""One connection: frames in, frames out, and the bounds of what a client may do to it."""

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import quote

import structlog
from grpc import StatusCode

from services.kit.http2 import frames, headers
from services.kit.http2.call import STREAM_WINDOW_BYTES, Call, Load
from services.kit.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
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
    StreamFailure,
)
from services.kit.http2.headers import (
    METADATA_BYTES_MAX,
    HeaderDecoder,
    Heads,
    RefusedError,
    RequestHead,
)
from services.kit.http2.patience import (
    CALLS_RUNNING_MAX,
    SETTINGS_AS_IDLE_FRAMES,
    WATCHES_MAX,
    Patience,
)

log = structlog.get_logger()

# More than the watches that one gateway may have open, and fewer than all, so that one client
# leaves room for others.
STREAMS_MAX: Final = 1_500
CONTINUATIONS_MAX: Final = 8
CONNECTION_WINDOW_BYTES: Final = 4 * 1024 * 1024
# What waits for the socket: of messages, and of all the rest before a client that reads nothing is
# left.
WRITE_BUFFER_BYTES: Final = 256 * 1024
WRITE_BUFFER_BYTES_MAX: Final = 4 * WRITE_BUFFER_BYTES
# Streams that were ended here while the client may still have been sending.
CUT_REMEMBERED_MAX: Final = 1_000
# Until the preface and SETTINGS have come; until a block of headers is whole; until a client that
# takes nothing of what waits for it is left.
HANDSHAKE_S_MAX: Final = 10.0
STALLED_S_MAX: Final = 60.0
# A client that says nothing for so long is asked, and has so long to answer.
SILENT_S_MAX: Final = 60.0
PING_S_MAX: Final = 20.0
# For a client to read the end of a connection, and to close it too.
LINGER_S: Final = 1.0
# For a client that has its answer to end what it sends. At once would be too soon: grpc's own
# client takes a stream that is ended before it has sent anything for a failure.
UNENDED_S_MAX: Final = 1.0
# Until a client that does not answer is told the last stream.
DRAIN_PING_S_MAX: Final = 1.0
_ARE_YOU_THERE: Final = b"silence?"
_DRAINING: Final = b"draining"

_HELLO: Final = frames.settings_frame(
    {
        frames.HEADER_TABLE_SIZE: 0,
        frames.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
        frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
        frames.MAX_HEADER_LIST_SIZE: METADATA_BYTES_MAX,
    }
) + frames.number_frame(WINDOW_UPDATE, 0, CONNECTION_WINDOW_BYTES - frames.WINDOW_BYTES_DEFAULT)
_ALL_RUNNING: Final = RefusedError(
    StatusCode.RESOURCE_EXHAUSTED, f"{CALLS_RUNNING_MAX} calls are running here; try again"
)
_ALL_WATCHED: Final = RefusedError(
    StatusCode.RESOURCE_EXHAUSTED, f"{WATCHES_MAX} streams without a key are open here; try again"
)


class Connection(asyncio.Protocol):
    """A client's. `joined` is told of it and may turn it away, `left` is told when it is gone."""

    transport: asyncio.Transport
    peer = ""
    # Whether so much waits for the socket that messages must wait; since when it takes nothing.
    full = False
    _full_s: float | None = None
    # Nothing that comes counts any more.
    _over = False
    _over_s = 0.0

    def __init__(
        self,
        load: Load,
        heads: Heads,
        joined: Callable[["Connection"], None],
        left: Callable[["Connection"], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.load = load
        self._heads = heads
        self._joined = joined
        self._left = left
        self.calls: dict[int, Call] = {}
        # Calls held up by the connection's window or the socket, in the order of their turn. What
        # its own stream's window holds up is not among them: it would be looked at for nothing.
        self.waiting: OrderedDict[Call, None] = OrderedDict()
        # Calls of which only the end is left, which needs no window: the socket holds them up.
        self.ending: OrderedDict[Call, None] = OrderedDict()
        self.send_window = frames.WINDOW_BYTES_DEFAULT
        # Of a new stream.
        self.stream_window = frames.WINDOW_BYTES_DEFAULT
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._window = CONNECTION_WINDOW_BYTES
        self._rest = b""
        self._decoder = HeaderDecoder()
        # A block of headers of which frames are missing: stream, flags of its first frame.
        self._block: bytearray | None = None
        self._block_of = (0, 0)
        self._continuations = 0
        self._last_stream = 0
        # Of those that a GOAWAY may name: once said, it is never a later one.
        self._last_served = STREAM_MASK
        self._cut: dict[int, None] = {}
        # 0: running; 1: the client knows that it ends; 2: newer streams are refused.
        self._draining = 0
        self._heard_s = self.loop.time()
        # Since when the handshake, or the rest of a block of headers, is awaited.
        self._awaited_s: float | None = self._heard_s
        self._greeted = False
        self._settled = False
        self.patience = Patience()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        # uvloop's transports are asyncio.Transports in all but their class.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.peer = peer_name(transport.get_extra_info("peername"))
        self.write(_HELLO)
        self._joined(self)

    def data_received(self, data: bytes) -> None:
        """asyncio calls this."""
        if self._over:
            return
        self._heard_s = self.loop.time()
        try:
            self._take_frames(self._rest + data if self._rest else data)
        except ConnectionFailure as failure:
            self._fail(failure)
        except Exception:
            log.exception("connection_failed", peer=self.peer)
            self._fail(ConnectionFailure(ErrorCode.INTERNAL_ERROR, ""))

    def pause_writing(self) -> None:
        """asyncio calls this."""
        self.full, self._full_s = True, self.loop.time()

    def resume_writing(self) -> None:
        """asyncio calls this."""
        self.full, self._full_s = False, None
        self._push_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio calls this."""
        self._over = True
        self._lose_calls()
        self._left(self)

    # Frames in.

    def _take_frames(self, data: bytes) -> None:
        at, size = 0, len(data)
        if not self._greeted:
            if not data.startswith(PREFACE[:size]):
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "this is HTTP/2 only")
            if size >= len(PREFACE):
                self._greeted = True
                at = len(PREFACE)
        while size - at >= HEAD.size and self._greeted and not self._over:
            length_and_kind, flags, stream = HEAD.unpack_from(data, at)
            start = at + HEAD.size
            at = start + (length_and_kind >> 8)
            if at - start > FRAME_BYTES_MAX:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "too large a frame")
            if at > size:
                at = start - HEAD.size
                break
            stream &= STREAM_MASK
            try:
                self._take(length_and_kind & 0xFF, flags, stream, data[start:at])
            except StreamFailure as failure:
                self._reset(stream, failure.code)
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if not self._settled and (kind != SETTINGS or flags & ACK):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS must come first")
        if self._block is not None and (kind != CONTINUATION or stream != self._block_of[0]):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "headers were not finished")
        if kind == DATA:
            self._take_data(flags, stream, payload)
        elif kind == HEADERS:
            self._take_headers(flags, stream, payload)
        elif kind == CONTINUATION:
            self._take_continuation(flags, payload)
        else:
            self._take_other(kind, flags, stream, payload)

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        size, ended = len(payload), bool(flags & END_STREAM)
        self._window -= size
        if self._window < CONNECTION_WINDOW_BYTES // 2:
            # At once, so it never ends: streams hold back their own senders, not each other's.
            self.write(
                frames.number_frame(WINDOW_UPDATE, 0, CONNECTION_WINDOW_BYTES - self._window)
            )
            self._window = CONNECTION_WINDOW_BYTES
        payload = frames.without_padding(flags, payload)
        if not payload and not ended:
            self.patience.idle(self._heard_s, self._last_stream)
        if (call := self.calls.get(stream)) is not None:
            call.receive(payload, size, ended)
            return
        self._check_begun(stream)
        if stream not in self._cut:
            raise StreamFailure(ErrorCode.STREAM_CLOSED)
        if ended:
            del self._cut[stream]

    def _check_begun(self, stream: int) -> None:
        if not stream & 1 or stream > self._last_stream:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"stream {stream} has not begun")

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"{stream} is no client's stream")
        block = frames.without_padding(flags, payload)
        if flags & frames.WITH_PRIORITY:
            if len(block) < frames.PRIORITY_BYTES:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "no room for the priority")
            block = block[frames.PRIORITY_BYTES :]
        if flags & END_HEADERS:
            self._take_block(stream, block, bool(flags & END_STREAM))
        else:
            self._block, self._block_of = bytearray(block), (stream, flags)
            self._continuations = 0
            self._awaited_s = self._heard_s

    def _take_continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._continuations += 1
        self._block += payload
        if self._continuations > CONTINUATIONS_MAX or len(self._block) > headers.HEADERS_BYTES_MAX:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too long headers")
        if flags & END_HEADERS:
            block, self._block, self._awaited_s = bytes(self._block), None, None
            stream, first_flags = self._block_of
            self._take_block(stream, block, bool(first_flags & END_STREAM))

    def _take_block(self, stream: int, block: bytes, ended: bool) -> None:
        if stream > self._last_stream:
            self._begin(stream, block, ended)
            return
        # Whatever becomes of them: the next block may depend on them.
        fields = self._decoder.decode(block)
        if (call := self.calls.get(stream)) is not None:
            headers.check_trailers(fields)
            if not ended:
                raise StreamFailure(ErrorCode.PROTOCOL_ERROR)
            call.receive(b"", 0, True)
        elif stream not in self._cut:
            raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"stream {stream} has ended")

    def _begin(self, stream: int, block: bytes, ended: bool) -> None:
        self._last_stream = stream
        head = self._read(block)
        if self._draining == 2 or len(self.calls) >= STREAMS_MAX:
            raise StreamFailure(ErrorCode.REFUSED_STREAM)
        refusal = head.refusal
        if refusal is None and len(self.load.calls) >= CALLS_RUNNING_MAX:
            refusal = _ALL_RUNNING
        call = Call(self, stream, head)
        self.calls[stream] = call
        self.load.calls.add(call)
        if head.watch and refusal is None:
            if len(self.load.watches) >= WATCHES_MAX:
                refusal = _ALL_WATCHED
            self.load.watches.add(call)
        if refusal is not None:
            call.ended = ended
            call.refuse(refusal)
            return
        call.begin()
        if ended:
            call.receive(b"", 0, True)

    def _read(self, block: bytes) -> RequestHead:
        stateless = self._decoder.stateless
        if stateless and (head := self._heads.recall(block)) is not None:
            return head
        head = self._heads.read(self._decoder.decode(block))
        if stateless and head.refusal is None:
            self._heads.remember(block, head)
        return head

    def _take_other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._take_window_update(stream, payload)
        elif kind == RST_STREAM:
            self._take_reset(stream, payload)
        elif kind == SETTINGS:
            self._take_settings(flags, stream, payload)
        elif kind == PING:
            self._take_ping(flags, stream, payload)
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "clients promise nothing")
        elif kind == frames.GOAWAY and stream:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "GOAWAY is of no stream")
        elif kind == frames.PRIORITY and not stream:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PRIORITY is of a stream")
        else:
            # Of the client's GOAWAY nothing follows: it closes the connection when it likes.
            self.patience.idle(self._heard_s, self._last_stream)
            if kind == frames.PRIORITY and len(payload) != frames.PRIORITY_BYTES:
                raise StreamFailure(ErrorCode.FRAME_SIZE_ERROR)

    def _take_window_update(self, stream: int, payload: bytes) -> None:
        _check_size(payload, 4)
        self.patience.idle(self._heard_s, self._last_stream)
        increment = int.from_bytes(payload, "big") & STREAM_MASK
        if not stream:
            self.send_window += increment
            if not increment:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            if self.send_window > WINDOW_BYTES_LIMIT:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "too large a window")
            self._push_waiting()
        elif (call := self.calls.get(stream)) is not None:
            call.send_window += increment
            if not increment:
                raise StreamFailure(ErrorCode.PROTOCOL_ERROR)
            if call.send_window > WINDOW_BYTES_LIMIT:
                raise StreamFailure(ErrorCode.FLOW_CONTROL_ERROR)
            if call.has_unsent and call not in self.waiting:
                call.push()
        else:
            self._check_begun(stream)

    def _take_reset(self, stream: int, payload: bytes) -> None:
        _check_size(payload, 4)
        self._check_begun(stream)
        self._cut.pop(stream, None)
        if (call := self.calls.get(stream)) is None:
            self.patience.idle(self._heard_s, self._last_stream)
            return
        call.lose()
        self.patience.reset(self._heard_s, self._last_stream)

    def _take_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS are of no stream")
        if flags & ACK:
            _check_size(payload, 0)
            self._decoder.without_table()
            return
        if len(payload) % frames.SETTING_BYTES:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "half a setting")
        self.patience.idle(self._heard_s, self._last_stream, SETTINGS_AS_IDLE_FRAMES)
        self._settled, self._awaited_s = True, None
        # Answers are written as everybody takes them; only windows are the client's to choose.
        window = self.stream_window
        for name, value in struct.iter_unpack(">HI", payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > WINDOW_BYTES_LIMIT:
                    raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "too large a window")
                window = value
            elif name == frames.ENABLE_PUSH and value > 1:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
            elif name == frames.MAX_FRAME_SIZE and not (
                FRAME_BYTES_MAX <= value <= frames.FRAME_BYTES_LIMIT
            ):
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "no such MAX_FRAME_SIZE")
        self._change_windows(window)
        # What there is room for now follows it.
        self.write(frames.frame(SETTINGS, ACK, 0))

    def _change_windows(self, stream_window: int) -> None:
        grown = stream_window - self.stream_window
        self.stream_window = stream_window
        for call in self.calls.values():
            call.send_window += grown
            if call.send_window > WINDOW_BYTES_LIMIT:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "too large a window")
            if grown > 0 and call.has_unsent:
                self.waiting.setdefault(call)

    def _take_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PING is of no stream")
        _check_size(payload, 8)
        self.patience.idle(self._heard_s, self._last_stream)
        if not flags & ACK:
            self.write(frames.frame(PING, ACK, 0, payload))
        elif payload == _DRAINING:
            self._refuse_newer()

    # Silence.

    def look(self, now_s: float) -> None:
        """Ask, or leave, a client of whom nothing is heard; called every LOOK_S."""
        silent_s = now_s - self._heard_s
        if self._over:
            over_s = now_s - self._over_s
            unsent = self.transport.get_write_buffer_size() > 0
            if over_s > (STALLED_S_MAX if unsent else LINGER_S):
                self.transport.abort()
        elif self._awaited_s is not None and now_s - self._awaited_s > HANDSHAKE_S_MAX:
            self._fail(ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "too slow"))
        elif silent_s > SILENT_S_MAX + PING_S_MAX or (
            self._full_s is not None and now_s - self._full_s > STALLED_S_MAX
        ):
            self.transport.abort()
        elif silent_s > SILENT_S_MAX:
            # Until it answers, or is left.
            self.write(frames.frame(PING, 0, 0, _ARE_YOU_THERE))

    # Frames out.

    def write(self, data: bytes) -> None:
        """Together with what else is written in this turn of the loop."""
        if self._over:
            return
        if not self._unwritten:
            self.loop.call_soon(self._flush)
        self._unwritten.append(data)
        self._unwritten_bytes += len(data)
        if self._unwritten_bytes > WRITE_BUFFER_BYTES:
            self.full = True

    def _flush(self) -> None:
        data = b"".join(self._unwritten)
        self._unwritten.clear()
        self._unwritten_bytes = 0
        if self._over or not data:
            return
        self.full = self._full_s is not None
        self.transport.write(data)
        if self.full and self.transport.get_write_buffer_size() > WRITE_BUFFER_BYTES_MAX:
            self._over = True
            self.transport.abort()
        self._push_waiting()

    def write_block(self, stream: int, block: bytes, *, ended: bool) -> None:
        """Headers, in as many frames as they need."""
        kind, flags = HEADERS, END_STREAM if ended else 0
        while len(block) > FRAME_BYTES_MAX:
            self.write(frames.frame(kind, flags, stream, block[:FRAME_BYTES_MAX]))
            kind, flags, block = CONTINUATION, 0, block[FRAME_BYTES_MAX:]
        self.write(frames.frame(kind, flags | END_HEADERS, stream, block))

    def wait_for_room(self, call: Call) -> None:
        """It was sent what there was room for: the others come first."""
        self.waiting[call] = None
        self.waiting.move_to_end(call)

    def dequeue(self, call: Call) -> None:
        """It waits for nothing any more."""
        if self.waiting:
            self.waiting.pop(call, None)
        if self.ending:
            self.ending.pop(call, None)

    def _push_waiting(self) -> None:
        # Each that is pushed leaves, or takes the last of the room.
        while self.ending and not self.full:
            next(iter(self.ending)).push()
        while self.waiting and self.send_window > 0 and not self.full:
            next(iter(self.waiting)).push()

    def _reset(self, stream: int, code: ErrorCode) -> None:
        self.write(frames.number_frame(RST_STREAM, stream, code))
        call = self.calls.get(stream)
        if call is None or not call.ended:
            self._remember_cut(stream)
        if call is not None:
            call.lose()
        self.patience.reset(self._heard_s, self._last_stream)

    def forget(self, call: Call) -> None:
        """It is closed. A client that has not sent all of it need not."""
        self.calls.pop(call.stream, None)
        self.dequeue(call)
        if not call.ended:
            self._remember_cut(call.stream)
            self.loop.call_later(UNENDED_S_MAX, self._end_cut, call.stream)
        if self._draining == 2 and not self.calls:
            self._close()

    def _end_cut(self, stream: int) -> None:
        """The client had its answer long ago, and still has not ended what it sends."""
        if stream in self._cut:
            self.write(frames.number_frame(RST_STREAM, stream, ErrorCode.NO_ERROR))

    def _remember_cut(self, stream: int) -> None:
        if len(self._cut) >= CUT_REMEMBERED_MAX and stream not in self._cut:
            del self._cut[next(iter(self._cut))]
        self._cut[stream] = None

    # The end.

    def turn_away(self, *, told: bool) -> None:
        """There is no room for it. Told so, it stays until it has read that."""
        if told:
            self._fail(ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many connections"))
        else:
            self._over = True
            self.transport.abort()

    def drain(self) -> None:
        """Let what runs end, and take nothing new as soon as the client knows."""
        if self._over or self._draining:
            return
        self._draining = 1
        self.write(
            frames.goaway_frame(STREAM_MASK, ErrorCode.NO_ERROR)
            + frames.frame(PING, 0, 0, _DRAINING)
        )
        self.loop.call_later(DRAIN_PING_S_MAX, self._refuse_newer)

    def _refuse_newer(self) -> None:
        if self._over or self._draining != 1:
            return
        self._draining = 2
        self._last_served = self._last_stream
        self.write(frames.goaway_frame(self._last_stream, ErrorCode.NO_ERROR))
        if not self.calls:
            self._close()

    def end(self, error: RefusedError) -> None:
        """What still runs is refused; closes when the socket has taken that."""
        self._draining = 2
        for call in list(self.calls.values()):
            call.refuse(error)
        if not self.calls:
            self._close()

    def _fail(self, failure: ConnectionFailure) -> None:
        if self._over:
            return
        code, why = failure.code, failure.sentence
        log.warning("connection_refused", peer=self.peer, code=code.name, why=why)
        last_stream = min(self._last_stream, self._last_served)
        self.write(frames.goaway_frame(last_stream, code, why))
        self._close()
        self._lose_calls()

    def _close(self) -> None:
        """What the client still sends is read and forgotten: closed at once, the socket would take
        back what the client has not read yet.
        """
        if not self._over:
            self._flush()
            self._over, self._over_s, self._rest = True, self.loop.time(), b""
            self.transport.write_eof()

    def _lose_calls(self) -> None:
        for call in list(self.calls.values()):
            call.lose()


def _check_size(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"{len(payload)} bytes, not {size}")


def peer_name(address: object) -> str:
    """As gRPC writes it: "ipv4:10.0.0.1:5000", "ipv6:%5B::1%5D:5000"; "" of what is neither."""
    if not isinstance(address, tuple):
        return ""
    host, port = str(address[0]), address[1]
    if ":" not in host:
        return f"ipv4:{host}:{port}"
    if host.startswith("::ffff:") and "." in host:
        return f"ipv4:{host.removeprefix('::ffff:')}:{port}"
    return f"ipv6:{quote(f'[{host}]', safe=':')}:{port}"
