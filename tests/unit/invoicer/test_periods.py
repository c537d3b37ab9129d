"""Periods: where they begin and end, in any zone, whatever the calendar does."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.invoicer.periods import (
    BillingAnchor,
    BillingPeriod,
    Cycle,
    Period,
    first_period,
    is_on_quarter_hour,
    is_time_zone,
    next_period,
    period_at,
    quarter_hour_of,
    whole_of,
)

CALENDAR, ANNIVERSARY = BillingAnchor.CALENDAR, BillingAnchor.ANNIVERSARY
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
    "Pacific/Chatham",
    "Africa/Cairo",
    "America/Santiago",
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def boundaries(cycle: Cycle, count: int) -> list[datetime]:
    """The start of the first period and the ends of the first `count`."""
    period = first_period(cycle)
    found = [period.start, period.end]
    for _ in range(count - 1):
        period = next_period(cycle, period)
        assert period.start == found[-1]
        found.append(period.end)
    return found


@pytest.mark.parametrize(
    ("anchor", "zone", "start", "expected"),
    [
        # A whole calendar month begins and ends at midnight of the first.
        (CALENDAR, "UTC", "2026-01-01T00:00", ["2026-02-01T00:00", "2026-03-01T00:00"]),
        # A start inside a month: the first part ends with the month.
        (CALENDAR, "UTC", "2026-01-31T23:45", ["2026-02-01T00:00", "2026-03-01T00:00"]),
        (CALENDAR, "UTC", "2024-02-29T12:00", ["2024-03-01T00:00", "2024-04-01T00:00"]),
        # The 31st: last day of shorter months, the 31st again after them.
        (
            ANNIVERSARY,
            "UTC",
            "2026-01-31T10:30",
            ["2026-02-28T10:30", "2026-03-31T10:30", "2026-04-30T10:30", "2026-05-31T10:30"],
        ),
        # 29 February: stays the 29th; the year after, February has 28.
        (
            ANNIVERSARY,
            "UTC",
            "2024-02-29T00:00",
            ["2024-03-29T00:00", "2024-04-29T00:00", "2024-05-29T00:00"],
        ),
        (ANNIVERSARY, "UTC", "2024-01-30T00:00", ["2024-02-29T00:00", "2024-03-30T00:00"]),
        # Clocks go forward on 29 March 2026 and back on 25 October: midnight stays midnight.
        (
            CALENDAR,
            "Europe/Berlin",
            "2026-01-31T23:00",
            ["2026-02-28T23:00", "2026-03-31T22:00", "2026-04-30T22:00"],
        ),
        (CALENDAR, "Europe/Berlin", "2026-09-30T22:00", ["2026-10-31T23:00", "2026-11-30T23:00"]),
        # 02:30 on 29 March does not exist in Berlin: read with the offset before, 01:30Z.
        (
            ANNIVERSARY,
            "Europe/Berlin",
            "2026-01-29T01:30",
            ["2026-02-28T01:30", "2026-03-29T01:30"],
        ),
        # 02:30 on 25 October comes twice: the first (summer time, 00:30Z) is meant.
        (
            ANNIVERSARY,
            "Europe/Berlin",
            "2026-08-25T00:30",
            ["2026-09-25T00:30", "2026-10-25T00:30"],
        ),
        # +05:45 and +05:30: midnight there is 18:15 and 18:30 here.
        (CALENDAR, "Asia/Kathmandu", "2026-01-10T06:15", ["2026-01-31T18:15", "2026-02-28T18:15"]),
        (CALENDAR, "Asia/Kolkata", "2026-01-31T18:30", ["2026-02-28T18:30", "2026-03-31T18:30"]),
        # The day there, not the day here: 31 January 19:00Z is 1 February in Kathmandu.
        (
            ANNIVERSARY,
            "Asia/Kathmandu",
            "2026-01-31T19:00",
            ["2026-02-28T19:00", "2026-03-31T19:00"],
        ),
        # +14:00: the first is still the last day of the month here.
        (CALENDAR, "Pacific/Kiritimati", "2026-01-31T10:00", ["2026-02-28T10:00"]),
        # A year ends.
        (CALENDAR, "UTC", "2026-12-01T00:00", ["2027-01-01T00:00"]),
        (
            ANNIVERSARY,
            "America/New_York",
            "2026-12-31T05:00",
            ["2027-01-31T05:00", "2027-02-28T05:00"],
        ),
    ],
)
def test_periods_end_where_a_calendar_on_the_wall_says(
    anchor: BillingAnchor, zone: str, start: str, expected: list[str]
) -> None:
    cycle = Cycle(utc(start), anchor, zone)
    assert boundaries(cycle, len(expected)) == [utc(start), *(utc(text) for text in expected)]


WEEKLY, QUARTERLY, YEARLY = BillingPeriod.WEEKLY, BillingPeriod.QUARTERLY, BillingPeriod.YEARLY


@pytest.mark.parametrize(
    ("length", "anchor", "zone", "start", "expected"),
    [
        # 2026-01-01 is a Thursday: the first part of a week ends with Sunday the 4th.
        (WEEKLY, CALENDAR, "UTC", "2026-01-01T00:00", ["2026-01-05T00:00", "2026-01-12T00:00"]),
        # A start on a Monday at midnight is that of a whole week.
        (WEEKLY, CALENDAR, "UTC", "2026-01-05T00:00", ["2026-01-12T00:00"]),
        (WEEKLY, CALENDAR, "UTC", "2026-12-31T10:00", ["2027-01-04T00:00", "2027-01-11T00:00"]),
        # Midnight there; the clocks go forward on Sunday, 29 March.
        (
            WEEKLY,
            CALENDAR,
            "Europe/Berlin",
            "2026-03-22T23:00",
            ["2026-03-29T22:00", "2026-04-05T22:00"],
        ),
        # Sunday 19:00Z is Monday in Kathmandu.
        (WEEKLY, CALENDAR, "Asia/Kathmandu", "2026-01-04T19:00", ["2026-01-11T18:15"]),
        # The same time of the same day of the week, 09:00 in Berlin.
        (
            WEEKLY,
            ANNIVERSARY,
            "Europe/Berlin",
            "2026-03-19T08:00",
            ["2026-03-26T08:00", "2026-04-02T07:00"],
        ),
        (QUARTERLY, CALENDAR, "UTC", "2026-02-10T00:00", ["2026-04-01T00:00", "2026-07-01T00:00"]),
        (QUARTERLY, CALENDAR, "UTC", "2026-12-31T23:45", ["2027-01-01T00:00", "2027-04-01T00:00"]),
        (
            QUARTERLY,
            CALENDAR,
            "Asia/Kolkata",
            "2026-03-31T18:30",
            ["2026-06-30T18:30", "2026-09-30T18:30"],
        ),
        # The 30th of November, the last of February, the 30th of May.
        (
            QUARTERLY,
            ANNIVERSARY,
            "UTC",
            "2026-11-30T06:00",
            ["2027-02-28T06:00", "2027-05-30T06:00", "2027-08-30T06:00"],
        ),
        # The 31st of January, and the 30th of April, the 31st of July, the 31st of October.
        (
            QUARTERLY,
            ANNIVERSARY,
            "UTC",
            "2026-01-31T00:00",
            ["2026-04-30T00:00", "2026-07-31T00:00", "2026-10-31T00:00"],
        ),
        (YEARLY, CALENDAR, "UTC", "2026-05-05T00:00", ["2027-01-01T00:00", "2028-01-01T00:00"]),
        (
            YEARLY,
            CALENDAR,
            "America/New_York",
            "2026-05-05T00:00",
            ["2027-01-01T05:00", "2028-01-01T05:00"],
        ),
        # 29 February: the 28th in years without, the 29th again in 2028.
        (
            YEARLY,
            ANNIVERSARY,
            "UTC",
            "2024-02-29T12:00",
            ["2025-02-28T12:00", "2026-02-28T12:00", "2027-02-28T12:00", "2028-02-29T12:00"],
        ),
        (YEARLY, ANNIVERSARY, "UTC", "2026-07-31T00:00", ["2027-07-31T00:00"]),
    ],
)
def test_weeks_quarters_and_years(
    length: BillingPeriod, anchor: BillingAnchor, zone: str, start: str, expected: list[str]
) -> None:
    cycle = Cycle(utc(start), anchor, zone, length)
    assert boundaries(cycle, len(expected)) == [utc(start), *(utc(text) for text in expected)]


def test_a_first_part_is_a_part_of_its_whole_week_quarter_or_year() -> None:
    start = utc("2026-05-06T12:00")
    wholes = {
        WEEKLY: Period(utc("2026-05-04"), utc("2026-05-11")),
        QUARTERLY: Period(utc("2026-04-01"), utc("2026-07-01")),
        YEARLY: Period(utc("2026-01-01"), utc("2027-01-01")),
    }
    for length, whole in wholes.items():
        cycle = Cycle(start, CALENDAR, "UTC", length)
        assert whole_of(cycle, first_period(cycle)) == whole


def test_an_anchor_never_drifts_over_years() -> None:
    cycle = Cycle(utc("2024-08-31T12:00"), ANNIVERSARY, "UTC")
    days = [instant.day for instant in boundaries(cycle, 24)]
    first_year = "31 30 31 30 31 31 28 31 30 31 30 31"
    assert " ".join(map(str, days)) == f"{first_year} {first_year} 31"


def test_midnight_that_a_zone_skips_is_the_moment_of_the_change() -> None:
    # In Cairo 2026-04-24 begins at 01:00, at what is 22:00Z of the day before.
    cycle = Cycle(utc("2026-03-23T22:00"), ANNIVERSARY, "Africa/Cairo")
    assert first_period(cycle).end == utc("2026-04-23T22:00")


def test_a_first_part_of_a_month_is_a_part_of_the_whole_month() -> None:
    cycle = Cycle(utc("2026-01-10T06:15"), CALENDAR, "Asia/Kathmandu")
    first = first_period(cycle)
    assert whole_of(cycle, first) == Period(utc("2025-12-31T18:15"), utc("2026-01-31T18:15"))
    second = next_period(cycle, first)
    assert whole_of(cycle, second) == second


def test_a_month_with_a_change_of_clocks_is_as_long_as_it_is() -> None:
    cycle = Cycle(utc("2026-02-28T23:00"), CALENDAR, "Europe/Berlin")
    march = first_period(cycle)
    assert march.seconds == 31 * 86_400 - 3_600


def test_an_anniversary_period_is_always_whole() -> None:
    cycle = Cycle(utc("2026-01-31T10:30"), ANNIVERSARY, "UTC")
    first = first_period(cycle)
    assert whole_of(cycle, first) == first


def test_a_boundary_moved_by_new_zone_rules_makes_no_period_of_an_hour() -> None:
    """The stored end is an hour before what today's rules say: the next period takes it up."""
    for anchor in BillingAnchor:
        cycle = Cycle(utc("2026-01-01T00:00"), anchor, "UTC")
        stored = Period(utc("2026-01-01T00:00"), utc("2026-01-31T23:00"))
        assert next_period(cycle, stored) == Period(
            utc("2026-01-31T23:00"), utc("2026-03-01T00:00")
        )


