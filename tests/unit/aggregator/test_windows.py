"""Hours, days, weeks and months of time zones, checked against dates worked out by hand."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.domain import QUARTER, is_quarter
from services.aggregator.windows import (
    DAY,
    HOUR,
    MONTH,
    QUARTER_HOUR,
    TOTAL,
    WEEK,
    WINDOWS,
    boundaries,
    month_start,
    period_at,
    zone_names,
)

ZONES = (
    "America/New_York",
    "Europe/London",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "America/Sao_Paulo",
    "Pacific/Auckland",
    "UTC",
)


def utc(text: str) -> datetime:
    """ "2026-03-01T05:00" as a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cut(start: str, end: str, window: str, zone: str) -> list[datetime]:
    """The windows' starts, and the end."""
    return [*boundaries(utc(start), utc(end), window, ZoneInfo(zone)), utc(end)]


def hours(edges: list[datetime]) -> list[float]:
    """How long each window is."""
    return [(after - before) / timedelta(hours=1) for before, after in itertools.pairwise(edges)]


# zone, local date, its first instant in UTC, its length in hours
DAYS = [
    ("America/New_York", "2025-03-08", "2025-03-08T05:00", 24),
    ("America/New_York", "2025-03-09", "2025-03-09T05:00", 23),
    ("America/New_York", "2025-03-10", "2025-03-10T04:00", 24),
    ("America/New_York", "2025-11-02", "2025-11-02T04:00", 25),
    ("America/New_York", "2025-11-03", "2025-11-03T05:00", 24),
    ("America/New_York", "2026-03-08", "2026-03-08T05:00", 23),
    ("America/New_York", "2026-11-01", "2026-11-01T04:00", 25),
    ("America/New_York", "2027-03-14", "2027-03-14T05:00", 23),
    ("America/New_York", "2027-11-07", "2027-11-07T04:00", 25),
    ("Europe/London", "2025-03-30", "2025-03-30T00:00", 23),
    ("Europe/London", "2025-10-26", "2025-10-25T23:00", 25),
    ("Europe/London", "2026-03-29", "2026-03-29T00:00", 23),
    ("Europe/London", "2026-03-30", "2026-03-29T23:00", 24),
    ("Europe/London", "2026-10-25", "2026-10-24T23:00", 25),
    ("Europe/London", "2027-03-28", "2027-03-28T00:00", 23),
    ("Europe/London", "2027-10-31", "2027-10-30T23:00", 25),
    ("Asia/Kolkata", "2025-01-01", "2024-12-31T18:30", 24),
    ("Asia/Kolkata", "2026-03-29", "2026-03-28T18:30", 24),
    ("Asia/Kolkata", "2027-12-31", "2027-12-30T18:30", 24),
    ("Asia/Kathmandu", "2025-06-15", "2025-06-14T18:15", 24),
    ("Asia/Kathmandu", "2026-10-25", "2026-10-24T18:15", 24),
    ("Asia/Kathmandu", "2027-01-01", "2026-12-31T18:15", 24),
    ("America/Sao_Paulo", "2025-02-16", "2025-02-16T03:00", 24),
    ("America/Sao_Paulo", "2026-11-01", "2026-11-01T03:00", 24),
    ("America/Sao_Paulo", "2027-10-17", "2027-10-17T03:00", 24),
    ("Pacific/Auckland", "2025-04-06", "2025-04-05T11:00", 25),
    ("Pacific/Auckland", "2025-09-28", "2025-09-27T12:00", 23),
    ("Pacific/Auckland", "2026-04-05", "2026-04-04T11:00", 25),
    ("Pacific/Auckland", "2026-04-06", "2026-04-05T12:00", 24),
    ("Pacific/Auckland", "2026-09-27", "2026-09-26T12:00", 23),
    ("Pacific/Auckland", "2027-04-04", "2027-04-03T11:00", 25),
    ("Pacific/Auckland", "2027-09-26", "2027-09-25T12:00", 23),
    # Clocks go from 00:00 to 01:00, from 24:00 to 23:00, and a date is left out.
    ("America/Santiago", "2026-09-06", "2026-09-06T04:00", 23),
    ("America/Santiago", "2026-04-04", "2026-04-04T03:00", 25),
    ("Africa/Cairo", "2026-04-24", "2026-04-23T22:00", 23),
    ("America/Havana", "2026-11-01", "2026-11-01T04:00", 25),
    ("Pacific/Apia", "2011-12-29", "2011-12-29T10:00", 24),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00", 24),
]


