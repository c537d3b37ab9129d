"""What a case of test_routes_over_http.py is made of."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def at(day: int, seconds: int = 0) -> Timestamp:
    """So many seconds into a day, in UTC, of January 2026."""
    time = Timestamp()
    time.FromDatetime(datetime(2026, 1, day, tzinfo=UTC) + timedelta(seconds=seconds))
    return time


@dataclass
class Case:
    """A request, the RPC that it becomes, and what its answer becomes.

    `member`: it is for members who have signed in, not for API keys.
    """

    method: str
    path: str
    rpc: str
    request: Message
    answer: Message
    expected: Any
    body: Any = None
    status: int = 200
    others: dict[str, Message] = field(default_factory=dict)
    member: bool = False


def page(item: Any) -> dict[str, Any]:
    """A list's answer with one element and a next page."""
    return {"data": [item], "nextCursor": "next"}
