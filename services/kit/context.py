"""The ids of the running call, carried over HTTP headers, gRPC metadata and NATS headers.

`x-request-id` is what a caller may quote to support; `traceparent` is W3C Trace Context.
"""

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar

REQUEST_ID_CHARS_MAX = 64
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})", re.ASCII)

request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")


def new_request(given_request_id: str | None = None, traceparent: str | None = None) -> None:
    """Begin a call: take the ids it came with when they are sane, make new ones otherwise."""
    if given_request_id and _REQUEST_ID.fullmatch(given_request_id):
        request_id.set(given_request_id)
    else:
        request_id.set(f"req_{os.urandom(12).hex()}")
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    trace_id.set(match.group(1) if match else os.urandom(16).hex())


def from_headers(headers: Mapping[str, str]) -> None:
    """Begin a call with the ids in its metadata or headers (names in lower case)."""
    new_request(headers.get("x-request-id"), headers.get("traceparent"))


def outgoing_headers() -> dict[str, str]:
    """Headers that carry the ids to the next process; empty outside a call."""
    current = request_id.get()
    if not current:
        return {}
    traceparent = f"00-{trace_id.get()}-{os.urandom(8).hex()}-01"
    return {"x-request-id": current, "traceparent": traceparent}
