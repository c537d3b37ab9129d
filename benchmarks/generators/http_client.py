"""HTTP/1.1 over a raw connection, one request outstanding: as little as a client can do."""

import asyncio
from collections.abc import Callable
from typing import cast

from benchmarks.errors import BenchmarkError

HEAD_BYTES_MAX = 16 * 1024


def response_end(data: bytes) -> int:
    """Where the response that `data` begins with ends; 0: not known before more has arrived.

    BenchmarkError for a response without Content-Length.
    """
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        if len(data) > HEAD_BYTES_MAX:
            raise BenchmarkError(f"no response, but {data[:80]!r}")
        return 0
    at = data.find(b"content-length: ", 0, head_end)
    if at < 0:
        at = data[:head_end].lower().find(b"content-length: ")
        if at < 0:
            raise BenchmarkError(f"a response without Content-Length: {data[:head_end]!r}")
    line_end = data.find(b"\r", at, head_end + 1)
    return head_end + 4 + int(data[at + 16 : line_end])


def response_body(response: bytes) -> bytes:
    """The body of a whole response."""
    return response[response.index(b"\r\n\r\n") + 4 :]


class Connection(asyncio.Protocol):
    """Calls `on_response(connection, begun_s, response)` for each request sent."""

    __slots__ = ("_begun_s", "_on_lost", "_on_response", "_received", "_transport")

    _transport: asyncio.Transport

    def __init__(
        self,
        on_response: Callable[["Connection", float, bytes], None],
        on_lost: Callable[[Exception], None],
    ) -> None:
        self._on_response = on_response
        self._on_lost = on_lost
        self._received = b""
        self._begun_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, begun_s: float) -> None:
        """Send a request; `begun_s` comes back with its response."""
        self._begun_s = begun_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """asyncio calls this."""
        if self._received:
            data = self._received + data
        try:
            end = response_end(data)
        except BenchmarkError as error:
            self._on_lost(error)
            return
        if not end or len(data) < end:
            self._received = data
            return
        self._received = b""
        self._on_response(self, self._begun_s, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio calls this."""
        self._on_lost(BenchmarkError(f"the server closed a connection ({exc})"))

    def close(self) -> None:
        """Close at once."""
        self._transport.abort()
