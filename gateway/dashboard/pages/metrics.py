"""/dashboard/metrics"""

from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.aggregator.v1 import aggregator_pb2

from gateway.dashboard import questions
from gateway.dashboard.forms import ETAG, Form, split
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import metrics
from gateway.shapes.metrics import Metric, MetricChange, NewMetric
from gateway.shapes.usage import UsageQuery
from services.kit.errors import DomainError, StaleError

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
    visit.require("metrics")
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
    metric = await _metric(visit, key)
    usage = await questions.ask_usage(visit.calls, UsageQuery(metric=key, from_=visit.month))
    return visit.page(
        "metric.html",
        metric=metric,
        value=usage.data[0].value if usage.data else "0",
        names=dict(AGGREGATIONS),
    )


@get("/dashboard/metrics/{key:str}/edit", include_in_schema=False)
async def edit_metric(visit: Visited, key: FromPath[str]) -> Response[bytes]:
    """The form with its definition."""
    visit.require("metrics")
    metric, form = await _filled(visit, key)
    return _form(visit, form, metric)


async def _filled(visit: Visit, key: str) -> tuple[Metric, Form]:
    """The metric, and the form with its definition."""
    message = await _message(visit, key)
    metric = metrics.from_proto(message)
    pairs = [
        (ETAG, message.etag),
        ("name", metric.name),
        ("unit", metric.unit),
        ("aggregation", metric.aggregation),
        ("dimensions", ", ".join(metric.dimensions)),
        ("uniqueBy", metric.unique_by or ""),
        *([("percentiles", "on")] if metric.percentiles else []),
    ]
    return metric, Form(pairs)


@post("/dashboard/metrics/{key:str}/edit", include_in_schema=False)
async def change_metric(visit: Visited, key: FromPath[str]) -> Response[bytes]:
    """Change it; what it counts is counted anew from its events, in the background."""
    form = visit.form
    try:
        # What is left empty is taken away, not left as it is.
        change = form.read(
            MetricChange,
            name=form.get("name", ""),
            unit=form.get("unit", ""),
            dimensions=[*split(form.get("dimensions", ""))],
            uniqueBy=form.get("uniqueBy", ""),
            percentiles="percentiles" in form,
        )
        request = metrics.change_to_proto(key, change)
        request.if_match.extend(form.if_match)
        await visit.calls.call(visit.calls.aggregator.UpdateMetric, request)
    except StaleError:
        metric, now = await _filled(visit, key)
        return _form(visit, form.outdated(now), metric, 412)
    except DomainError as error:
        form.refuse(error)
        return _form(visit, form, await _metric(visit, key), 400)
    return visit.go(f"/dashboard/metrics/{quote(key, safe='')}", "saved")


def _form(visit: Visit, form: Form, metric: Metric, status: int = 200) -> Response[bytes]:
    return visit.page(
        "metric_edit.html", status, form=form, metric=metric, aggregations=AGGREGATIONS
    )


async def _metric(visit: Visit, key: str) -> Metric:
    return metrics.from_proto(await _message(visit, key))


async def _message(visit: Visit, key: str) -> aggregator_pb2.Metric:
    request = aggregator_pb2.GetMetricRequest(key=key)
    return (await visit.calls.call(visit.calls.aggregator.GetMetric, request)).metric


HANDLERS = [list_metrics, new_metric, create_metric, show_metric, edit_metric, change_metric]
