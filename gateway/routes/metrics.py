"""/api/metrics"""

from litestar import get, post
from litestar.params import FromPath, JSONBody
from usageflow.aggregator.v1 import aggregator_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.common import PageQuery
from gateway.shapes.metrics import Metric, MetricPage, NewMetric, from_proto, to_proto


@post("/api/metrics")
async def create_metric(calls: ApiCalls, data: JSONBody[NewMetric]) -> Metric:
    """Define a metric; the same definition again changes nothing."""
    request = pb.CreateMetricRequest(metric=to_proto(data))
    return from_proto((await calls.call(calls.aggregator.CreateMetric, request)).metric)


@get("/api/metrics", dependencies=query(PageQuery))
async def list_metrics(calls: ApiCalls, asked: Asked[PageQuery]) -> MetricPage:
    """List the metrics, newest first."""
    request = pb.ListMetricsRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.aggregator.ListMetrics, request)
    return MetricPage(
        data=[from_proto(metric) for metric in answer.metrics],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/metrics/{key:str}")
async def get_metric(calls: ApiCalls, key: FromPath[str]) -> Metric:
    """One metric."""
    answer = await calls.call(calls.aggregator.GetMetric, pb.GetMetricRequest(key=key))
    return from_proto(answer.metric)


HANDLERS = [create_metric, list_metrics, get_metric]
