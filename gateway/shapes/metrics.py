"""Metrics: what is counted, and how."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.shapes.common import name_of, number_of, time_of

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
    )
