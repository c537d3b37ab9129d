"""HTTP/1.1 as far as webhooks need it: a POST, and what little of the answer counts.

The answer is hostile until proven otherwise: its head and its body are bounded, no redirect is
followed, nothing is unpacked, no cookie is kept. Time is bounded by the caller, who cancels.
Parsing is llhttp's (httptools), which Node.js uses; sockets and TLS are the event loop's.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import httptools
from aiohappyeyeballs import start_connection
from yarl import URL

from services.notifier.resolving import AddressInfo, CheckedResolver, check_address

# Of an answer, those of status 1xx before it included; and what came with the last of it.
HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 64 * 1024
HAPPY_EYEBALLS_S = 0.25  # after so long without an answer the next address is tried (RFC 8305)
# Shorter than the 5 s after which common servers close, so that we rarely meet a closing one.
IDLE_CONNECTION_S = 4.0
IDLE_CONNECTIONS_MAX = 1_000
URLS_REMEMBERED_MAX = 4_096


class BadAnswerError(ConnectionError):
    """What came is no HTTP, or too much of it, or ended in the middle."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads; `authority` and `path` as they stand in a request."""

    host: str
    port: int
    tls: bool
    authority: str
    path: str


@lru_cache(maxsize=URLS_REMEMBERED_MAX)
def target_of(url: str) -> Target:
    """Where `url` leads. ValueError unless it is an absolute URL of http or https."""
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or not parsed.port:
        raise ValueError("not a URL of http or https")
    return Target(
        host=parsed.raw_host,
        port=parsed.port,
        tls=parsed.scheme == "https",
        authority=parsed.host_port_subcomponent or "",
        path=parsed.raw_path_qs,
    )


def head_of(target: Target, headers: Mapping[str, str]) -> bytes:
    """The first line and these headers of a POST; more may follow. ValueError: a line break."""
    lines = [f"POST {target.path} HTTP/1.1", f"host: {target.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header can't have a line break")
    return "\r\n".join(lines).encode() + b"\r\n"


@dataclass(slots=True)
class Answer:
    """What has come of the answer so far, also when the rest never comes."""

    status: int = 0
    retry_after: str = ""
    body: bytearray = field(default_factory=bytearray)


class Connection(asyncio.Protocol):
    """A connection to a receiver: one exchange at a time. httptools calls the on_ methods."""

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._done: asyncio.Future[None] | None = None
        self.reusable = False
        self.idle_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self.reusable = True

    def exchange(self, request: bytes, answer: Answer) -> asyncio.Future[None]:
        """Send a request; done when `answer` has all of it, or as much as is read.

        BadAnswerError, or OSError as it came, when that does not happen.
        """
        self._done = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._has_head = False
        self._until_end = True
        self._head_bytes = 0
        self._transport.write(request)
        return self._done

    def close(self) -> None:
        """End it in good order, when nothing is on its way."""
        self.reusable = False
        self._transport.close()

    def abort(self) -> None:
        """End it at once: what may still come is of no interest."""
        self.reusable = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """asyncio calls this."""
        if self._answer is None:  # nothing was asked, or no more was wanted
            self.abort()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end(reusable=False)
        except httptools.HttpParserError:
            self._end(BadAnswerError("the answer is no HTTP"), reusable=False)
        if not self._has_head and self._head_bytes > HEAD_BYTES_MAX:
            self._end(BadAnswerError("the answer's head is too large"), reusable=False)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio calls this."""
        self.reusable = False
        if error is None and not (self._answer and self._has_head and self._until_end):
            error = BadAnswerError("the connection ended before the answer")
        self._end(error, reusable=False)

    def on_message_begin(self) -> None:
        """The first byte of an answer: of one that nobody asked for, the connection is not kept."""
        if self._answer is None:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer, or of one before it (1xx)."""
        lowered = name.lower()
        if lowered == b"content-length" or (
            lowered == b"transfer-encoding" and b"chunked" in value.lower()
        ):
            self._until_end = False
        elif lowered == b"retry-after" and self._answer is not None:
            self._answer.retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head of the answer is here; of one before it (1xx) nothing counts."""
        status = self._parser.get_status_code()
        if self._answer is None or (status < 200 and status != 101):
            return
        self._answer.status = status
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        """Some of the answer's body."""
        if self._answer is None:
            return
        kept = self._answer.body
        kept += body[: BODY_BYTES_MAX - len(kept)]
        if len(kept) >= BODY_BYTES_MAX:
            # The receiver has answered; what it goes on saying is of no interest.
            self._end(reusable=False)

    def on_message_complete(self) -> None:
        """An answer is over: the one that counts, or one before it."""
        if self._has_head:
            self._end(reusable=self._parser.should_keep_alive())
        elif self._answer is not None:
            self._until_end = True
            self._answer.retry_after = ""

    def _end(self, error: Exception | None = None, *, reusable: bool) -> None:
        done, self._done, self._answer = self._done, None, None
        self.reusable = self.reusable and reusable
        if done is None or done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


