"""Calls whose events wait to be stored: bounded, so that overload is refused at once."""

import asyncio
from collections import deque
from typing import NamedTuple

from prometheus_client import Gauge

from services.ingest.domain import Recorded
from services.ingest.events import Events
from services.kit.errors import OverloadedError

RETRY_AFTER_S = 1.0

_WAITING = Gauge("usageflow_ingest_events_waiting", "Events that wait to be stored")


class Call(NamedTuple):
    """The valid events of one call, their size, and what its caller waits for."""

    events: Events
    size_bytes: int
    recorded: asyncio.Future[Recorded]


class EventQueue:
    """Where calls put their events and committers take them from."""

    def __init__(self, *, events_max: int, bytes_max: int) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._calls: deque[Call] = deque()
        self._events = 0
        self._taken = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def events(self) -> int:
        """How many events wait."""
        return self._events

    @property
    def taken(self) -> int:
        """How many events committers have taken since the start."""
        return self._taken

    def put(self, events: Events, size_bytes: int) -> asyncio.Future[Recorded]:
        """Add a call's events; the future tells what became of them once that is durable.

        OverloadedError when they don't fit: nothing is stored.
        """
        self.require_room(len(events), size_bytes)
        recorded: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        recorded.add_done_callback(_look_at)
        call = Call(events, size_bytes, recorded)
        self._calls.append(call)
        self._events += len(events)
        _WAITING.set(self._events)
        self._bytes += size_bytes
        self._arrived.set()
        return call.recorded

    def require_room(self, events: int, size_bytes: int = 0) -> None:
        """OverloadedError when a call of this size would not fit now."""
        if not self._fits(events, size_bytes):
            raise OverloadedError(
                "Too many events are waiting to be stored; try again", retry_after_s=RETRY_AFTER_S
            )

    async def room(self, events: int, size_bytes: int) -> None:
        """Return when a call of this size fits: for streams, whose flow control can wait."""
        while not self._fits(events, size_bytes):
            self._room.clear()
            await self._room.wait()

    async def take(self, events_max: int) -> list[Call]:
        """The calls that wait, up to `events_max` events, but at least one; waits for the first."""
        while not self._calls:
            self._arrived.clear()
            await self._arrived.wait()
        taken: list[Call] = []
        events = 0
        while self._calls and (not taken or events + len(self._calls[0].events) <= events_max):
            call = self._calls.popleft()
            taken.append(call)
            events += len(call.events)
            self._bytes -= call.size_bytes
        self._events -= events
        self._taken += events
        _WAITING.set(self._events)
        self._room.set()
        return taken

    def _fits(self, events: int, size_bytes: int) -> bool:
        return (
            self._events + events <= self._events_max
            and self._bytes + size_bytes <= self._bytes_max
        )


def _look_at(recorded: asyncio.Future[Recorded]) -> None:
    """Nobody may be left who waits for it: then its error is not to be complained of."""
    if not recorded.cancelled():
        recorded.exception()
