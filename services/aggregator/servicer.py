"""Translates between proto and domain; decides nothing but who may call."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import aggregator_pb2 as pb
from usageflow.aggregator.v1.aggregator_pb2_grpc import (
    AggregatorInternalServiceServicer,
    AggregatorServiceServicer,
)

from services.aggregator.domain import Metric, NewMetric, UsageRow
from services.aggregator.questions import Selection, UsageQuestion
from services.aggregator.service import BilledMetric, Metrics, UsageAnswers
from services.kit.auth import MODE_NAMES, require_scope
from services.kit.database import TenantKey
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.ids import organization_uuid
from services.kit.money import format_decimal

_AGGREGATIONS = {
    number: name.removeprefix("AGGREGATION_") for name, number in pb.Aggregation.items() if number
}
_AGGREGATIONS_BACK = {name: number for number, name in _AGGREGATIONS.items()}
_WINDOWS = {number: name.removeprefix("WINDOW_") for name, number in pb.Window.items() if number}


class AggregatorServicer(AggregatorServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(self, metrics: Metrics, answers: UsageAnswers) -> None:
        self._metrics = metrics
        self._answers = answers

    async def CreateMetric(
        self, request: pb.CreateMetricRequest, context: object
    ) -> pb.CreateMetricResponse:
        """Define a metric; scope admin."""
        tenant = require_scope("admin").tenant
        metric = await self._metrics.create(tenant, _new_metric(request.metric))
        return pb.CreateMetricResponse(metric=_metric(metric))

    async def GetMetric(
        self, request: pb.GetMetricRequest, context: object
    ) -> pb.GetMetricResponse:
        """One metric; scope read."""
        tenant = require_scope("read").tenant
        return pb.GetMetricResponse(metric=_metric(await self._metrics.get(tenant, request.key)))

    async def ListMetrics(
        self, request: pb.ListMetricsRequest, context: object
    ) -> pb.ListMetricsResponse:
        """A page of metrics, newest first; scope read."""
        tenant = require_scope("read").tenant
        metrics, next_page_token = await self._metrics.list(
            tenant, request.page_size, request.page_token
        )
        return pb.ListMetricsResponse(
            metrics=[_metric(metric) for metric in metrics], next_page_token=next_page_token
        )

    async def QueryUsage(
        self, request: pb.QueryUsageRequest, context: object
    ) -> pb.QueryUsageResponse:
        """How much, for whom, of what kind, in which window; scope read."""
        tenant = require_scope("read").tenant
        usage = await self._answers.query(tenant, _question(request))
        response = pb.QueryUsageResponse(
            metric=usage.metric,
            to=_timestamp(usage.end),
            as_of=_timestamp(usage.as_of),
            rows=[_row(row) for row in usage.rows],
        )
        # "from" is a word of Python's own.
        getattr(response, "from").CopyFrom(_timestamp(usage.start))
        return response


class AggregatorInternalServicer(AggregatorInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, answers: UsageAnswers) -> None:
        self._answers = answers

    async def GetBillableUsage(
        self, request: pb.GetBillableUsageRequest, context: object
    ) -> pb.GetBillableUsageResponse:
        """The usage of many customers and metrics, and up to when it is complete."""
        as_of, answers = await self._answers.billable(
            _tenant(request), [_selection(selection) for selection in request.selections]
        )
        return pb.GetBillableUsageResponse(
            as_of=_timestamp(as_of),
            selections=[
                pb.SelectionUsage(metrics=[_billed(metric) for metric in metrics])
                for metrics in answers
            ],
        )


def _new_metric(metric: pb.Metric) -> NewMetric:
    # An unknown number stays one, so that the domain refuses it.
    number = metric.aggregation or pb.AGGREGATION_SUM
    return NewMetric(
        key=metric.key,
        name=metric.name,
        unit=metric.unit,
        aggregation=_AGGREGATIONS.get(number, str(number)),
        dimensions=tuple(metric.dimensions),
        unique_by=metric.unique_by,
    )


def _metric(metric: Metric) -> pb.Metric:
    definition = metric.definition
    return pb.Metric(
        key=definition.key,
        name=definition.name,
        unit=definition.unit,
        aggregation=_AGGREGATIONS_BACK[definition.aggregation],
        dimensions=definition.dimensions,
        unique_by=definition.unique_by,
        create_time=_timestamp(metric.create_time),
    )


def _question(request: pb.QueryUsageRequest) -> UsageQuestion:
    number = request.window
    return UsageQuestion(
        metric=request.metric,
        customer_id=request.customer_id if request.HasField("customer_id") else None,
        start=_time(request, "from", "from") if request.HasField("from") else None,
        end=_time(request, "to", "to") if request.HasField("to") else None,
        # As above: unknown numbers are refused by the domain.
        window=_WINDOWS.get(number, str(number)) if number else "",
        group_by=tuple(request.group_by),
        time_zone=request.time_zone,
        filters=dict(request.filters),
    )


def _row(row: UsageRow) -> pb.UsageRow:
    return pb.UsageRow(
        start_time=_timestamp(row.start),
        end_time=_timestamp(row.end),
        group=row.group,
        value=format_decimal(row.value),
    )


def _tenant(request: pb.GetBillableUsageRequest) -> TenantKey:
    organization_uuid(request.organization_id)
    mode = MODE_NAMES.get(request.mode)
    if mode is None:
        raise InvalidArgumentError([FieldProblem("mode", "must be MODE_LIVE or MODE_TEST")])
    return TenantKey(request.organization_id, mode)


def _selection(selection: pb.UsageSelection) -> Selection:
    return Selection(
        customer_id=selection.customer_id,
        metrics=tuple(selection.metrics),
        start=_time(selection, "from", "selections.from"),
        end=_time(selection, "to", "selections.to"),
    )


def _billed(metric: BilledMetric) -> pb.MetricUsage:
    return pb.MetricUsage(
        metric=metric.metric, quantity=format_decimal(metric.quantity), unit=metric.unit
    )


def _time(message: pb.QueryUsageRequest | pb.UsageSelection, name: str, field: str) -> datetime:
    stamp: Timestamp = getattr(message, name)
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        problem = FieldProblem(field, "must be a time of the years 1 to 9999")
        raise InvalidArgumentError([problem]) from None


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