@pytest.mark.parametrize(("zone", "day", "start", "length_hours"), DAYS)
def test_a_day_begins_and_lasts_as_the_calendar_says(
    zone: str, day: str, start: str, length_hours: int
) -> None:
    begin = utc(start)
    noon_before, noon_after = begin - timedelta(hours=12), begin + timedelta(hours=40)
    found = list(boundaries(noon_before, noon_after, DAY, ZoneInfo(zone)))
    assert begin in found
    assert begin.astimezone(ZoneInfo(zone)).date().isoformat() == day
    following = found[found.index(begin) + 1]
    assert following - begin == timedelta(hours=length_hours)


MONTHS = [
    # zone, first instant of the month and of the next one in UTC, hours
    ("America/New_York", "2025-03-01T05:00", "2025-04-01T04:00", 743),
    ("America/New_York", "2026-11-01T04:00", "2026-12-01T05:00", 721),
    ("Europe/London", "2026-09-30T23:00", "2026-11-01T00:00", 745),
    ("Asia/Kolkata", "2026-01-31T18:30", "2026-02-28T18:30", 672),
    ("Asia/Kathmandu", "2027-02-28T18:15", "2027-03-31T18:15", 744),
    ("America/Sao_Paulo", "2025-12-01T03:00", "2026-01-01T03:00", 744),
    ("Pacific/Auckland", "2026-03-31T11:00", "2026-04-30T12:00", 721),
    ("Pacific/Auckland", "2027-08-31T12:00", "2027-09-30T11:00", 719),
]


@pytest.mark.parametrize(("zone", "start", "end", "length_hours"), MONTHS)
def test_a_month_begins_and_lasts_as_the_calendar_says(
    zone: str, start: str, end: str, length_hours: int
) -> None:
    assert cut(start, end, MONTH, zone) == [utc(start), utc(end)]
    assert hours([utc(start), utc(end)]) == [length_hours]
    middle = utc(start) + timedelta(days=15)
    assert month_start(middle, ZoneInfo(zone)) == utc(start)
    assert month_start(utc(end) - QUARTER, ZoneInfo(zone)) == utc(start)
    assert month_start(utc(end), ZoneInfo(zone)) == utc(end)


# zone, first instant of a Monday and of the next one in UTC, hours
WEEKS = [
    ("America/New_York", "2025-03-03T05:00", "2025-03-10T04:00", 167),
    ("America/New_York", "2026-10-26T04:00", "2026-11-02T05:00", 169),
    ("Europe/London", "2026-03-23T00:00", "2026-03-29T23:00", 167),
    ("Europe/London", "2027-10-24T23:00", "2027-11-01T00:00", 169),
    ("Asia/Kolkata", "2025-12-28T18:30", "2026-01-04T18:30", 168),
    ("Asia/Kathmandu", "2027-02-28T18:15", "2027-03-07T18:15", 168),
    ("America/Sao_Paulo", "2025-02-10T03:00", "2025-02-17T03:00", 168),
    ("Pacific/Auckland", "2026-03-29T11:00", "2026-04-05T12:00", 169),
    ("Pacific/Auckland", "2027-09-19T12:00", "2027-09-26T11:00", 167),
]


@pytest.mark.parametrize(("zone", "start", "end", "length_hours"), WEEKS)
def test_a_week_lasts_from_monday_to_sunday(
    zone: str, start: str, end: str, length_hours: int
) -> None:
    assert cut(start, end, WEEK, zone) == [utc(start), utc(end)]
    assert hours([utc(start), utc(end)]) == [length_hours]
    for inside in (utc(start), utc(end) - QUARTER, utc(start) + timedelta(days=3)):
        assert period_at(inside, WEEK, ZoneInfo(zone)) == (utc(start), utc(end))


@pytest.mark.parametrize(
    ("zone", "start", "end", "count"),
    [
        ("America/New_York", "2026-11-01T04:00", "2026-11-02T05:00", 25),
        ("America/New_York", "2026-03-08T05:00", "2026-03-09T04:00", 23),
        ("Asia/Kathmandu", "2026-03-07T18:15", "2026-03-08T18:15", 24),
    ],
)
def test_a_day_has_as_many_hours_as_the_clock_strikes(
    zone: str, start: str, end: str, count: int
) -> None:
    edges = cut(start, end, HOUR, zone)
    assert hours(edges) == [1.0] * count
    assert all(edge.astimezone(ZoneInfo(zone)).minute == 0 for edge in edges)


