"""Translates between proto and domain; decides nothing but who may call."""

import functools
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import aggregator_pb2 as pb
from usageflow.aggregator.v1 import audit_pb2, quotas_pb2
from usageflow.aggregator.v1.aggregator_pb2_grpc import (
    AggregatorInternalServiceServicer,
    AggregatorServiceServicer,
)

from services.aggregator.activity import Activities
from services.aggregator.domain import Metric, NewMetric, Rebuild, UsageRow
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import GRIDS_REMEMBERED_MAX, Selection, UsageQuestion
from services.aggregator.rebuilds.domain import MetricChange
from services.aggregator.reconciliation.standing import Standings
from services.aggregator.recounter import answered
from services.aggregator.usage_service import BilledMetric, Usage, UsageAnswers
from services.kit import usage_token
from services.kit.auth import MODE_NAMES, require_scope
from services.kit.database import TenantKey
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import expecting, tagged
from services.kit.ids import organization_uuid
from services.kit.money import format_decimal

_AGGREGATIONS = {
    number: name.removeprefix("AGGREGATION_") for name, number in pb.Aggregation.items() if number
}
_AGGREGATIONS_BACK = {name: number for number, name in _AGGREGATIONS.items()}
_PERCENTILES = {
    number: name.removeprefix("PERCENTILE_") for name, number in pb.Percentile.items() if number
}
_CHANGEABLE = {"name", "unit", "aggregation", "dimensions", "unique_by", "percentiles"}
_WINDOWS = {number: name.removeprefix("WINDOW_") for name, number in pb.Window.items() if number}