def test_the_running_period_is_found_from_an_old_one() -> None:
    cycle = Cycle(utc("2026-01-01T00:00"), CALENDAR, "UTC")
    first = first_period(cycle)
    assert period_at(cycle, first, utc("2026-01-01T00:00")) == first
    april = Period(utc("2026-04-01T00:00"), utc("2026-05-01T00:00"))
    assert period_at(cycle, first, utc("2026-04-01T00:00")) == april
    assert period_at(cycle, first, utc("2026-04-30T23:59:59.999999")) == april


def test_quarters_of_an_hour() -> None:
    assert is_on_quarter_hour(utc("2026-01-01T10:45"))
    assert not is_on_quarter_hour(utc("2026-01-01T10:45:00.000001"))
    assert not is_on_quarter_hour(utc("2026-01-01T10:50"))
    assert quarter_hour_of(utc("2026-01-01T10:59:59.999999")) == utc("2026-01-01T10:45")


@pytest.mark.parametrize("name", ["UTC", "Asia/Kathmandu", "America/Argentina/Buenos_Aires"])
def test_iana_zones_are_known(name: str) -> None:
    assert is_time_zone(name)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../etc/passwd", "europe", "localtime", "+05:45"]
)
def test_other_names_are_no_zones(name: str) -> None:
    assert not is_time_zone(name)


