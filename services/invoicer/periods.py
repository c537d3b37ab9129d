"""How a subscription's time is cut into periods. Pure.

Periods are half-open, [start, end), follow the subscription's time zone and abut: each begins
where the one before it ended. Instants are UTC. Every boundary is computed from the start of the
subscription, so that a 31st that became a 28th is a 31st again in the next month.

A wall-clock time that a zone skips (clocks go forward) is read with the offset from before the
change, one that comes twice is the first of the two, as in RFC 5545, 3.3.5.
"""

import functools
import zoneinfo
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

QUARTER_HOUR = timedelta(minutes=15)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS_A_YEAR = 12
# Many subscriptions have the same ones, and each draft asks for some dozens.
BOUNDARIES_KEPT_MAX = 4_096
# Names in the tz database's directory that are no time zones of a place.
_NO_ZONES = frozenset({"Factory", "localtime"})


class BillingPeriod(StrEnum):
    """How long a period is."""

    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    QUARTERLY = "QUARTERLY"
    YEARLY = "YEARLY"


class BillingAnchor(StrEnum):
    """Where periods begin: on the calendar's, or on the day and time of the start.

    The calendar's are Monday (ISO 8601) and the first of the month, quarter or year, at midnight.
    An anniversary on a day that a month lacks is on the month's last day.
    """

    CALENDAR = "CALENDAR"
    ANNIVERSARY = "ANNIVERSARY"


_MONTHS = {BillingPeriod.MONTHLY: 1, BillingPeriod.QUARTERLY: 3, BillingPeriod.YEARLY: 12}
_WEEK_DAYS = 7


@dataclass(frozen=True, slots=True)
class Period:
    """[start, end), in UTC."""

    start: datetime
    end: datetime

    @property
    def seconds(self) -> int:
        """Its length."""
        return int((self.end - self.start).total_seconds())


@dataclass(frozen=True, slots=True)
class Cycle:
    """All that a subscription's periods depend on."""

    start: datetime
    anchor: BillingAnchor
    time_zone: str
    billing_period: BillingPeriod = BillingPeriod.MONTHLY


def is_time_zone(name: str) -> bool:
    """Whether `name` is an IANA time zone."""
    return name in _time_zones()


@functools.cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NO_ZONES


def is_on_quarter_hour(instant: datetime) -> bool:
    """Whether usage can be cut at `instant`: it is kept in quarters of an hour."""
    return (instant - _EPOCH) % QUARTER_HOUR == timedelta(0)


def quarter_hour_of(instant: datetime) -> datetime:
    """The start of the quarter of an hour that `instant` lies in."""
    return instant - (instant - _EPOCH) % QUARTER_HOUR


def days_later(instant: datetime, days: int, time_zone: str) -> datetime:
    """The same time of day `days` days later, in the time zone."""
    zone = ZoneInfo(time_zone)
    local = instant.astimezone(zone).replace(tzinfo=None, fold=0) + timedelta(days=days)
    return local.replace(tzinfo=zone).astimezone(UTC)


def first_period(cycle: Cycle) -> Period:
    """The period that the subscription begins with; under CALENDAR it may be a part of one."""
    return Period(cycle.start, _boundary(cycle, 1))


def next_period(cycle: Cycle, previous: Period) -> Period:
    """The period that begins where `previous` ended.

    `previous.end` counts as the boundary that it is nearest to: when a zone's rules have changed
    since it was computed, the next period takes up the hour, and no period of an hour arises.
    """
    index = _nearest_index(cycle, previous.end)
    return Period(previous.end, _boundary(cycle, index + 1))


def period_at(cycle: Cycle, period: Period, instant: datetime) -> Period:
    """`period`, or the one after it that `instant` lies in."""
    while period.end <= instant:
        period = next_period(cycle, period)
    return period


def whole_at(cycle: Cycle, instant: datetime) -> Period:
    """The whole period that `instant` lies in, whatever the subscription's start."""
    nearest = _nearest_index(cycle, instant)
    index = nearest if _boundary(cycle, nearest) <= instant else nearest - 1
    return Period(_boundary(cycle, index), _boundary(cycle, index + 1))


def boundary_near(cycle: Cycle, instant: datetime) -> datetime:
    """Where a period begins, of all those instants the nearest one."""
    return _boundary(cycle, _nearest_index(cycle, instant))


def whole_of(cycle: Cycle, period: Period) -> Period:
    """The whole period that `period` is a part of: itself but for a first part of one."""
    if cycle.anchor is BillingAnchor.CALENDAR and period.start == cycle.start:
        return Period(_boundary(cycle, 0), period.end)
    return period


@functools.lru_cache(maxsize=BOUNDARIES_KEPT_MAX)
def _boundary(cycle: Cycle, index: int) -> datetime:
    """The instant at which period number `index` begins; number 0 is the one of the start."""
    if index == 0 and cycle.anchor is BillingAnchor.ANNIVERSARY:
        return cycle.start
    zone = ZoneInfo(cycle.time_zone)
    local = cycle.start.astimezone(zone).replace(tzinfo=None, fold=0)
    calendar = cycle.anchor is BillingAnchor.CALENDAR
    if calendar:
        local = local.replace(hour=0, minute=0, second=0, microsecond=0)
    if cycle.billing_period is BillingPeriod.WEEKLY:
        there = local + timedelta(days=index * _WEEK_DAYS - (local.weekday() if calendar else 0))
    else:
        there = _months_on(local, index, _MONTHS[cycle.billing_period], calendar=calendar)
    return there.replace(tzinfo=zone).astimezone(UTC)


def _months_on(local: datetime, index: int, length: int, *, calendar: bool) -> datetime:
    """The wall-clock time `index` periods of `length` months on.

    On the calendar's first day of a period; otherwise on the day of `local`, or the month's last.
    """
    months = local.year * _MONTHS_A_YEAR + local.month - 1
    if calendar:
        months -= months % length
    year, month = divmod(months + index * length, _MONTHS_A_YEAR)
    month += 1
    day = 1 if calendar else min(local.day, monthrange(year, month)[1])
    return local.replace(year=year, month=month, day=day)


def _nearest_index(cycle: Cycle, instant: datetime) -> int:
    zone = ZoneInfo(cycle.time_zone)
    start, local = cycle.start.astimezone(zone), instant.astimezone(zone)
    if cycle.billing_period is BillingPeriod.WEEKLY:
        guess = (local.date() - start.date()).days // _WEEK_DAYS
    else:
        months = (local.year - start.year) * _MONTHS_A_YEAR + local.month - start.month
        guess = months // _MONTHS[cycle.billing_period]
    near = range(guess - 1, guess + 2)
    return min(near, key=lambda index: abs(_boundary(cycle, index) - instant))