class AggregatorServicer(AggregatorServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(
        self,
        metrics: Metrics,
        answers: UsageAnswers,
        activities: Activities,
        standings: Standings,
    ) -> None:
        self._metrics = metrics
        self._answers = answers
        self._activities = activities
        self._standings = standings

    async def CreateMetric(
        self, request: pb.CreateMetricRequest, context: object
    ) -> pb.CreateMetricResponse:
        """Define a metric; scope admin."""
        caller = require_scope("admin")
        metric = await self._metrics.create(
            caller.tenant, _new_metric(request.metric), caller.actor_id
        )
        return pb.CreateMetricResponse(metric=metric_message(metric))

    async def GetMetric(
        self, request: pb.GetMetricRequest, context: object
    ) -> pb.GetMetricResponse:
        """One metric; scope read."""
        tenant = require_scope("read").tenant
        return pb.GetMetricResponse(
            metric=metric_message(await self._metrics.get(tenant, request.key))
        )

    async def ListMetrics(
        self, request: pb.ListMetricsRequest, context: object
    ) -> pb.ListMetricsResponse:
        """A page of metrics, newest first; scope read."""
        tenant = require_scope("read").tenant
        metrics, next_page_token = await self._metrics.list(
            tenant, request.page_size, request.page_token, archived=request.include_archived
        )
        return pb.ListMetricsResponse(
            metrics=[metric_message(metric) for metric in metrics], next_page_token=next_page_token
        )

    async def UpdateMetric(
        self, request: pb.UpdateMetricRequest, context: object
    ) -> pb.UpdateMetricResponse:
        """Change a metric; scope admin."""
        caller = require_scope("admin")
        change = _change(request)
        expect = expecting(request.if_match, metric_message)
        metric = await self._metrics.update(
            caller.tenant, request.metric.key, change, expect, caller.actor_id
        )
        return pb.UpdateMetricResponse(metric=metric_message(metric))

    async def ArchiveMetric(
        self, request: pb.ArchiveMetricRequest, context: object
    ) -> pb.ArchiveMetricResponse:
        """Leave a metric out of lists; scope admin."""
        caller = require_scope("admin")
        metric = await self._metrics.archive(
            caller.tenant, request.key, archived=True, by_key=caller.actor_id
        )
        return pb.ArchiveMetricResponse(metric=metric_message(metric))

    async def UnarchiveMetric(
        self, request: pb.UnarchiveMetricRequest, context: object
    ) -> pb.UnarchiveMetricResponse:
        """List an archived metric again; scope admin."""
        caller = require_scope("admin")
        metric = await self._metrics.archive(
            caller.tenant, request.key, archived=False, by_key=caller.actor_id
        )
        return pb.UnarchiveMetricResponse(metric=metric_message(metric))

    async def QueryUsage(
        self, request: pb.QueryUsageRequest, context: object
    ) -> pb.QueryUsageResponse:
        """How much, for whom, of what kind, in which window; scope read."""
        caller = require_scope("read")
        token = usage_token.decode(request.usage_token) if request.usage_token else None
        asked = replace(question_of(request), now=caller.time_of(request.customer_id))
        query = self._answers.query
        return usage_response(await answered(lambda: query(caller.tenant, asked, token)))

    async def GetActivity(
        self, request: pb.GetActivityRequest, context: object
    ) -> pb.GetActivityResponse:
        """How many events were counted of each metric; scope read."""
        tenant = require_scope("read").tenant
        start = _time(request, "from", "from") if request.HasField("from") else None
        end = _time(request, "to", "to") if request.HasField("to") else None
        activity = await self._activities.get(tenant, start, end)
        # The field's name is a keyword of Python.
        started: dict[str, Any] = {"from": _timestamp(activity.start)}
        return pb.GetActivityResponse(
            to=_timestamp(activity.end),
            event_count=activity.event_count,
            metrics=[
                pb.MetricActivity(metric=metric, event_count=count)
                for metric, count in activity.metrics
            ],
            **started,
        )

    async def GetReconciliation(
        self, request: pb.GetReconciliationRequest, context: object
    ) -> pb.GetReconciliationResponse:
        """Where usage is not what was accepted; scope read."""
        standing = await self._standings.get(require_scope("read").tenant)
        checked = standing.checked_until
        return pb.GetReconciliationResponse(
            checked_until=None if checked is None else _timestamp(checked),
            difference_count=standing.count,
            differences=[
                pb.ReconciliationDifference(
                    metric=each.metric,
                    hour=_timestamp(each.hour),
                    accepted_count=each.accepted_count,
                    accepted_sum=format_decimal(each.accepted_sum),
                    counted_count=each.counted_count,
                    counted_sum=format_decimal(each.counted_sum),
                    find_time=_timestamp(each.find_time),
                )
                for each in standing.differences
            ],
        )


class AggregatorInternalServicer(AggregatorInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, answers: UsageAnswers, metrics: Metrics) -> None:
        self._answers = answers
        self._metrics = metrics

    async def FindDefinedMetrics(
        self, request: pb.FindDefinedMetricsRequest, context: object
    ) -> pb.FindDefinedMetricsResponse:
        """Which metrics somebody has defined, and which have defined themselves."""
        found = await self._metrics.find_defined(tenant_of(request), request.keys)
        return pb.FindDefinedMetricsResponse(
            keys=found.defined, self_defined_keys=found.self_defined, archived_keys=found.archived
        )

    async def GetBillableUsage(
        self, request: pb.GetBillableUsageRequest, context: object
    ) -> pb.GetBillableUsageResponse:
        """The usage of many customers and metrics, and up to when it is complete."""
        told = await self._answers.billable_reading(
            tenant_of(request),
            [_selection(selection) for selection in request.selections],
            tell_counted=request.tell_counted,
        )
        response = pb.GetBillableUsageResponse(
            as_of=_timestamp(told.as_of),
            selections=[
                pb.SelectionUsage(metrics=[_billed(metric) for metric in metrics])
                for metrics in told.answers
            ],
        )
        if told.counted is not None:
            response.counted.before.FromDatetime(told.counted.before)
            response.counted.batch_ids = told.counted.batch_ids
        return response


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
        percentiles=metric.percentiles,
    )


def _change(request: pb.UpdateMetricRequest) -> MetricChange:
    """What is to be different. InvalidArgumentError: a field that does not change."""
    unknown = sorted(set(request.update_fields) - _CHANGEABLE)
    if unknown:
        message = f"must be of {', '.join(sorted(_CHANGEABLE))}; not {', '.join(unknown)}"
        raise InvalidArgumentError([FieldProblem("updateFields", message)])
    sent = _new_metric(request.metric)
    return MetricChange(**{name: getattr(sent, name) for name in request.update_fields})


def metric_message(metric: Metric) -> pb.Metric:
    """The message of a metric."""
    definition = metric.definition
    message = pb.Metric(
        key=definition.key,
        name=definition.name,
        unit=definition.unit,
        aggregation=_AGGREGATIONS_BACK[definition.aggregation],
        dimensions=definition.dimensions,
        unique_by=definition.unique_by,
        percentiles=definition.percentiles,
        create_time=_timestamp(metric.create_time),
        archive_time=None if metric.archive_time is None else _timestamp(metric.archive_time),
        rebuild=None if metric.rebuild is None else _rebuild(metric.rebuild),
    )
    return tagged(message)


