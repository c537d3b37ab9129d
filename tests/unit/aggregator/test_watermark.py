"""A watermark that was told a moment ago."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.aggregator.watermark import RecentWatermark
from services.kit.errors import UnavailableError

TIME = datetime(2026, 3, 1, tzinfo=UTC)
NEVER_OLD_S = 3_600.0


class Source:
    """A WatermarkSource that tells one second more each time."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False
        self.heard = asyncio.Event()

    @property
    def last(self) -> datetime | None:
        """The newest that was told."""
        return TIME + timedelta(seconds=self.asked) if self.asked else None

    async def ask(self) -> datetime:
        """One second more."""
        self.heard.set()
        if self.is_away:
            raise UnavailableError("ingest is away")
        self.asked += 1
        return TIME + timedelta(seconds=self.asked)


def seconds(count: int) -> datetime:
    """What the source tells then."""
    return TIME + timedelta(seconds=count)


async def test_what_was_told_a_moment_ago_is_told_again() -> None:
    recent = RecentWatermark(source := Source(), NEVER_OLD_S)
    assert [await recent.ask() for _ in range(3)] == [seconds(1)] * 3
    assert (source.asked, recent.last) == (1, source.last)


async def test_what_is_too_old_is_asked_for() -> None:
    recent = RecentWatermark(Source(), 0.0)
    assert [await recent.ask() for _ in range(3)] == [seconds(1), seconds(2), seconds(3)]


async def test_nobody_waits_for_what_is_asked_before_the_old_one_is_too_old(
    clock: "Clock",
) -> None:
    recent = RecentWatermark(source := Source(), 1.0)
    await recent.ask()
    await asked_behind(recent, source, clock)
    assert (await recent.ask(), source.asked) == (seconds(2), 2)


async def test_who_comes_when_it_is_too_old_is_told_that_nobody_answers(clock: "Clock") -> None:
    recent = RecentWatermark(source := Source(), 1.0)
    await recent.ask()
    source.is_away = True
    await asked_behind(recent, source, clock)
    clock.now_s += 0.4
    with pytest.raises(UnavailableError):
        await recent.ask()
    source.is_away = False
    assert await recent.ask() == seconds(2)


async def asked_behind(recent: RecentWatermark, source: Source, clock: "Clock") -> None:
    """After more than half of its time the old one is told, and the source asked meanwhile."""
    source.heard.clear()
    clock.now_s += 0.6
    assert [await recent.ask(), await recent.ask()] == [seconds(1)] * 2
    async with asyncio.timeout(10):
        await source.heard.wait()
    # The source has answered, and who asked goes on.
    await asyncio.sleep(0)


class Clock:
    """In the place of time.monotonic()."""

    now_s = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What RecentWatermark goes by."""
    made = Clock()
    monkeypatch.setattr("services.aggregator.watermark.monotonic", lambda: made.now_s)
    return made
