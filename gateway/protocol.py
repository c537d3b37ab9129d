"""HTTP/1.1 connections: uvicorn's protocol, with bounds on what a request's head may be and on
how long it may take to arrive.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import HttpError

URL_BYTES_MAX: Final = 8 * 1024
HEAD_BYTES_MAX: Final = 32 * 1024
HEADERS_MAX: Final = 100
_UNREADABLE: Final = HttpError(400, "bad_request", "This is no HTTP request that can be read here")


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, **wiring: Any) -> None:
        super().__init__(**wiring)
        self._head_bytes = 0
        # Since when a request is expected or on its way; None: it is here whole.
        self.arriving_since_s: float | None = self.loop.time()

    def on_message_begin(self) -> None:
        """The first byte of a request is here."""
        super().on_message_begin()
        self._head_bytes = 0
        self.arriving_since_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """A part of the URL is here; ValueError makes the parser give up."""
        super().on_url(url)
        if len(self.url) > URL_BYTES_MAX:
            raise ValueError("URL too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is here; ValueError makes the parser give up."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES_MAX or len(self.headers) >= HEADERS_MAX:
            raise ValueError("head too large")
        super().on_header(name, value)

    def on_message_complete(self) -> None:
        """The request is here whole."""
        super().on_message_complete()
        self.arriving_since_s = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP and close; uvicorn's own answer would be text."""
        body = _UNREADABLE.body("")
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            b"cache-control: no-store\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        )
        self.transport.write(head % len(body) + body)
        self.transport.close()


async def close_late(connections: set[Any], arrival_s_max: float) -> None:
    """For ever: close connections whose request does not arrive in time."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(1.0, arrival_s_max / 2))
        late_s = loop.time() - arrival_s_max
        for connection in list(connections):
            since_s = connection.arriving_since_s
            if since_s is not None and since_s < late_s:
                connection.transport.close()
