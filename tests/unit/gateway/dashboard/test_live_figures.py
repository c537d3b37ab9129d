"""Events today, and how many come a second."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.dashboard.live import DayCounter
from gateway.shapes.usage import Activity

BERLIN = ZoneInfo("Europe/Berlin")


class Events:
    """Events at instants, counted as aggregator does; notes what it was asked."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 4, 10, 7, tzinfo=UTC)
        self.times: list[datetime] = []
        self.asked: list[tuple[datetime, datetime]] = []

    async def __call__(self, start: datetime, end: datetime) -> Activity:
        self.asked.append((start, end))
        count = sum(start <= time < end for time in self.times)
        return Activity(from_=start, to=end, event_count=count, data=[])

    def counter(self) -> DayCounter:
        """A counter that goes by the time of this."""
        return DayCounter(self, BERLIN, lambda: self.now, lambda: self.now.timestamp())


async def test_the_day_begins_at_midnight_of_the_viewer() -> None:
    events = Events()
    midnight = datetime(2026, 5, 3, 22, tzinfo=UTC)
    events.times = [midnight - timedelta(seconds=1), midnight, events.now]
    assert await events.counter().today() == 2


async def test_what_has_ended_is_asked_for_once_a_minute_only() -> None:
    events = Events()
    counter = events.counter()
    for _ in range(60):
        await counter.today()
        events.now += timedelta(seconds=1)
    assert len(events.asked) == 61
    events.now += timedelta(seconds=1)
    await counter.today()
    assert len(events.asked) == 63


async def test_the_rate_is_that_of_the_last_seconds() -> None:
    events = Events()
    counter = events.counter()
    assert (await counter.figures())["rate"] == "0"
    for _ in range(8):
        events.now += timedelta(seconds=1)
        events.times += [events.now] * 30
        figures = await counter.figures()
    assert figures == {"today": "240", "rate": "30"}
    events.now += timedelta(seconds=10)
    await counter.figures()
    events.now += timedelta(seconds=6)
    assert (await counter.figures())["rate"] == "0"


async def test_a_new_day_begins_at_nothing() -> None:
    events = Events()
    counter = events.counter()
    events.times = [events.now]
    assert await counter.today() == 1
    events.now += timedelta(days=1)
    assert await counter.today() == 0
