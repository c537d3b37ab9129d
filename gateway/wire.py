"""Bare ASGI: reading a body within its limit, and sending answers.

What the framework would do for other routes, in the few lines that the hot path can afford.
"""

import os
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

from gateway.errors import HttpError, body_too_large
from gateway.inflate import Inflater, is_gzip

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

JSON_TYPE: Final[Header] = (b"content-type", b"application/json")
# Keys and usage are nobody else's; nothing here is a page.
SECURITY_HEADERS: Final[tuple[Header, ...]] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
ANSWER_HEADERS: Final = (JSON_TYPE, *SECURITY_HEADERS)
_is_request_id = re.compile(rb"[A-Za-z0-9_.:\-]{1,64}").fullmatch


class Disconnected(Exception):  # noqa: N818 (no error: the client went away)
    """The client went away before its request was whole; nobody is there to be answered."""


class RequestIds:
    """Request ids that are unique without asking the kernel for random bytes each time."""

    def __init__(self) -> None:
        self._prefix = f"req_{os.urandom(8).hex()}"
        self._count = 0

    def take(self, given: bytes | None) -> str:
        """The id that the caller gave when it is sane, a new one otherwise."""
        if given is not None and _is_request_id(given):
            return given.decode()
        self._count += 1
        return f"{self._prefix}{self._count:08x}"


async def read_body(headers: dict[bytes, bytes], receive: Receive, bytes_max: int) -> bytes:
    """The request's body, inflated when it is gzip. HttpError 413 as soon as it is known to be too
    large, compressed or inflated; 415 for another encoding; InvalidArgumentError for broken gzip.

    What comes after that is thrown away by the server, not kept.
    """
    compressed = is_gzip(headers.get(b"content-encoding"))
    length = headers.get(b"content-length")
    # The server has parsed the header: it is a number.
    if length is not None and int(length) > bytes_max:
        raise body_too_large(bytes_max)
    if compressed:
        inflater = Inflater(bytes_max)
        await _receive_all(receive, bytes_max, inflater.feed)
        return inflater.finish()
    pieces: list[bytes] = []
    await _receive_all(receive, bytes_max, pieces.append)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _receive_all(receive: Receive, bytes_max: int, take: Callable[[bytes], None]) -> None:
    """Pass on the body as it comes, up to `bytes_max` in all."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > bytes_max:
            raise body_too_large(bytes_max)
        take(piece)
        more = message.get("more_body", False)


def usage_token_header(token: str) -> list[Header]:
    """The header of an answer that stands for stored events; none when ingest gave no token."""
    return [(b"usage-token", token.encode())] if token else []


async def send_json(
    send: Send, status: int, body: bytes, request_id: str, more: Iterable[Header] = ()
) -> None:
    """Send an answer whose body is JSON."""
    headers = [
        *ANSWER_HEADERS,
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_redirect(send: Send, path: str) -> None:
    """Send the client on, to be asked by GET."""
    headers = [(b"location", path.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def send_error(
    send: Send, error: HttpError, request_id: str, more: Iterable[Header] = ()
) -> None:
    """Send the contract's error body."""
    own = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send_json(send, error.status, error.body(request_id), request_id, [*own, *more])


def is_json(content_type: bytes | None) -> bool:
    """Whether a Content-Type header says JSON in UTF-8."""
    return content_type == b"application/json" or has_type(content_type, b"application/json")


def is_ndjson(content_type: bytes | None) -> bool:
    """Whether a Content-Type header says one JSON value a line."""
    return has_type(content_type, b"application/x-ndjson")


def has_type(content_type: bytes | None, expected: bytes) -> bool:
    """Whether a Content-Type header says `expected`, in UTF-8 if it names a charset."""
    if content_type is None:
        return False
    kind, _, parameters = content_type.lower().partition(b";")
    if kind.strip() != expected:
        return False
    for parameter in parameters.split(b";"):
        name, _, value = parameter.strip().partition(b"=")
        if name == b"charset" and value.strip(b'"') not in (b"utf-8", b"utf8"):
            return False
    return True