def _rebuild(rebuild: Rebuild) -> pb.MetricRebuild:
    message = pb.MetricRebuild(
        state=pb.RebuildState.Value(f"REBUILD_STATE_{rebuild.state}"),
        progress_percent=rebuild.progress_percent,
        events_done=rebuild.events_done,
        events_total=rebuild.events_total,
        error=rebuild.error,
        start_time=_timestamp(rebuild.start_time),
        end_time=None if rebuild.end_time is None else _timestamp(rebuild.end_time),
    )
    if rebuild.new is not None:
        message.aggregation = _AGGREGATIONS_BACK[rebuild.new.aggregation]
        message.dimensions.extend(rebuild.new.dimensions)
        message.unique_by = rebuild.new.unique_by
        message.percentiles = rebuild.new.percentiles
    return message


def question_of(request: pb.QueryUsageRequest) -> UsageQuestion:
    """The question; InvalidArgumentError for a time that is none."""
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
        top=request.top,
        page_size=request.page_size,
        page_token=request.page_token,
        percentile=_PERCENTILES.get(request.percentile, str(request.percentile))
        if request.percentile
        else "",
        filters_any={name: tuple(each.values) for name, each in request.filters_any.items()},
        window_starts=[_instant(each, "windowStarts") for each in request.window_starts],
    )


def usage_response(usage: Usage) -> pb.QueryUsageResponse:
    """The message of an answer."""
    response = pb.QueryUsageResponse()
    if not usage.rows or usage.rows[0].group or len(usage.rows) != len(usage.starts):
        _add_rows(response, usage.rows)
    else:
        response.MergeFromString(_empty_rows(tuple(usage.starts), usage.end))
        for added, row in zip(response.rows, usage.rows, strict=True):
            added.value = format_decimal(row.value)
    response.metric = usage.metric
    # "from" is a word of Python's own.
    getattr(response, "from").FromDatetime(usage.start)
    response.to.FromDatetime(usage.end)
    response.as_of.FromDatetime(usage.as_of)
    response.next_page_token = usage.next_page_token
    response.approximate = usage.approximate
    return response


@functools.lru_cache(maxsize=GRIDS_REMEMBERED_MAX)
def _empty_rows(starts: tuple[datetime, ...], end: datetime) -> bytes:
    """The message of an answer that has a row without a value for each window.

    Customers are asked about by the same windows, one after the other: to read it and to set the
    values takes a third of the time of making the rows.
    """
    response = pb.QueryUsageResponse()
    ends = (*starts[1:], end)
    nothing = Decimal(0)
    _add_rows(response, map(UsageRow, starts, ends, ({},) * len(starts), (nothing,) * len(starts)))
    return response.SerializeToString()


def _add_rows(response: pb.QueryUsageResponse, rows: Iterable[UsageRow]) -> None:
    """Field by field: a quarter of what a message takes that is made apart and copied.

    Windows begin on quarters of an hour.
    """
    add = response.rows.add
    # A window begins where the one before ends, and may have many groups.
    end, end_s = None, 0
    start, start_s = None, 0
    for row in rows:
        if row.start is not start:
            start_s = end_s if row.start is end else int(row.start.timestamp())
            start, end = row.start, row.end
            end_s = int(end.timestamp())
        added = add()
        added.start_time.seconds = start_s
        added.end_time.seconds = end_s
        if row.group:
            added.group.update(row.group)
        added.value = format_decimal(row.value)


def tenant_of(
    request: pb.GetBillableUsageRequest
    | pb.FindDefinedMetricsRequest
    | quotas_pb2.SetSubscriptionLimitsRequest
    | audit_pb2.ListTenantMetricsRequest
    | audit_pb2.QueryTenantUsageRequest,
) -> TenantKey:
    """Whose usage is asked for; InvalidArgumentError."""
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
        splits={
            split.metric: [dict(match.dimensions) for match in split.matches]
            for split in selection.splits
        },
    )


def _billed(metric: BilledMetric) -> pb.MetricUsage:
    return pb.MetricUsage(
        metric=metric.metric,
        quantity=format_decimal(metric.quantity),
        unit=metric.unit,
        event_count=metric.event_count,
        amount_sum=format_decimal(metric.amount_sum),
        part_quantities=[format_decimal(part) for part in metric.parts],
        adds_up=metric.adds_up,
    )


def _time(
    message: pb.QueryUsageRequest | pb.UsageSelection | pb.GetActivityRequest, name: str, field: str
) -> datetime:
    return _instant(getattr(message, name), field)


def _instant(stamp: Timestamp, field: str) -> datetime:
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        problem = FieldProblem(field, "must be a time of the years 1 to 9999")
        raise InvalidArgumentError([problem]) from None


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