QUARTERS = st.integers(min_value=0, max_value=4 * 24 * 365 * 12).map(
    lambda quarters: utc("2022-01-01T00:00") + quarters * timedelta(minutes=15)
)


@given(QUARTERS, st.sampled_from(BillingAnchor), st.sampled_from(ZONES))
def test_weeks_abut_and_follow_the_wall_clock(
    start: datetime, anchor: BillingAnchor, zone: str
) -> None:
    found = boundaries(Cycle(start, anchor, zone, WEEKLY), 10)
    assert all(is_on_quarter_hour(instant) for instant in found)
    local = [instant.astimezone(ZoneInfo(zone)) for instant in found]
    dates = [instant.date() for instant in local]
    assert {(later - earlier).days for earlier, later in pairwise(dates[1:])} == {7}
    assert {date.weekday() for date in dates[1:]} == {
        0 if anchor is CALENDAR else dates[0].weekday()
    }


@given(QUARTERS, st.sampled_from(BillingAnchor), st.sampled_from(ZONES))
def test_periods_abut_lie_on_quarter_hours_and_follow_the_wall_clock(
    start: datetime, anchor: BillingAnchor, zone: str
) -> None:
    cycle = Cycle(start, anchor, zone)
    found = boundaries(cycle, 14)
    assert all(earlier < later for earlier, later in pairwise(found))
    assert all(is_on_quarter_hour(instant) for instant in found)
    local = [instant.astimezone(ZoneInfo(zone)) for instant in found]
    months = [instant.year * 12 + instant.month for instant in local]
    assert months == list(range(months[0], months[0] + 15))
    day = 1 if anchor is CALENDAR else local[0].day
    for instant in local[1:]:
        following = instant + timedelta(days=1)
        assert instant.day == day or (following.month != instant.month and instant.day < day)


@given(
    QUARTERS,
    st.sampled_from(BillingAnchor),
    st.sampled_from(ZONES),
    st.sampled_from(BillingPeriod),
    st.integers(0, 400),
)
def test_every_instant_lies_in_exactly_one_period(
    start: datetime, anchor: BillingAnchor, zone: str, length: BillingPeriod, days: int
) -> None:
    cycle = Cycle(start, anchor, zone, length)
    instant = start + timedelta(days=days, minutes=7)
    found = period_at(cycle, first_period(cycle), instant)
    assert found.start <= instant < found.end
