"""/dashboard"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.response import Stream
from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.invoicer.v1 import invoicer_pb2
from usageflow.notifier.v1 import notifier_pb2

from gateway.calls import Calls
from gateway.dashboard import questions
from gateway.dashboard.charts.bars import Bars, stacked
from gateway.dashboard.live import ActivitySource, DayCounter, Streams
from gateway.dashboard.pages.usage import columns_of
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import invoices, reconciliation, webhooks
from gateway.shapes import revenue as revenues
from gateway.shapes.invoices import Invoice
from gateway.shapes.metrics import Metric
from gateway.shapes.reconciliation import Reconciliation
from gateway.shapes.revenue import CurrencyRevenue, RevenueQuery
from gateway.shapes.usage import Usage, UsageQuery
from gateway.shapes.webhooks import Webhook
from services.kit.errors import UnavailableError
from services.kit.pages import PAGE_SIZE_MAX

# Metrics that are shown with their figures; the others are found under Metrics.
SHOWN_METRICS_MAX: Final = 6
RECENT_INVOICES: Final = 6
# What was accepted is counted within a second, unless something is away.
BEHIND_AFTER: Final = timedelta(minutes=1)
_DAYS: Final = 14
# Why notifier disables an endpoint; nobody has asked for it.
_BY_ITSELF: Final = ("GONE", "FAILING")


@dataclass(frozen=True, slots=True)
class Counter:
    """A metric with what it counted today, and since when that is complete."""

    metric: Metric
    today: str
    usage: Usage


@get("/dashboard", include_in_schema=False)
async def show_overview(visit: Visited) -> Response[bytes]:
    """How things are now."""
    calls = visit.calls
    metrics, invoices, endpoints, revenue, standing = await asyncio.gather(
        _busiest_first(visit),
        _latest_invoices(calls),
        _endpoints(calls),
        _revenue(visit),
        _reconciliation(calls),
    )
    counters = await questions.together(
        [_count(visit, metric) for metric in metrics[:SHOWN_METRICS_MAX]]
    )
    today = await DayCounter(ActivitySource(calls), visit.zone).today()
    counted_until = min((each.usage.as_of for each in counters), default=None)
    main = counters[0].metric if counters else None
    return visit.page(
        "overview.html",
        counters=counters,
        events_today=today,
        more_metrics=max(0, len(metrics) - SHOWN_METRICS_MAX),
        chart=await _chart(visit, main) if main else None,
        main=main,
        revenue=revenue,
        invoices=invoices,
        endpoints=endpoints,
        disabled=[each for each in endpoints if by_itself(each)],
        standing=standing,
        failing=[each for each in endpoints if each.failing_since or not each.enabled],
        counted_until=counted_until,
        behind=counted_until is not None and visit.now - counted_until > BEHIND_AFTER,
    )


def by_itself(endpoint: Webhook) -> bool:
    """Whether UsageFlow has disabled the endpoint, not somebody."""
    return not endpoint.enabled and endpoint.disabled_reason in _BY_ITSELF


@dataclass(frozen=True, slots=True)
class Earned:
    """A currency's revenue of this month: all of it, and of that what was invoiced, less what was
    credited, and what accrues.
    """

    currency: str
    total: Decimal
    invoiced: Decimal
    accrued: Decimal


async def _revenue(visit: Visit) -> tuple[list[Earned], bool] | None:
    """This month's revenue so far, and whether that is all; None: it can't be told now."""
    request = revenues.to_proto(RevenueQuery(from_=visit.month))
    try:
        answer = await visit.calls.call(visit.calls.invoicer.GetRevenue, request)
    except UnavailableError:
        return None
    told = revenues.from_proto(answer)
    return [earned(each) for each in told.data], told.complete


def earned(told: CurrencyRevenue) -> Earned:
    """What the overview shows of it."""
    invoiced = Decimal(told.invoiced) - Decimal(told.credited)
    accrued = Decimal(told.accrued)
    return Earned(told.currency, invoiced + accrued, invoiced, accrued)


async def _busiest_first(visit: Visit) -> list[Metric]:
    """The metrics, those with the most events of late first."""
    metrics, activity = await asyncio.gather(
        questions.all_metrics(visit.calls),
        ActivitySource(visit.calls)(visit.days_ago(_DAYS - 1), visit.now),
    )
    counts = {each.metric: each.event_count for each in activity.data}
    return sorted(metrics, key=lambda metric: -counts.get(metric.key, 0))


async def _latest_invoices(calls: Calls) -> list[Invoice]:
    request = invoicer_pb2.ListInvoicesRequest(page_size=RECENT_INVOICES)
    answer = await calls.call(calls.invoicer.ListInvoices, request)
    return [invoices.from_proto(each) for each in answer.invoices]


async def _reconciliation(calls: Calls) -> Reconciliation:
    request = aggregator_pb2.GetReconciliationRequest()
    return reconciliation.from_proto(await calls.call(calls.aggregator.GetReconciliation, request))


async def _count(visit: Visit, metric: Metric) -> Counter:
    asked = UsageQuery(metric=metric.key, from_=visit.today)
    usage = await questions.ask_usage(visit.calls, asked)
    return Counter(metric, usage.data[0].value if usage.data else "0", usage)


async def _chart(visit: Visit, metric: Metric) -> Bars:
    asked = UsageQuery(
        metric=metric.key,
        from_=visit.days_ago(_DAYS - 1),
        window="DAY",
        timezone=visit.zone.key,
    )
    usage = await questions.ask_usage(visit.calls, asked)
    columns = columns_of([usage], usage.from_, usage.to, "DAY", visit.zone)
    return stacked([metric.name or metric.key], columns, metric.unit)


async def _endpoints(calls: Calls) -> list[Webhook]:
    request = notifier_pb2.ListEndpointsRequest(page_size=PAGE_SIZE_MAX)
    answer = await calls.call(calls.notifier.ListEndpoints, request)
    return [webhooks.from_proto(each) for each in answer.endpoints]


@get("/dashboard/live", include_in_schema=False)
async def stream_figures(visit: Visited, streams: NamedDependency[Streams]) -> Stream:
    """What changes while the page is open."""
    return Stream(
        streams.open(visit.calls, visit.zone),
        media_type="text/event-stream",
        headers={"x-accel-buffering": "no"},
    )


HANDLERS = [show_overview, stream_figures]