def test_half_an_hour_of_summer_time_makes_a_short_and_a_long_hour() -> None:
    # Lord Howe Island: 2026-04-05 02:00 +11:00 becomes 01:30 +10:30; 2026-10-04 the other way.
    back = cut("2026-04-04T14:00", "2026-04-04T16:30", HOUR, "Australia/Lord_Howe")
    assert hours(back) == [1.5, 1.0]
    forward = cut("2026-10-03T14:30", "2026-10-03T17:00", HOUR, "Australia/Lord_Howe")
    assert hours(forward) == [1.0, 0.5, 1.0]


def test_windows_are_cut_off_at_the_ends_of_the_range() -> None:
    edges = cut("2026-03-01T10:45", "2026-03-03T06:15", DAY, "Europe/London")
    assert edges == [
        utc("2026-03-01T10:45"),
        utc("2026-03-02T00:00"),
        utc("2026-03-03T00:00"),
        utc("2026-03-03T06:15"),
    ]
    assert cut("2026-03-01T10:45", "2026-03-01T12:15", HOUR, "Asia/Kolkata") == [
        utc("2026-03-01T10:45"),
        utc("2026-03-01T11:30"),
        utc("2026-03-01T12:15"),
    ]


def test_total_is_one_window() -> None:
    assert cut("2026-03-01T10:45", "2027-03-03T06:15", TOTAL, "Asia/Kolkata") == [
        utc("2026-03-01T10:45"),
        utc("2027-03-03T06:15"),
    ]


quarters = st.integers(0, 3 * 366 * 96).map(lambda n: utc("2025-01-01T00:00") + n * QUARTER)


@given(
    quarters,
    st.integers(0, 899),
    st.sampled_from(ZONES),
    st.sampled_from([window for window in WINDOWS if window != TOTAL]),
)
def test_an_instant_lies_in_the_window_that_a_longer_range_is_cut_into(
    quarter: datetime, seconds: int, zone: str, window: str
) -> None:
    instant = quarter + timedelta(seconds=seconds)
    start, end = period_at(instant, window, ZoneInfo(zone))
    assert start <= instant < end
    assert list(boundaries(start, end + QUARTER, window, ZoneInfo(zone))) == [start, end]
    before, _ = period_at(start - QUARTER, window, ZoneInfo(zone))
    assert list(boundaries(before, end, window, ZoneInfo(zone))) == [before, start]


def test_quarters_of_an_hour_are_those_of_the_clock() -> None:
    edges = cut("2026-03-01T10:45", "2026-03-01T11:30", QUARTER_HOUR, "Asia/Kathmandu")
    assert hours(edges) == [0.25] * 3


@given(quarters, st.integers(1, 40 * 96), st.sampled_from(ZONES), st.sampled_from((HOUR, DAY)))
def test_windows_tile_the_range_and_change_where_the_clock_or_calendar_does(
    start: datetime, length: int, zone: str, window: str
) -> None:
    end = start + length * QUARTER
    edges = [*boundaries(start, end, window, ZoneInfo(zone)), end]
    assert edges == sorted(set(edges))
    assert edges[0] == start
    for before, after in itertools.pairwise(edges):
        first = before.astimezone(ZoneInfo(zone))
        last = (after - QUARTER).astimezone(ZoneInfo(zone))
        assert first.date() == last.date()
        if window == HOUR:
            assert first.hour == last.hour
            assert after - before <= timedelta(hours=1)
        if after != end:
            # Nothing is cut in two without need.
            following = after.astimezone(ZoneInfo(zone))
            assert following.minute == 0
            assert window == HOUR or following.date() != last.date()


@pytest.mark.parametrize("window", [DAY, MONTH])
def test_windows_of_every_zone_begin_on_a_quarter_of_an_hour(window: str) -> None:
    years = [utc(f"{year}-01-01T00:00") for year in (2000, 2010, 2025, 2028)]
    for name in sorted(zone_names()):
        zone = ZoneInfo(name)
        for start in years if window == MONTH else years[2:3]:
            found = list(boundaries(start, start + timedelta(days=400), window, zone))
            assert all(is_quarter(edge) for edge in found), name


def test_the_offset_of_every_zone_is_made_of_quarters_of_an_hour_since_2000() -> None:
    steps = [utc("2000-01-01T00:00") + timedelta(days=10 * n) for n in range(37 * 30)]
    for name in sorted(zone_names()):
        zone = ZoneInfo(name)
        offsets = {step.astimezone(zone).utcoffset() for step in steps}
        assert all(offset is not None and not offset % QUARTER for offset in offsets), name
