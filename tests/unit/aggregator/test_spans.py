"""A range is cut into days, spans of four hours and quarters of an hour without gap or overlap."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.spans import (
    BLOCK,
    BUCKETS,
    DAY,
    DAYS,
    PIECES_MAX,
    Piece,
    block_start,
    cut,
    day_start,
    pieces,
)
from services.aggregator.windows import boundaries
from tests.integration.aggregator.sending import utc

QUARTER = timedelta(minutes=15)
BEGIN = utc("2026-03-01T00:00")
quarters = st.integers(0, 40 * 96).map(lambda number: BEGIN + number * QUARTER)
blocks = st.integers(-6, 41 * 6).map(lambda number: BEGIN + number * BLOCK)


def windows_of(
    start: datetime, end: datetime, window: str, zone: str
) -> list[tuple[datetime, datetime]]:
    """The windows of a question."""
    starts = list(boundaries(start, end, window, ZoneInfo(zone)))
    return list(zip(starts, [*starts[1:], end], strict=True))


def rows(found: Sequence[Piece]) -> list[tuple[datetime, datetime]]:
    """Every span and every bucket that the pieces are read from."""
    read = []
    for piece in found:
        size = timedelta(hours=piece.span_hours) if piece.span_hours else QUARTER
        at = piece.start
        while at < piece.end:
            read.append((at, at + size))
            at += size
        assert at == piece.end
    return read


@given(
    ends=st.tuples(quarters, quarters).filter(lambda pair: pair[0] < pair[1]),
    rolled_until=blocks,
    window=st.sampled_from(["TOTAL", "MONTH", "WEEK", "DAY"]),
    zone=st.sampled_from(["UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York"]),
)
def test_pieces_are_the_whole_of_each_window_and_nothing_else(
    ends: tuple[datetime, datetime], rolled_until: datetime, window: str, zone: str
) -> None:
    asked = windows_of(*ends, window, zone)
    found = pieces(asked, rolled_until)
    read = rows(found)
    assert read[0][0] == ends[0]
    assert read[-1][1] == ends[1]
    assert all(before[1] == after[0] for before, after in pairwise(read))
    for start, end in read:
        assert any(first <= start and end <= last for first, last in asked)
        if end - start > QUARTER:
            assert end <= rolled_until
            hours = (end - start) // timedelta(hours=1)
            assert start == (day_start(start) if hours == DAYS else block_start(start))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu"])
def test_a_month_of_any_zone_is_few_rows(zone: str) -> None:
    [*_, (start, end)] = windows_of(
        utc("2026-02-02T00:00"), utc("2026-04-02T00:00"), "MONTH", zone
    )[:2]
    found = rows(pieces([(start, end)], utc("2026-05-01T00:00")))
    assert len(found) <= 31 + 10 + 30


def test_a_year_of_one_series_costs_less_than_forty_thousand_rows() -> None:
    year = timedelta(days=366)
    assert year // QUARTER + year // BLOCK + year // DAY < 40_000


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_a_year_by_day_is_read_from_spans(zone: str) -> None:
    asked = windows_of(utc("2025-06-01T00:00"), utc("2026-06-01T00:00"), "DAY", zone)
    found = pieces(asked, utc("2026-07-01T00:00"))
    assert len(rows(found)) <= 366 * 21 < 366 * 96


def test_what_would_be_too_many_pieces_is_read_from_buckets() -> None:
    asked = windows_of(utc("2010-01-01T00:00"), utc("2026-01-01T00:00"), "DAY", "Asia/Kolkata")
    found = pieces(asked, utc("2026-07-01T00:00"))
    assert found == [Piece(BUCKETS, asked[0][0], asked[-1][1])]
    assert len(found) <= PIECES_MAX


def test_nothing_is_rolled_up_behind_the_instant() -> None:
    start, end = utc("2026-03-01T05:30"), utc("2026-03-03T05:30")
    assert cut(start, end, utc("2026-03-01T08:00")) == (start, end, end, end, end, end)
    assert cut(start, end, utc("2026-03-01T12:00"))[1:5] == (
        utc("2026-03-01T08:00"),
        utc("2026-03-01T12:00"),
        utc("2026-03-01T12:00"),
        utc("2026-03-01T12:00"),
    )
