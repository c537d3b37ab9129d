"""Metrics: what is counted, and how."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.shapes.common import PageQuery, name_of, number_of, time_of, time_or_none

AggregationName = Literal["SUM", "COUNT", "MAX", "MIN", "AVG", "LATEST", "UNIQUE_COUNT"]
_PREFIX = "AGGREGATION_"


class NewMetric(msgspec.Struct, rename="camel", kw_only=True):
    """A metric to define."""

    key: Annotated[str, Meta(description="1-128 of A-Z a-z 0-9 _ . : -")]
    name: str = ""
    unit: Annotated[str, Meta(description='For example "tokens"')] = ""
    aggregation: AggregationName = "SUM"
    dimensions: Annotated[
        list[str], Meta(description="Metadata properties to group and price by")
    ] = []
    unique_by: Annotated[
        str, Meta(description="The metadata property whose different values UNIQUE_COUNT counts")
    ] = ""
    percentiles: Annotated[
        bool, Meta(description="Whether GET /api/usage can tell P50, P95 and P99 of the amounts")
    ] = False


class MetricChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change of a metric; what is left out stays."""

    name: str | UnsetType = UNSET
    unit: str | UnsetType = UNSET
    aggregation: AggregationName | UnsetType = UNSET
    dimensions: list[str] | UnsetType = UNSET
    unique_by: str | UnsetType = UNSET
    percentiles: bool | UnsetType = UNSET


class MetricsQuery(PageQuery, rename="camel", kw_only=True):
    """Which page of the metrics."""

    include_archived: Annotated[bool, Meta(description="With those that were archived")] = False


class MetricRebuild(msgspec.Struct, rename="camel", kw_only=True):
    """A change of a metric whose events are counted anew; until it is DONE the old one serves."""

    state: Literal["RUNNING", "DONE", "FAILED", "CANCELLED"]
    progress: Annotated[int, Meta(description="Percent; 100 once it is done")]
    events_done: int
    events_total: Annotated[int | None, Meta(description="null: not known yet")]
    aggregation: str
    dimensions: list[str]
    unique_by: str | None
    percentiles: bool
    error: Annotated[str | None, Meta(description="Why it has failed")]
    started_at: datetime
    ended_at: datetime | None


class Metric(msgspec.Struct, rename="camel", kw_only=True):
    """A metric as it is defined."""

    key: str
    name: str
    unit: str
    aggregation: str
    dimensions: list[str]
    unique_by: str | None
    percentiles: bool
    created_at: datetime
    archived_at: datetime | None
    rebuild: Annotated[
        MetricRebuild | None,
        Meta(description="The last change that had to count its events anew; null: there was none"),
    ]


class MetricPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of metrics."""

    data: list[Metric]
    next_cursor: str | None


def to_proto(metric: NewMetric) -> pb.Metric:
    """The message of a metric to define."""
    return pb.Metric(
        key=metric.key,
        name=metric.name,
        unit=metric.unit,
        aggregation=number_of(pb.Aggregation, metric.aggregation, _PREFIX),
        dimensions=metric.dimensions,
        unique_by=metric.unique_by,
        percentiles=metric.percentiles,
    )


def from_proto(message: pb.Metric) -> Metric:
    """The JSON of a metric."""
    return Metric(
        key=message.key,
        name=message.name,
        unit=message.unit,
        aggregation=name_of(pb.Aggregation, message.aggregation, _PREFIX),
        dimensions=list(message.dimensions),
        unique_by=message.unique_by or None,
        percentiles=message.percentiles,
        created_at=time_of(message.create_time),
        archived_at=time_or_none(message, "archive_time"),
        rebuild=_rebuild(message.rebuild) if message.HasField("rebuild") else None,
    )


def change_to_proto(key: str, change: MetricChange) -> pb.UpdateMetricRequest:
    """The request that changes the fields that were sent."""
    sent = {name: getattr(change, name) for name in change.__struct_fields__}
    sent = {name: value for name, value in sent.items() if value is not UNSET}
    fields = list(sent)
    if "aggregation" in sent:
        sent["aggregation"] = number_of(pb.Aggregation, sent["aggregation"], _PREFIX)
    return pb.UpdateMetricRequest(metric=pb.Metric(key=key, **sent), update_fields=fields)


def _rebuild(message: pb.MetricRebuild) -> MetricRebuild:
    state: Any = name_of(pb.RebuildState, message.state, "REBUILD_STATE_")
    return MetricRebuild(
        state=state,
        progress=message.progress_percent,
        events_done=message.events_done,
        events_total=message.events_total if message.HasField("events_total") else None,
        aggregation=name_of(pb.Aggregation, message.aggregation, _PREFIX),
        dimensions=list(message.dimensions),
        unique_by=message.unique_by or None,
        percentiles=message.percentiles,
        error=message.error or None,
        started_at=time_of(message.start_time),
        ended_at=time_or_none(message, "end_time"),
    )
