"""Cuts a range of time into clock hours, days, weeks and months of an IANA time zone. Pure.

A day is what a calendar on the wall shows: from the first instant of its date to the first instant
of the next one, 23, 24 or 25 hours (PEP 615's zones, read through zoneinfo). Every boundary lies
on a quarter of an hour of UTC for every zone and every time that may be asked for.
"""

import functools
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from services.aggregator.domain import QUARTER, quarter_of

QUARTER_HOUR, HOUR, DAY, WEEK, MONTH, TOTAL = "15MIN", "HOUR", "DAY", "WEEK", "MONTH", "TOTAL"
# Since then every zone has kept to whole quarters of an hour.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)

_HOUR_S = 3600
_ONE_DAY = timedelta(days=1)
_WEEK_DAYS = 7
# Names in a zone database that are not zones.
_NO_ZONES = {"localtime", "Factory"}


@functools.cache
def zone_names() -> frozenset[str]:
    """The names of all IANA zones that this machine knows."""
    return frozenset(zoneinfo.available_timezones() - _NO_ZONES)


def month_start(now: datetime, zone: ZoneInfo) -> datetime:
    """When the month that `now` lies in began, in UTC."""
    return _day_start(now.astimezone(zone).date().replace(day=1), zone)


def period_at(instant: datetime, window: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The window that `instant` lies in: [start, end), in UTC. TOTAL: all of time."""
    if window == TOTAL:
        return EARLIEST, LATEST
    following = _FOLLOWING[window](instant, zone)
    assert following is not None
    return _start_of(instant, window, zone), following


def _start_of(instant: datetime, window: str, zone: ZoneInfo) -> datetime:
    day = instant.astimezone(zone).date()
    match window:
        case "MONTH":
            return _day_start(day.replace(day=1), zone)
        case "WEEK":
            return _day_start(day - day.weekday() * _ONE_DAY, zone)
        case "DAY":
            return _day_start(day, zone)
        case "HOUR":
            return _hour_start(instant, zone)
        case _:
            return quarter_of(instant)


def _hour_start(instant: datetime, zone: ZoneInfo) -> datetime:
    """When the clock struck, or jumped into the hour that it shows; see _following_hour."""
    start = quarter_of(instant)
    while start.astimezone(zone).minute != 0:
        before = (start - QUARTER).astimezone(zone)
        if before.hour != start.astimezone(zone).hour:
            break
        start -= QUARTER
    return start


def boundaries(start: datetime, end: datetime, window: str, zone: ZoneInfo) -> Iterator[datetime]:
    """The starts of the windows in [start, end), in UTC, ascending; the first is `start` itself.

    Windows at either edge are cut off there. `start` < `end`, both in UTC.
    """
    if zone.key == "UTC" and window in _STEPS_OF_UTC:
        yield from _steps(start, end, _STEPS_OF_UTC[window])
        return
    following = _FOLLOWING[window]
    boundary: datetime | None = start
    while boundary is not None and boundary < end:
        yield boundary
        boundary = following(boundary, zone)


def _steps(start: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    """Nobody changes the clocks of UTC: a hundredth of the work."""
    yield start
    boundary = start - (start - EARLIEST) % step + step
    while boundary < end:
        yield boundary
        boundary += step


def _following_quarter(instant: datetime, _zone: ZoneInfo) -> datetime:
    return quarter_of(instant) + QUARTER


def _following_hour(instant: datetime, zone: ZoneInfo) -> datetime:
    """The next instant at which the clock shows a full hour, or has jumped into another one."""
    local = instant.astimezone(zone)
    past_hour_s = local.minute * 60 + local.second
    candidate = instant + timedelta(seconds=_HOUR_S - past_hour_s)
    shown = candidate.astimezone(zone)
    if shown.minute == 0:
        return candidate
    # The clock was changed by part of an hour on the way, as on Lord Howe Island.
    candidate = instant + QUARTER
    shown = candidate.astimezone(zone)
    while shown.minute != 0 and shown.hour == local.hour:
        candidate += QUARTER
        shown = candidate.astimezone(zone)
    return candidate


def _following_day(instant: datetime, zone: ZoneInfo) -> datetime:
    day = instant.astimezone(zone).date() + _ONE_DAY
    following = _day_start(day, zone)
    while following <= instant:
        # A date that was left out, as 2011-12-30 in Samoa.
        day += _ONE_DAY
        following = _day_start(day, zone)
    return following


def _following_week(instant: datetime, zone: ZoneInfo) -> datetime:
    day = instant.astimezone(zone).date()
    return _day_start(day + (_WEEK_DAYS - day.weekday()) * _ONE_DAY, zone)


def _following_month(instant: datetime, zone: ZoneInfo) -> datetime:
    first = instant.astimezone(zone).date().replace(day=1)
    # No month has more than 31 days, so this is in the next one.
    return _day_start((first + timedelta(days=31)).replace(day=1), zone)


def _never(_instant: datetime, _zone: ZoneInfo) -> None:
    return None


def _day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant, in UTC, at which the calendar shows `day` (or a later date)."""
    # In a gap (clocks go from 00:00 to 01:00) zoneinfo takes the offset before it: the gap's start.
    instant = datetime.combine(day, time(), zone).astimezone(UTC)
    while (instant - QUARTER).astimezone(zone).date() >= day:
        instant -= QUARTER
    return instant


_FOLLOWING: dict[str, Callable[[datetime, ZoneInfo], datetime | None]] = {
    QUARTER_HOUR: _following_quarter,
    HOUR: _following_hour,
    DAY: _following_day,
    WEEK: _following_week,
    MONTH: _following_month,
    TOTAL: _never,
}
_STEPS_OF_UTC = {QUARTER_HOUR: QUARTER, HOUR: timedelta(hours=1), DAY: timedelta(days=1)}
WINDOWS = tuple(_FOLLOWING)
# Those of a subscription, which whoever asks has to tell.
BILLING_PERIOD = "BILLING_PERIOD"
