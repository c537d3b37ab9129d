"""One call: what comes of it, the task that handles it, and what goes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
import structlog
from grpc import StatusCode

from services.kit.grpc_client import MESSAGE_BYTES_MAX
from services.kit.http2 import frames, headers
from services.kit.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEAD,
    HEADERS,
    ErrorCode,
    StreamFailure,
)
from services.kit.http2.headers import Metadata, RefusedError, RequestHead
from services.kit.http2.messages import PREFIX, Received, check_prefix, unpacked

if TYPE_CHECKING:
    from services.kit.http2.connection import Connection

log = structlog.get_logger()

# What a client may send of a call before its handler has taken any of it.
STREAM_WINDOW_BYTES: Final = 1024 * 1024
_GIVE_BACK_BYTES: Final = STREAM_WINDOW_BYTES // 2

# Until a message that is the whole request has come, and until a client has taken the answer: those
# who set no deadline, or one in a year, hold their place no longer.
REQUEST_S_MAX: Final = 60.0
ANSWER_S_MAX: Final = 60.0

# For the first of several messages to come, before the handler of a stream begins without it:
# grpc's own client takes a refusal that overtakes its first message for a failure.
FIRST_S_MAX: Final = 0.1

# An answer with one message and status OK, around the number of its stream.
_HEADERS_FRAME: Final = HEAD.pack(len(headers.OPENING) << 8 | HEADERS, END_HEADERS, 0)[:5]
_TRAILERS_FRAME: Final = HEAD.pack(
    len(headers.TRAILERS_OK) << 8 | HEADERS, END_HEADERS | END_STREAM, 0
)[:5]

# What all calls of a server hold of messages that are not whole, or that nobody takes.
HELD_BYTES_MAX: Final = 128 * 1024 * 1024


@dataclass
class Load:
    """What all connections of a server bear together."""

    calls: "set[Call]" = field(default_factory=set)
    # Those of them that may last for ever, and that anybody may begin.
    watches: "set[Call]" = field(default_factory=set)
    held_bytes: int = 0
    # For whoever waits until there are none.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self, call: "Call") -> None:
        """Nothing of the call is left."""
        self.calls.discard(call)
        self.watches.discard(call)
        if not self.calls:
            self.changed.set()


def held_too_much() -> RefusedError:
    """A call must end for what others hold."""
    return RefusedError(
        StatusCode.RESOURCE_EXHAUSTED, f"More than {HELD_BYTES_MAX} bytes wait here; try again"
    )


class Call:
    """A stream of HTTP/2 from its first headers on; to its handler it is what of
    grpc.aio.ServicerContext our interceptor, servicers, health and reflection use.

    It is closed when the client has nothing more to expect. The handler's task may outlive that: it
    is cancelled then, and counts until it ends.
    """

    # Whether the client has sent all.
    ended = False
    closed = False
    _task: asyncio.Task[None] | None = None
    # Whether the task has begun and not ended.
    _running = False
    _timer: asyncio.TimerHandle | None = None
    _deadline_s: float | None = None
    # Of its handler: for the next message, and for room for another answer.
    _arrived: asyncio.Future[None] | None = None
    _drained: asyncio.Future[None] | None = None
    _held_bytes = 0
    _taken_bytes = 0
    # Whether the answer's headers are sent; what is left of a message, and what follows it.
    _opened = False
    _unsent: memoryview | None = None
    _cut = False
    # The last block of headers; from when it is set nothing changes how the call ends but a
    # message before it that does not get through.
    _end: bytes | None = None
    _code: StatusCode | None = None
    _details = ""
    _trailing_block = b""

    def __init__(self, connection: "Connection", stream: int, head: RequestHead) -> None:
        self.stream = stream
        self._connection = connection
        self._head = head
        self._loop = connection.loop
        self._received = Received(head.encoding)
        self._window = STREAM_WINDOW_BYTES
        self.send_window = connection.stream_window
        if head.timeout_s is None:
            self._set_timer(REQUEST_S_MAX)
        else:
            self._deadline_s = self._loop.time() + head.timeout_s
            self._set_timer(min(head.timeout_s, REQUEST_S_MAX))

    # What comes.

    def begin(self) -> None:
        """All headers have come. A handler begins when the first message comes, or soon."""
        if self._head.handler.request_streaming:
            self._loop.call_later(FIRST_S_MAX, self._start_stream)

    def _start_stream(self) -> None:
        if self._task is None and not self.answered:
            self._start(_Requests(self))

    def receive(self, payload: bytes, size: int, ended: bool) -> None:
        """Of a DATA frame of `size` bytes. StreamFailure."""
        if self.ended:
            raise StreamFailure(ErrorCode.STREAM_CLOSED)
        self._window -= size
        if self._window < 0:
            raise StreamFailure(ErrorCode.FLOW_CONTROL_ERROR)
        self._taken_bytes += len(payload)
        self.ended = ended
        if self._end is not None:
            # It only waits for the client to take its answer.
            return
        length = self._head.content_length
        if length is not None and (
            self._taken_bytes > length or (ended and self._taken_bytes < length)
        ):
            raise StreamFailure(ErrorCode.PROTOCOL_ERROR)
        try:
            if self._head.handler.request_streaming:
                self._hold(payload)
                self._start_stream()
                if self._arrived is not None and not self._arrived.done():
                    self._arrived.set_result(None)
            elif ended:
                self._start(self._only_message(payload))
            else:
                self._hold(payload)
        except RefusedError as error:
            self.refuse(error)
        else:
            self._give_back()

    def _hold(self, payload: bytes) -> None:
        self._received.add(payload)
        self._count_held()
        if self._connection.load.held_bytes > HELD_BYTES_MAX:
            raise held_too_much()

    def _count_held(self) -> None:
        if not self.closed:
            held = len(self._received) + (len(self._unsent) if self._unsent else 0)
            self._connection.load.held_bytes += held - self._held_bytes
            self._held_bytes = held

    def _only_message(self, payload: bytes) -> bytes:
        """RefusedError unless there is just one."""
        if not self._held_bytes and len(payload) >= PREFIX.size:
            # All of it came in one frame, as nearly always.
            flag, length = PREFIX.unpack_from(payload)
            check_prefix(flag, length)
            if len(payload) == PREFIX.size + length:
                message = payload[PREFIX.size :]
                return unpacked(message, self._head.encoding) if flag else message
        self._hold(payload)
        if not self._received.has_one:
            raise RefusedError(StatusCode.INTERNAL, "The request has no message, or half of one")
        message = self._received.take()
        self._count_held()
        if self._held_bytes:
            raise RefusedError(StatusCode.INTERNAL, "The request has more than one message")
        return message

    def _give_back(self) -> None:
        """Let the client send more, unless a message lies here that nobody has taken."""
        owed = STREAM_WINDOW_BYTES - self._window
        if owed < _GIVE_BACK_BYTES or self.ended or self.closed or self._received.has_one:
            return
        self._connection.write(frames.number_frame(frames.WINDOW_UPDATE, self.stream, owed))
        self._window = STREAM_WINDOW_BYTES

    async def next_request(self) -> Any:
        """Of a stream of them; StopAsyncIteration when there are no more."""
        while not self._received.has_one:
            if self.answered:
                # Not all of them have come.
                raise asyncio.CancelledError
            if self.ended:
                if len(self._received):
                    self._refuse_from_within(
                        RefusedError(StatusCode.INTERNAL, "The last message is cut")
                    )
                raise StopAsyncIteration
            self._arrived = self._loop.create_future()
            await self._arrived
        try:
            message = self._received.take()
        except RefusedError as error:
            self._refuse_from_within(error)
        self._count_held()
        self._give_back()
        deserialize = self._head.handler.request_deserializer
        return deserialize(message) if deserialize else message

    def _refuse_from_within(self, error: RefusedError) -> NoReturn:
        """In the handler's task, which must not take it for something of its own."""
        self.refuse(error)
        raise asyncio.CancelledError

    # The handler.

    def _start(self, request: Any) -> None:
        if self._head.timeout_s is None or self._head.timeout_s > REQUEST_S_MAX:
            self._set_timer(self.time_remaining())
        self._task = self._loop.create_task(self._handle(request), name=self._head.method)

    async def _handle(self, request: Any) -> None:
        self._running = True
        handler = self._head.handler
        try:
            if not handler.request_streaming and handler.request_deserializer:
                request = self._deserialized(request)
            if handler.response_streaming:
                await self._answer_each(
                    (handler.unary_stream or handler.stream_stream)(request, self)
                )
                self._finish(None)
            else:
                answer = await (handler.unary_unary or handler.stream_unary)(request, self)
                self._finish(
                    self._serialized(answer) if self._code in (None, StatusCode.OK) else None
                )
        except grpc.aio.AbortError:
            self._finish(None)
        except RefusedError as error:
            self.refuse(error)
        except asyncio.CancelledError:
            # By whoever closed the call; or of its own accord.
            self._code, self._details = StatusCode.CANCELLED, "The handler was cancelled"
            self._finish(None)
            raise
        except Exception:
            log.exception("handler_failed", method=self._head.method)
            if self._code in (None, StatusCode.OK):
                self._code, self._details = (
                    StatusCode.UNKNOWN,
                    "Something went wrong here; it was logged",
                )
            self._finish(None)
        finally:
            self._running = False
            if self.closed:
                self._connection.load.leave(self)

    def _deserialized(self, message: bytes) -> Any:
        try:
            return self._head.handler.request_deserializer(message)
        except Exception as error:
            raise RefusedError(StatusCode.INTERNAL, "Exception deserializing request!") from error

    def _serialized(self, answer: Any) -> bytes:
        serialize = self._head.handler.response_serializer
        message: bytes = serialize(answer) if serialize else answer
        if len(message) > MESSAGE_BYTES_MAX:
            raise RefusedError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"Sent message larger than max ({len(message)} vs. {MESSAGE_BYTES_MAX})",
            )
        return message

    async def _answer_each(self, made: Any) -> None:
        """`made` is what iterates over the answers, or what writes them itself."""
        if not hasattr(made, "__aiter__"):
            await made
            return
        async with aclosing(made) if hasattr(made, "aclose") else nullcontext():
            async for answer in made:
                await self.write(answer)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        self.refuse(RefusedError(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    # What goes back.

    def _finish(self, message: bytes | None) -> None:
        """The handler has ended."""
        if self.answered:
            return
        code = self._code or StatusCode.OK
        if code is StatusCode.OK and not self._trailing_block and not self._details:
            if message is not None and self._send_at_once(message):
                return
            end = headers.TRAILERS_OK
        else:
            end = headers.trailers(code, self._details, self._trailing_block)
        self._send_end(message, end)

    def _send_at_once(self, message: bytes) -> bool:
        """Headers, the only message and trailers in one write, when there is room for it."""
        size = PREFIX.size + len(message)
        connection = self._connection
        if self._opened or size > FRAME_BYTES_MAX or size > self.send_window:
            return False
        if size > connection.send_window or connection.full:
            return False
        connection.send_window -= size
        stream = self.stream.to_bytes(4, "big")
        connection.write(
            b"".join(
                (
                    _HEADERS_FRAME,
                    stream,
                    headers.OPENING,
                    HEAD.pack(size << 8 | DATA, 0, self.stream),
                    PREFIX.pack(0, len(message)),
                    message,
                    _TRAILERS_FRAME,
                    stream,
                    headers.TRAILERS_OK,
                )
            )
        )
        self._close()
        return True

    def _send_end(self, message: bytes | None, end: bytes, http_status: int = 200) -> None:
        """`message`, if any, and the status after it."""
        if message is None and not self._opened:
            self._opened = True
            self._end = headers.only_trailers(http_status, end)
            self.push()
        elif message is None:
            self._end = end
            self.push()
        else:
            self._open()
            self._end = end
            self._send(message)
        if not self.closed:
            self._set_timer(self._answer_s())

    def _answer_s(self) -> float | None:
        """For the client to take what is left; an end alone waits as long as its socket may."""
        if self._unsent is None:
            return None
        remaining_s = self.time_remaining()
        return ANSWER_S_MAX if remaining_s is None else min(remaining_s, ANSWER_S_MAX)

    def _send(self, message: bytes) -> None:
        """As much as there is room for now."""
        self._unsent = memoryview(PREFIX.pack(0, len(message)) + message)
        self.push()
        if self._unsent is not None:
            self._count_held()
            if self._connection.load.held_bytes > HELD_BYTES_MAX:
                self._refuse_from_within(held_too_much())

    def _open(self, block: bytes = b"") -> None:
        if not self._opened:
            self._opened = True
            self._connection.write_block(self.stream, headers.OPENING + block, ended=False)

    @property
    def answered(self) -> bool:
        """Whether it is settled how the call ends."""
        return self.closed or self._end is not None

    @property
    def has_unsent(self) -> bool:
        """Whether some of a message is still to be sent."""
        return self._unsent is not None

    def push(self) -> None:
        """Send what there is room for. What does not fit now is sent when the client, or the
        socket, takes more.
        """
        connection = self._connection
        while self._unsent is not None:
            if self.send_window <= 0:
                # Until the client lets this stream send more.
                connection.dequeue(self)
                return
            if connection.send_window <= 0 or connection.full:
                connection.wait_for_room(self)
                return
            room = min(FRAME_BYTES_MAX, self.send_window, connection.send_window)
            part, rest = self._unsent[:room], self._unsent[room:]
            self.send_window -= len(part)
            connection.send_window -= len(part)
            self._cut = bool(rest)
            self._unsent = rest or None
            connection.write(frames.frame(DATA, 0, self.stream, part))
            connection.patience.sent(len(part), whole=not rest)
        connection.dequeue(self)
        self._count_held()
        self._wake_writers()
        if self._end is None:
            return
        if connection.full:
            connection.ending[self] = None
        else:
            connection.write_block(self.stream, self._end, ended=True)
            self._close()

    def _wake_writers(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def refuse(self, error: RefusedError) -> None:
        """End the call with this status, whatever its handler does."""
        if self.closed or (self._end is not None and self._unsent is None):
            return
        self._connection.dequeue(self)
        self._unsent = None
        if self._cut:
            # Of a message of which some is sent nothing but this can be said.
            self._connection.write(
                frames.number_frame(frames.RST_STREAM, self.stream, ErrorCode.CANCEL)
            )
            self.ended = True
            self._close()
        else:
            self._send_end(None, headers.trailers(error.code, error.details), error.http_status)
        self._cancel()

    def lose(self) -> None:
        """The client is gone, or has ended the stream: nothing is sent any more."""
        if not self.closed:
            self.ended = True
            self._close()
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _close(self) -> None:
        self.closed = True
        self._unsent = None
        self._wake_writers()
        if self._timer is not None:
            self._timer.cancel()
        load = self._connection.load
        load.held_bytes -= self._held_bytes
        self._connection.forget(self)
        if not self._running:
            # The task, if there is one, was cancelled before it began.
            load.leave(self)

    # What handlers, and what is around them, use of grpc.aio.ServicerContext.

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the client sent along."""
        return self._head.metadata

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None: there is none."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - self._loop.time())

    def peer(self) -> str:
        """As "ipv4:10.0.0.1:5000", "ipv6:%5B::1%5D:5000"."""
        return self._connection.peer

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Before any message. ValueError: not allowed in gRPC."""
        if self._opened or self.closed:
            raise grpc.aio.UsageError("Initial metadata is sent already")
        self._open(headers.header_block(metadata))

    async def write(self, answer: Any) -> None:
        """Send one of several answers; returns when all of it is on its way."""
        message = self._serialized(answer)
        while self._unsent is not None:
            await self._wait_for_room()
        if self.answered:
            raise grpc.aio.UsageError("The call has ended")
        self._open()
        self._send(message)
        while self._unsent is not None:
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if self._drained is None or self._drained.done():
            self._drained = self._loop.create_future()
        # Not for one writer alone, if ever several write.
        await asyncio.shield(self._drained)

    async def abort(
        self, code: StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call with this status; raises what a handler lets through."""
        self._code, self._details = code, details
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise grpc.aio.AbortError("Locally aborted.")

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """With the status. ValueError: not allowed in gRPC."""
        self._trailing_block = headers.header_block(metadata)

    def set_code(self, code: StatusCode) -> None:
        """Of a handler that returns, or fails."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Of a handler that returns, or fails."""
        self._details = details


class _Requests:
    """The messages of a call, one after the other, as its handler asks for them."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await self._call.next_request()
