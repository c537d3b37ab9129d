"""HTTP/1.1 connections: uvicorn's protocol with bounds on a request's head and on how long it may
take to arrive, and with the hot path, which does without ASGI (quick.py says why).
"""

import asyncio
from typing import Any, Final, Protocol

from usageflow.ingest.v1.ingest_pb2 import EventReceipt
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway import quick
from gateway.errors import HttpError, unavailable
from gateway.track import Stored, answer_of
from gateway.wire import ANSWER_HEADERS, Header
from services.kit.errors import DomainError

HEAD_BYTES_MAX: Final = 32 * 1024
LOOK_AGAIN_S_MAX: Final = 1.0
_UNREADABLE: Final = HttpError(400, "bad_request", "This is no HTTP request that can be read here")
_ALWAYS: Final = b"".join(b"%b: %b\r\n" % header for header in ANSWER_HEADERS)


class _Heads:
    """The first lines of answers, which change once a second: uvicorn then makes a new list of
    its default headers, which hold the date.
    """

    def __init__(self) -> None:
        self._made_of: list[Header] = []
        self._lines = b""

    def of(self, status: int, default_headers: list[Header]) -> bytes:
        """Status line and the headers that every answer has."""
        if self._made_of is not default_headers:
            lines = b"".join([b"%b: %b\r\n" % header for header in default_headers])
            self._made_of, self._lines = default_headers, lines + _ALWAYS
        return STATUS_LINE[status] + self._lines


_heads: Final = _Heads()


class Drain:
    """Whether the server is about to stop: its default headers then close each connection."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = False


class QuickHandler(Protocol):
    """See quick.QuickTrack."""

    def take(self, header_list: list[Header], body: bytes, exchange: quick.Exchange) -> bool:
        """Whether `exchange` will be answered."""


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self, *, quick_track: QuickHandler, connections_max: int, drain: Drain, **wiring: Any
    ) -> None:
        super().__init__(**wiring)
        self.drain = drain
        self._connections_max = connections_max
        self._quick_track = quick_track
        # The body of a request that may be quick, as far as it is here; None: it is not quick.
        self._quick_body: bytes | None = None
        self._in_head = self._head_is_new = False
        self._head_bytes = 0
        self.url = b""
        # Since when no request is on its way or being answered; None: one is.
        self.idle_since_s: float | None = None
        # Since when a request is expected or on its way; None: it is here whole.
        self.arriving_since_s: float | None = self.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; one too many is told so."""
        super().connection_made(transport)
        if len(self.connections) > self._connections_max:
            self._answer_and_close(unavailable("Too many connections are open"))

    def data_received(self, data: bytes) -> None:
        """A part of a request is here, or several requests."""
        self._head_is_new = False
        super().data_received(data)
        # The part in which a head begins is not counted: it may end with it, too.
        if self._in_head and not self._head_is_new:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """The first byte of a request is here. What only ASGI needs is made in _begin_asgi()."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._in_head = self._head_is_new = True
        self._head_bytes = 0
        self.idle_since_s = None
        self.arriving_since_s = self.loop.time()

    def _begin_asgi(self) -> None:
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.headers += headers
        self.url, self.expect_100_continue = url, expect_100_continue
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer a request: close_late() closes idle connections."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.arriving_since_s is None:
            self.idle_since_s = self.loop.time()

    def on_headers_complete(self) -> None:
        """The head is here: go on without ASGI if it may be a usual POST /api/track."""
        self._in_head = False
        if (
            self.url == quick.PATH
            and not self.expect_100_continue
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and not self.parser.should_upgrade()
        ):
            self._quick_body = b""
        else:
            self._begin_asgi()

    def on_body(self, body: bytes) -> None:
        """A part of the body is here."""
        if self._quick_body is None:
            super().on_body(body)
            return
        self._quick_body += body
        if len(self._quick_body) > quick.BODY_BYTES_MAX:
            self._go_on_with_asgi(self._quick_body)

    def on_message_complete(self) -> None:
        """The request is here whole."""
        self.arriving_since_s = None
        body = self._quick_body
        if body is not None:
            exchange = _Exchange(self)
            if self._quick_track.take(self.headers, body, exchange):
                # Thousands may wait: what has been read is not kept.
                self._quick_body, self.headers = None, []
                self.cycle = exchange  # type: ignore[assignment]
                return
            self._go_on_with_asgi(body)
        super().on_message_complete()

    def _go_on_with_asgi(self, body: bytes) -> None:
        self._quick_body = None
        self._begin_asgi()
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP and close; uvicorn's own answer would be text."""
        self._answer_and_close(_UNREADABLE)

    def _answer_and_close(self, error: HttpError) -> None:
        body = error.body("")
        lines = [f"{name}: {value}\r\n".encode() for name, value in error.headers.items()]
        head = [STATUS_LINE[error.status], _ALWAYS, *lines]
        head.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self.transport.write(b"".join([*head, body]))
        self.transport.close()


class _Exchange:
    """One request that does without ASGI, in the place of uvicorn's RequestResponseCycle.

    uvicorn asks it whether it is answered (before it goes on with what was pipelined), tells it
    when the client is gone, and asks it at shutdown to close the connection.
    """

    __slots__ = (
        "_connection",
        "disconnected",
        "keep_alive",
        "limit_lines",
        "message_event",
        "request_id",
        "response_complete",
    )

    def __init__(self, connection: GatewayProtocol) -> None:
        self._connection = connection
        self.response_complete = False
        self.disconnected = False
        parser = connection.parser
        self.keep_alive = parser.get_http_version() == "1.1" and parser.should_keep_alive()
        self.message_event = _NOBODY_WAITS
        self.request_id = ""
        self.limit_lines = b""

    @property
    def gone(self) -> bool:
        """Whether nobody would hear the answer."""
        return self.disconnected or self._connection.transport.is_closing()

    def answered(self, outcome: EventReceipt | DomainError, usage_token: str) -> None:
        """Write the answer, unless the client is gone."""
        self._write(answer_of(outcome, usage_token))

    def refused(self, error: HttpError) -> None:
        """Write a refusal."""
        self._write(error)

    def _write(self, outcome: Stored | HttpError) -> None:
        connection = self._connection
        self.response_complete = True
        if self.gone:
            return
        request_id = self.request_id
        body = outcome.body(request_id)
        head = [_heads.of(outcome.status, connection.server_state.default_headers)]
        head += [f"{name}: {value}\r\n".encode() for name, value in outcome.headers.items()]
        head.append(self.limit_lines)
        draining = connection.drain.on
        if not self.keep_alive and not draining:
            head.append(b"connection: close\r\n")
        head.append(
            b"content-length: %d\r\nx-request-id: %b\r\n\r\n" % (len(body), request_id.encode())
        )
        head.append(body)
        connection.transport.write(b"".join(head))
        if draining or not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()


class _NobodyWaits:
    """In the place of the event that an ASGI handler's receive() waits for."""

    def set(self) -> None:
        """The connection was lost."""


_NOBODY_WAITS: Final = _NobodyWaits()


async def close_late(connections: set[Any], arrival_s_max: float, idle_s_max: float) -> None:
    """For ever: close connections whose request does not arrive in time, and idle ones."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(LOOK_AGAIN_S_MAX, arrival_s_max / 2))
        now_s = loop.time()
        for connection in list(connections):
            arriving_s, idle_s = connection.arriving_since_s, connection.idle_since_s
            late = arriving_s is not None and arriving_s < now_s - arrival_s_max
            if late or (idle_s is not None and idle_s < now_s - idle_s_max):
                connection.transport.close()
