"""/dashboard/metrics"""

from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.aggregator.v1 import aggregator_pb2

from gateway.dashboard import questions
from gateway.dashboard.visit import Visited
from gateway.shapes import metrics
from gateway.shapes.metrics import NewMetric
from gateway.shapes.usage import UsageQuery
from services.kit.errors import DomainError

AGGREGATIONS = (
    ("SUM", "Sum of amounts"),
    ("COUNT", "Number of events"),
    ("MAX", "Largest amount"),
    ("MIN", "Smallest amount"),
    ("AVG", "Average amount"),
    ("LATEST", "Latest amount"),
    ("UNIQUE_COUNT", "Number of different values"),
)


@get("/dashboard/metrics", include_in_schema=False)
async def list_metrics(visit: Visited) -> Response[bytes]:
    """What is counted."""
    return visit.page(
        "metrics.html", metrics=await questions.all_metrics(visit.calls), names=dict(AGGREGATIONS)
    )


@get("/dashboard/metrics/new", include_in_schema=False)
async def new_metric(visit: Visited) -> Response[bytes]:
    """The form for one more."""
    return visit.page("metric_new.html", aggregations=AGGREGATIONS)


@post("/dashboard/metrics/new", include_in_schema=False)
async def create_metric(visit: Visited) -> Response[bytes]:
    """Define a metric."""
    try:
        metric = visit.form.read(NewMetric)
        request = aggregator_pb2.CreateMetricRequest(metric=metrics.to_proto(metric))
        await visit.calls.call(visit.calls.aggregator.CreateMetric, request)
    except DomainError as error:
        visit.form.refuse(error)
        return visit.page("metric_new.html", 400, aggregations=AGGREGATIONS)
    return visit.go(f"/dashboard/metrics/{quote(metric.key, safe='')}", "created")


@get("/dashboard/metrics/{key:str}", include_in_schema=False)
async def show_metric(visit: Visited, key: FromPath[str]) -> Response[bytes]:
    """One metric, how to send events for it, and what it counted this month."""
    request = aggregator_pb2.GetMetricRequest(key=key)
    answer = await visit.calls.call(visit.calls.aggregator.GetMetric, request)
    usage = await questions.ask_usage(visit.calls, UsageQuery(metric=key, from_=visit.month))
    return visit.page(
        "metric.html",
        metric=metrics.from_proto(answer.metric),
        value=usage.data[0].value if usage.data else "0",
        names=dict(AGGREGATIONS),
    )


HANDLERS = [list_metrics, new_metric, create_metric, show_metric]
