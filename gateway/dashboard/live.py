"""Figures that change while somebody looks: how many events came, told once a second.

What has ended does not change much: the day up to the last half hour is counted every minute, only
the rest each second, so that a page that stays open costs next to nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import msgspec
from prometheus_client import Gauge

from gateway.calls import Calls
from gateway.dashboard import text
from gateway.errors import unavailable
from gateway.shapes import usage
from gateway.shapes.usage import Activity, ActivityQuery
from services.kit import clock
from services.kit.errors import DomainError, UnavailableError
from services.kit.waiting import happens

STREAMS_MAX: Final = 200
EVERY_S: Final = 1.0
# The browser opens it again; so who is signed out sees nothing more after that.
STREAM_S_MAX: Final = 120.0
ENDED_EVERY_S: Final = 60.0
# The rate is that of so many seconds.
RATE_S: Final = 5.0
_QUARTER: Final = timedelta(minutes=15)
# Events may come late, or be said to happen a little later than now.
_OPEN: Final = 2 * _QUARTER
_AHEAD: Final = timedelta(minutes=15)
_STREAMS: Final = Gauge("usageflow_gateway_dashboard_streams", "Streams of figures that are open")


class Streams:
    """Those of this process; they end when it stops."""

    def __init__(self) -> None:
        self._open = 0
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End all streams within a moment; there are no new ones."""
        self._stopped.set()

    def open(self, calls: Calls, zone: ZoneInfo) -> AsyncIterator[bytes]:
        """The body of a stream of server-sent events; HttpError 503 when too many are open."""
        if self._open >= STREAMS_MAX or self._stopped.is_set():
            raise unavailable("Too many pages are open")
        return self._events(calls, zone)

    async def _events(self, calls: Calls, zone: ZoneInfo) -> AsyncIterator[bytes]:
        counter = DayCounter(ActivitySource(calls), zone)
        ends_s = time.monotonic() + STREAM_S_MAX
        self._open += 1
        _STREAMS.inc()
        try:
            yield b"retry: 2000\n\n"
            while time.monotonic() < ends_s and not self._stopped.is_set():
                try:
                    yield _event(await counter.figures())
                except UnavailableError:
                    yield b": away for a moment\n\n"
                except DomainError:
                    return
                await self._pause()
        finally:
            self._open -= 1
            _STREAMS.dec()

    async def _pause(self) -> None:
        await happens(self._stopped, EVERY_S)


class Source(Protocol):
    """Tells how many events happened in a range."""

    async def __call__(self, start: datetime, end: datetime) -> Activity:
        """DomainError."""


class ActivitySource:
    """Activity, asked of aggregator in the viewer's name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def __call__(self, start: datetime, end: datetime) -> Activity:
        request = usage.activity_to_proto(ActivityQuery(from_=start, to=end))
        answer = await self._calls.call(self._calls.aggregator.GetActivity, request)
        return usage.activity_from_proto(answer)


@dataclass(frozen=True, slots=True)
class _Seen:
    """How many events there were at a moment."""

    at_s: float
    count: int


class DayCounter:
    """How many events there were since the viewer's midnight, and how many come a second."""

    def __init__(
        self,
        source: Source,
        zone: ZoneInfo,
        now: Callable[[], datetime] = clock.now,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._zone = zone
        self._now = now
        self._seconds = seconds
        self._ended = 0
        self._ended_until: datetime | None = None
        self._ended_at_s = 0.0
        self._seen: deque[_Seen] = deque()

    async def figures(self) -> dict[str, str]:
        """What the page shows, by the names of its places."""
        count = await self.today()
        at_s = self._seconds()
        self._seen.append(_Seen(at_s, count))
        while len(self._seen) > 2 and at_s - self._seen[1].at_s >= RATE_S:
            self._seen.popleft()
        return {"today": text.number(count), "rate": text.number(self._rate())}

    async def today(self) -> int:
        """How many events there were since midnight."""
        now = self._now()
        midnight = now.astimezone(self._zone).replace(hour=0, minute=0, second=0, microsecond=0)
        border = max(midnight, _quarter(now, midnight) - _OPEN)
        stale = self._seconds() - self._ended_at_s >= ENDED_EVERY_S
        if border > midnight and (stale or self._ended_until != border):
            self._ended = (await self._source(midnight, border)).event_count
            self._ended_until, self._ended_at_s = border, self._seconds()
        if border == midnight:
            self._ended = 0
        return self._ended + (await self._source(border, now + _AHEAD)).event_count

    def _rate(self) -> Decimal:
        """Events a second, one digit after the point below 10."""
        first, last = self._seen[0], self._seen[-1]
        passed_ms = round((last.at_s - first.at_s) * 1_000)
        if passed_ms <= 0 or last.count <= first.count:
            return Decimal(0)
        rate = Decimal(last.count - first.count) * 1_000 / passed_ms
        return rate.quantize(Decimal("0.1") if rate < 10 else Decimal(1))


def _quarter(instant: datetime, midnight: datetime) -> datetime:
    """The quarter of an hour since midnight that `instant` lies in."""
    return midnight + (instant - midnight) // _QUARTER * _QUARTER


def _event(figures: dict[str, str]) -> bytes:
    return b"event: figures\ndata: %b\n\n" % msgspec.json.encode(figures)
