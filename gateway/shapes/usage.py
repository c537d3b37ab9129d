"""Usage: how much, for whom, of what kind, in which window."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.shapes.common import Amount, number_of, time_of, timestamp
from services.kit.usage_token import CHARS_MAX

_WINDOW = "WINDOW_"
_PERCENTILE = "PERCENTILE_"
TOP_MAX = 1_000
PAGE_ROWS_MAX = 10_000


class UsageSelection(msgspec.Struct, rename="camel", kw_only=True):
    """Which usage, and how it is cut."""

    metric: str
    customer_id: Annotated[
        str | None, Meta(description="Only this customer's; left out: all together")
    ] = None
    from_: Annotated[
        datetime | None, Meta(description="Start, included; left out: start of this month")
    ] = field(default=None, name="from")
    to: Annotated[datetime | None, Meta(description="End, not included; left out: now")] = None
    window: Annotated[
        Literal["15MIN", "HOUR", "DAY", "WEEK", "MONTH", "TOTAL", "BILLING_PERIOD"],
        Meta(
            description="BILLING_PERIOD: the periods of the customer's subscription; from defaults "
            "to the start of the running one"
        ),
    ] = "TOTAL"
    subscription_id: Annotated[
        str,
        Meta(
            description="With window BILLING_PERIOD: whose periods; needed when customerId has "
            "several subscriptions that go on"
        ),
    ] = ""
    group_by: Annotated[
        list[str], Meta(description="customerId and dimensions of the metric, comma separated")
    ] = []
    timezone: Annotated[str, Meta(description="IANA time zone")] = ""
    filter: Annotated[
        dict[str, list[str]],
        Meta(
            description="filter[region]=eu: only usage with that dimension; once more for each "
            "other value that fits too, up to 100"
        ),
    ] = {}
    percentile: Annotated[
        Literal["P50", "P95", "P99"] | None,
        Meta(
            description="In place of the metric's figure, the amount that so many of 100 events do "
            "not exceed; of metrics with percentiles. At most 0.5 % off, exact for amounts of up "
            "to 3 digits; never billed"
        ),
    ] = None
    usage_token: Annotated[
        str,
        Meta(
            max_length=CHARS_MAX,
            description="usage-token of an answer to POST /api/track or /api/track/batch: what "
            "it acknowledged is in",
        ),
    ] = ""


class LiveQuery(UsageSelection, rename="camel", kw_only=True):
    """What usage is watched: all rows, at most 1,000, or the largest groups."""

    top: Annotated[
        int,
        Meta(
            ge=1,
            le=TOP_MAX,
            description="Only so many groups, those with the largest figures, largest first; with "
            "groupBy, and window TOTAL",
        ),
    ] = 0


class UsageQuery(UsageSelection, rename="camel", kw_only=True):
    """What usage is asked for: all rows, the largest groups, or a page."""

    top: Annotated[
        int,
        Meta(
            ge=1,
            le=TOP_MAX,
            description="Only so many groups, those with the largest figures, largest first; with "
            "groupBy, and window TOTAL",
        ),
    ] = 0
    limit: Annotated[
        int,
        Meta(
            ge=1,
            le=PAGE_ROWS_MAX,
            description="Rows in the page; left out: all in one answer, at most 20,000",
        ),
    ] = 0
    cursor: Annotated[
        str, Meta(description="nextCursor of the page before, with the same question")
    ] = ""


class UsageRow(msgspec.Struct, rename="camel", kw_only=True):
    """The usage of one group in one interval [start, end)."""

    start: datetime
    end: datetime
    group: dict[str, str]
    value: Amount


class Usage(msgspec.Struct, rename="camel", kw_only=True):
    """Usage; everything accepted before `asOf` is in. Values are exact unless `approximate`."""

    metric: str
    from_: datetime = field(name="from")
    to: datetime
    as_of: datetime
    approximate: Annotated[bool, Meta(description="Values are percentiles, each at most 0.5 % off")]
    data: list[UsageRow]
    next_cursor: str | None


def to_proto(asked: UsageQuery, usage_token: str) -> pb.QueryUsageRequest:
    """The request that asks for it, with what has to be in; "": whatever has been counted."""
    request = selection_to_proto(asked, usage_token)
    request.top, request.page_size, request.page_token = asked.top, asked.limit, asked.cursor
    return request


def live_to_proto(asked: LiveQuery, usage_token: str) -> pb.QueryUsageRequest:
    """The question that is watched."""
    request = selection_to_proto(asked, usage_token)
    request.top = asked.top
    return request


def selection_to_proto(asked: UsageSelection, usage_token: str) -> pb.QueryUsageRequest:
    """The request that asks for all of it."""
    # The field's name is a keyword of Python.
    start: dict[str, Any] = {"from": timestamp(asked.from_)}
    return pb.QueryUsageRequest(
        metric=asked.metric,
        customer_id=asked.customer_id,
        to=timestamp(asked.to),
        window=number_of(pb.Window, asked.window, _WINDOW),
        group_by=asked.group_by,
        time_zone=asked.timezone,
        filters={name: values[0] for name, values in asked.filter.items() if len(values) == 1},
        filters_any={
            name: pb.FilterValues(values=values)
            for name, values in asked.filter.items()
            if len(values) > 1
        },
        percentile=number_of(pb.Percentile, asked.percentile or "UNSPECIFIED", _PERCENTILE),
        usage_token=usage_token,
        **start,
    )


def from_proto(message: pb.QueryUsageResponse) -> Usage:
    """The JSON of usage."""
    return Usage(
        metric=message.metric,
        from_=time_of(getattr(message, "from")),
        to=time_of(message.to),
        as_of=time_of(message.as_of),
        approximate=message.approximate,
        data=[
            UsageRow(
                start=time_of(row.start_time),
                end=time_of(row.end_time),
                group=dict(row.group),
                value=row.value,
            )
            for row in message.rows
        ],
        next_cursor=message.next_page_token or None,
    )


class ActivityQuery(msgspec.Struct, rename="camel", kw_only=True):
    """When the events happened."""

    from_: Annotated[
        datetime | None,
        Meta(description="Start of a quarter of an hour, included; left out: start of today, UTC"),
    ] = field(default=None, name="from")
    to: Annotated[
        datetime | None,
        Meta(description="End, not included, at most 31 days later; left out: now"),
    ] = None


class MetricActivity(msgspec.Struct, rename="camel", kw_only=True):
    """How many events of a metric there were."""

    metric: str
    event_count: int


class Activity(msgspec.Struct, rename="camel", kw_only=True):
    """How many events were counted; `data` has the 1,000 metrics with the most of them."""

    from_: datetime = field(name="from")
    to: datetime
    event_count: int
    data: list[MetricActivity]


def activity_to_proto(asked: ActivityQuery) -> pb.GetActivityRequest:
    """The request that asks for it."""
    # The field's name is a keyword of Python.
    start: dict[str, Any] = {"from": timestamp(asked.from_)}
    return pb.GetActivityRequest(to=timestamp(asked.to), **start)


def activity_from_proto(message: pb.GetActivityResponse) -> Activity:
    """The JSON of activity."""
    return Activity(
        from_=time_of(getattr(message, "from")),
        to=time_of(message.to),
        event_count=message.event_count,
        data=[
            MetricActivity(metric=each.metric, event_count=each.event_count)
            for each in message.metrics
        ],
    )
