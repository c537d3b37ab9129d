"""Calls whose events wait to be stored: bounded, so that overload is refused at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import NamedTuple

from prometheus_client import Gauge

from services.ingest.domain import Event, Outcomes
from services.kit.errors import OverloadedError

RETRY_AFTER_S = 1.0
PARALLEL_EVENTS_MIN = 2_000
PATIENCE_S = 0.05

_WAITING = Gauge("usageflow_ingest_events_waiting", "Events that wait to be stored")


class Call(NamedTuple):
    """The valid events of one call, their size, what its caller waits for, and since when."""

    events: list[Event]
    size_bytes: int
    outcomes: asyncio.Future[Outcomes]
    put_s: float


class EventQueue:
    """Where calls put their events and committers take them from."""

    def __init__(self, *, events_max: int, bytes_max: int) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._calls: deque[Call] = deque()
        self._events = 0
        self._bytes = 0
        self._storing = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def events(self) -> int:
        """How many events wait."""
        return self._events

    def put(self, events: list[Event], size_bytes: int) -> asyncio.Future[Outcomes]:
        """Add a call's events; the future tells what became of them once that is durable.

        OverloadedError when they don't fit: nothing is stored.
        """
        if not self._fits(len(events), size_bytes):
            raise OverloadedError(
                "Too many events are waiting to be stored; try again", retry_after_s=RETRY_AFTER_S
            )
        call = Call(events, size_bytes, asyncio.get_running_loop().create_future(), monotonic())
        self._calls.append(call)
        self._events += len(events)
        _WAITING.set(self._events)
        self._bytes += size_bytes
        self._arrived.set()
        return call.outcomes

    async def room(self, events: int, size_bytes: int) -> None:
        """Return when a call of this size fits: for streams, whose flow control can wait."""
        while not self._fits(events, size_bytes):
            self._room.clear()
            await self._room.wait()

    @asynccontextmanager
    async def taken(self, events_max: int) -> AsyncIterator[list[Call]]:
        """The calls that wait, up to `events_max` events, but at least one; waits for the first.

        While somebody stores what he has taken, others get something only once PARALLEL_EVENTS_MIN
        events wait, or one for PATIENCE_S: fewer and larger transactions take less work, and an
        event that waits for one to end is hardly later than one with a transaction to itself.
        """
        while not self._due():
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S if self._calls else None):
                    await self._arrived.wait()
        calls = self._take(events_max)
        self._storing += 1
        try:
            yield calls
        finally:
            self._storing -= 1
            self._arrived.set()

    def _due(self) -> bool:
        if not self._calls:
            return False
        if self._storing == 0 or self._events >= PARALLEL_EVENTS_MIN:
            return True
        return monotonic() - self._calls[0].put_s >= PATIENCE_S

    def _take(self, events_max: int) -> list[Call]:
        taken: list[Call] = []
        events = 0
        while self._calls and (not taken or events + len(self._calls[0].events) <= events_max):
            call = self._calls.popleft()
            taken.append(call)
            events += len(call.events)
            self._bytes -= call.size_bytes
        self._events -= events
        _WAITING.set(self._events)
        self._room.set()
        return taken

    def _fits(self, events: int, size_bytes: int) -> bool:
        return (
            self._events + events <= self._events_max
            and self._bytes + size_bytes <= self._bytes_max
        )
