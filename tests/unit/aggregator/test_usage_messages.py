"""Answers as messages: the same row by row, whichever way they are made."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from services.aggregator.domain import UsageRow
from services.aggregator.servicer import usage_response
from services.aggregator.usage_service import Usage

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
STARTS = tuple(START + number * HOUR for number in range(24))
VALUES = ("0.5", "12", "1E+3", "0E-12", "100", "0.10", "1E-12")


def usage(*numbers: int, group: dict[str, str] | None = None, starts: int = 24) -> Usage:
    """Of a day by hour, with rows in those of the windows."""
    rows = [
        UsageRow(
            STARTS[number],
            STARTS[number] + HOUR,
            group or {},
            Decimal(VALUES[number % len(VALUES)]),
        )
        for number in numbers
    ]
    end = STARTS[starts - 1] + HOUR
    return Usage("A", START, end, START + HOUR / 7, rows, STARTS[:starts], "next", True)


@pytest.mark.parametrize(
    "answer",
    [
        usage(),
        usage(3),
        usage(*range(24)),
        usage(*range(23)),
        usage(*range(1, 24)),
        usage(0, starts=1),
        usage(*range(24), group={"model": "x"}),
        usage(0, 0, group={"model": "x"}, starts=2),
    ],
)
def test_every_row_has_its_window_group_and_figure(answer: Usage) -> None:
    # Twice: what is remembered of the first must not show in the second.
    for figure in (None, Decimal("7.25")):
        rows = [row if figure is None else row._replace(value=figure) for row in answer.rows]
        told = usage_response(
            Usage("A", answer.start, answer.end, answer.as_of, rows, answer.starts, "next", True)
        )
        assert [made_of(row) for row in told.rows] == rows


def test_what_is_not_rows_is_told_besides() -> None:
    told = usage_response(usage(*range(24)))
    assert (told.metric, told.next_page_token, told.approximate) == ("A", "next", True)
    assert time_of(getattr(told, "from")) == START
    assert time_of(told.to) == STARTS[-1] + HOUR
    assert told.as_of.ToDatetime(tzinfo=UTC) == START + HOUR / 7
    figures = ["0.5", "12", "1000", "0", "100", "0.1", "0.000000000001"]
    assert [row.value for row in told.rows][:7] == figures


def made_of(row: pb.UsageRow) -> UsageRow:
    """What the message says."""
    start, end = time_of(row.start_time), time_of(row.end_time)
    return UsageRow(start, end, dict(row.group), Decimal(row.value))


def time_of(stamp: Timestamp) -> datetime:
    """In UTC."""
    time: datetime = stamp.ToDatetime(tzinfo=UTC)
    return time
