"""Usage: how much, for whom, of what kind, in which window."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, field
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.shapes.common import Amount, number_of, time_of, timestamp

_WINDOW = "WINDOW_"


class UsageQuery(msgspec.Struct, rename="camel", kw_only=True):
    """What usage is asked for."""

    metric: str
    customer_id: Annotated[
        str | None, Meta(description="Only this customer's; left out: all together")
    ] = None
    from_: Annotated[
        datetime | None, Meta(description="Start, included; left out: start of this month")
    ] = field(default=None, name="from")
    to: Annotated[datetime | None, Meta(description="End, not included; left out: now")] = None
    window: Literal["HOUR", "DAY", "MONTH", "TOTAL"] = "TOTAL"
    group_by: Annotated[
        list[str], Meta(description="customerId and dimensions of the metric, comma separated")
    ] = []
    timezone: Annotated[str, Meta(description="IANA time zone")] = ""
    filter: Annotated[
        dict[str, str], Meta(description="filter[region]=eu: only usage with that dimension")
    ] = {}


class UsageRow(msgspec.Struct, rename="camel", kw_only=True):
    """The usage of one group in one interval [start, end)."""

    start: datetime
    end: datetime
    group: dict[str, str]
    value: Amount


class Usage(msgspec.Struct, rename="camel", kw_only=True):
    """Usage; everything accepted before `asOf` is in."""

    metric: str
    from_: datetime = field(name="from")
    to: datetime
    as_of: datetime
    data: list[UsageRow]


def to_proto(asked: UsageQuery) -> pb.QueryUsageRequest:
    """The request that asks for it."""
    return pb.QueryUsageRequest(
        metric=asked.metric,
        customer_id=asked.customer_id,
        to=timestamp(asked.to),
        window=number_of(pb.Window, asked.window, _WINDOW),
        group_by=asked.group_by,
        time_zone=asked.timezone,
        filters=asked.filter,
        # The field's name is a keyword of Python.
        **{"from": timestamp(asked.from_)},
    )


def from_proto(message: pb.QueryUsageResponse) -> Usage:
    """The JSON of usage."""
    return Usage(
        metric=message.metric,
        from_=time_of(getattr(message, "from")),
        to=time_of(message.to),
        as_of=time_of(message.as_of),
        data=[
            UsageRow(
                start=time_of(row.start_time),
                end=time_of(row.end_time),
                group=dict(row.group),
                value=row.value,
            )
            for row in message.rows
        ],
    )
