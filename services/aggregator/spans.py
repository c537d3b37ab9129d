"""Cuts ranges of time into days, spans of four hours and quarters of an hour of UTC. Pure.

What lies before `rolled_until` is there in days and spans of four hours; the windows of a question
begin and end on any quarter of an hour. A range is read as the whole days in it, the spans of four
hours at both sides of these, and buckets at the edges: at most 10 spans and 30 buckets around the
days, wherever a time zone lets the day begin.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

# As in usage_rollups; BUCKETS stands for usage_buckets.
BUCKETS, BLOCKS, DAYS = 0, 4, 24
BLOCK = timedelta(hours=BLOCKS)
DAY = timedelta(hours=DAYS)
# A year of days that begin within a span of four hours is 1,095 pieces. A question of more is
# answered from buckets alone: then looking the pieces up costs more than it saves.
PIECES_MAX = 1_200

# Of what each range of a Cut is read from.
_HOURS = (BUCKETS, BLOCKS, DAYS, BLOCKS, BUCKETS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cut(NamedTuple):
    """[start, end) as ranges that lie side by side: buckets up to `blocks_start`, spans of four
    hours up to `days_start`, days up to `days_end`, spans up to `blocks_end`, and buckets.
    """

    start: datetime
    blocks_start: datetime
    days_start: datetime
    days_end: datetime
    blocks_end: datetime
    end: datetime


class Piece(NamedTuple):
    """A range that is read from spans of so many hours, or from BUCKETS."""

    span_hours: int
    start: datetime
    end: datetime


def cut(start: datetime, end: datetime, rolled_until: datetime) -> Cut:
    """The ranges of [start, end); `rolled_until` begins a span of four hours."""
    blocks_start = _ceil(start, BLOCK)
    blocks_end = _floor(min(end, rolled_until), BLOCK)
    if blocks_start >= blocks_end:
        return Cut(start, end, end, end, end, end)
    days_start, days_end = _ceil(blocks_start, DAY), _floor(blocks_end, DAY)
    if days_start >= days_end:
        days_start = days_end = blocks_end
    return Cut(start, blocks_start, days_start, days_end, blocks_end, end)


def pieces(windows: Iterable[tuple[datetime, datetime]], rolled_until: datetime) -> Sequence[Piece]:
    """What windows that lie side by side, in order, are read from; no span lies in two windows."""
    found: list[Piece] = []
    first: datetime | None = None
    end: datetime | None = None
    for window_start, window_end in windows:
        first, end = first or window_start, window_end
        each = cut(window_start, window_end, rolled_until)
        for hours, (piece_start, piece_end) in zip(_HOURS, pairwise(each), strict=True):
            if piece_start == piece_end:
                continue
            if found and found[-1].span_hours == hours:
                found[-1] = found[-1]._replace(end=piece_end)
            else:
                found.append(Piece(hours, piece_start, piece_end))
    if len(found) <= PIECES_MAX or first is None or end is None:
        return found
    return [Piece(BUCKETS, first, end)]


def days_around(start: datetime, end: datetime, rolled_until: datetime) -> Piece | None:
    """The whole days that hold [start, end); None: one of them is not there yet."""
    piece = Piece(DAYS, _floor(start, DAY), _ceil(end, DAY))
    return piece if piece.end <= rolled_until else None


def block_start(instant: datetime) -> datetime:
    """When the span of four hours that `instant` lies in began."""
    return _floor(instant, BLOCK)


def day_start(instant: datetime) -> datetime:
    """When the day of UTC that `instant` lies in began."""
    return _floor(instant, DAY)


def _floor(instant: datetime, span: timedelta) -> datetime:
    return _EPOCH + (instant - _EPOCH) // span * span


def _ceil(instant: datetime, span: timedelta) -> datetime:
    return _EPOCH - (_EPOCH - instant) // span * span