class Client:
    """Posts, over connections that are kept for a little while."""

    def __init__(
        self, resolver: CheckedResolver, tls: ssl.SSLContext, *, allow_private: bool
    ) -> None:
        self._resolver = resolver
        self._tls = tls
        self._allow_private = allow_private
        self._idle: dict[tuple[str, int, bool], deque[Connection]] = {}
        self._idle_count = 0
        self._sweeping: asyncio.TimerHandle | None = None

    async def post(
        self, target: Target, request: bytes, answer: Answer, *, organization_id: str
    ) -> None:
        """Send a whole request and fill `answer`, which tells how far it came, whatever happens.

        `organization_id`: whose it is, so that its look-ups of names hold up no other.
        RefusedAddressError, UnknownNameError, BadAnswerError, ssl.SSLError, OSError.
        """
        key = (target.host, target.port, target.tls)
        connection = self._take(key) or await self._connect(target, organization_id)
        try:
            await connection.exchange(request, answer)
        except BaseException:
            connection.abort()
            raise
        if connection.reusable and self._idle_count < IDLE_CONNECTIONS_MAX:
            self._keep(key, connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close what is idle."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        self._idle_count = 0
        self._resolver.close()

    def _take(self, key: tuple[str, int, bool]) -> Connection | None:
        connections = self._idle.get(key)
        while connections:
            connection = connections.pop()
            self._idle_count -= 1
            if connection.reusable:
                return connection
        return None

    def _keep(self, key: tuple[str, int, bool], connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        self._idle.setdefault(key, deque()).append(connection)
        self._idle_count += 1
        if self._sweeping is None:
            self._sweeping = loop.call_later(IDLE_CONNECTION_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for long; come back while something is."""
        loop = asyncio.get_running_loop()
        before_s = loop.time() - IDLE_CONNECTION_S
        for key, connections in list(self._idle.items()):
            while connections and (
                connections[0].idle_since_s <= before_s or not connections[0].reusable
            ):
                connections.popleft().close()
                self._idle_count -= 1
            if not connections:
                del self._idle[key]
        again_s = IDLE_CONNECTION_S / 4
        self._sweeping = loop.call_later(again_s, self._sweep) if self._idle else None

    async def _connect(self, target: Target, organization_id: str) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await self._resolver.resolve(target.host, target.port, organization_id)
        connected = await start_connection(
            addresses,
            happy_eyeballs_delay=HAPPY_EYEBALLS_S,
            loop=loop,
            socket_factory=self._open_socket,
        )
        try:
            _, connection = await loop.create_connection(
                Connection,
                sock=connected,
                ssl=self._tls if target.tls else None,
                server_hostname=target.host.rstrip(".") if target.tls else None,
            )
        except BaseException:
            connected.close()
            raise
        return connection

    def _open_socket(self, info: AddressInfo) -> socket.socket:
        # The resolver has looked at it, but nothing passes by here.
        family, kind, protocol, _, where = info
        check_address(str(where[0]), allow_private=self._allow_private)
        return socket.socket(family, kind, protocol)
