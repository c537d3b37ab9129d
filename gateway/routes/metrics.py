"""/api/metrics"""

from litestar import Response, get, patch, post
from litestar.params import FromPath, JSONBody
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.metrics import (
    Metric,
    MetricChange,
    MetricPage,
    MetricsQuery,
    NewMetric,
    change_to_proto,
    from_proto,
    to_proto,
)


@post("/api/metrics")
async def create_metric(calls: ApiCalls, data: JSONBody[NewMetric]) -> Metric:
    """Define a metric; the same definition again changes nothing.

    A metric that has counted events without a definition counts them anew, as with PATCH.
    """
    request = pb.CreateMetricRequest(metric=to_proto(data))
    return from_proto((await calls.call(calls.aggregator.CreateMetric, request)).metric)


@get("/api/metrics", dependencies=query(MetricsQuery))
async def list_metrics(calls: ApiCalls, asked: Asked[MetricsQuery]) -> MetricPage:
    """List the metrics, newest first."""
    request = pb.ListMetricsRequest(
        page_size=asked.limit,
        page_token=asked.cursor,
        include_archived=asked.include_archived,
    )
    answer = await calls.call(calls.aggregator.ListMetrics, request)
    return MetricPage(
        data=[from_proto(metric) for metric in answer.metrics],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/metrics/{key:str}")
async def get_metric(calls: ApiCalls, key: FromPath[str]) -> Response[Metric]:
    """One metric."""
    answer = await calls.call(calls.aggregator.GetMetric, pb.GetMetricRequest(key=key))
    return _shown(answer.metric)


@patch("/api/metrics/{key:str}")
async def change_metric(
    calls: ApiCalls,
    key: FromPath[str],
    data: JSONBody[MetricChange],
    if_match: IfMatch = None,
) -> Response[Metric]:
    """Change some of a metric; what is left out stays.

    Another way to count is built from the stored events, in the background: until that is done the
    metric is what it was, and `rebuild` tells how far it has got.
    """
    request = change_to_proto(key, data)
    request.if_match.extend(tags_of(if_match))
    return _shown((await calls.call(calls.aggregator.UpdateMetric, request)).metric)


@post("/api/metrics/{key:str}/archive", status_code=200)
async def archive_metric(calls: ApiCalls, key: FromPath[str]) -> Metric:
    """Leave a metric out of lists; its events are stored and counted all the same."""
    request = pb.ArchiveMetricRequest(key=key)
    return from_proto((await calls.call(calls.aggregator.ArchiveMetric, request)).metric)


@post("/api/metrics/{key:str}/unarchive", status_code=200)
async def unarchive_metric(calls: ApiCalls, key: FromPath[str]) -> Metric:
    """List an archived metric again."""
    request = pb.UnarchiveMetricRequest(key=key)
    return from_proto((await calls.call(calls.aggregator.UnarchiveMetric, request)).metric)


def _shown(metric: pb.Metric) -> Response[Metric]:
    return Response(from_proto(metric), status_code=200, headers=etag(metric))


HANDLERS = [
    create_metric,
    list_metrics,
    get_metric,
    change_metric,
    archive_metric,
    unarchive_metric,
]
