"""Test clocks: the time of customers in test mode."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import test_clocks_pb2 as pb

from gateway.shapes.common import PageQuery, name_of, time_of, time_or_none

_STATUS = "TEST_CLOCK_STATUS_"


class NewTestClock(msgspec.Struct, rename="camel", kw_only=True):
    """A test clock to make."""

    customer_id: Annotated[
        str | None, Meta(description="Whose time; null: that of all customers")
    ] = None
    now: Annotated[
        datetime | None,
        Meta(
            description="What it is to show: from the present to 732 days ahead, never before the "
            "time that earlier clocks have reached; null: the present"
        ),
    ] = None


class TestClockAdvance(msgspec.Struct, rename="camel", kw_only=True):
    """Where a test clock is to go."""

    to: Annotated[datetime, Meta(description="After its time, at most 732 days on")]


class TestClock(msgspec.Struct, rename="camel", kw_only=True):
    """A test clock."""

    id: str
    customer_id: Annotated[str | None, Meta(description="Null: all customers")]
    status: Annotated[
        str,
        Meta(
            description="READY: it stands still, all that is due is done; ADVANCING: it goes on, "
            "or something is left to do; ENDED"
        ),
    ]
    now: Annotated[datetime, Meta(description="What it shows")]
    advancing_to: Annotated[datetime | None, Meta(description="While it is ADVANCING")]
    created_at: datetime
    ended_at: datetime | None


class TestClockPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of test clocks."""

    data: list[TestClock]
    next_cursor: str | None


class TestClocksQuery(PageQuery, kw_only=True):
    """Which clocks, newest first."""

    customer_id: Annotated[str, Meta(description="That this customer is or was on")] = ""


def from_proto(message: pb.TestClock) -> TestClock:
    """The JSON of a clock."""
    return TestClock(
        id=message.id,
        customer_id=message.customer_id or None,
        status=name_of(pb.TestClockStatus, message.status, _STATUS),
        now=time_of(message.now),
        advancing_to=time_or_none(message, "target_time"),
        created_at=time_of(message.create_time),
        ended_at=time_or_none(message, "end_time"),
    )
