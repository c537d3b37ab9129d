"""/portal: usage, subscriptions and invoices of one customer; nothing here changes anything."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from litestar import Response, get
from litestar.params import FromPath
from usageflow.invoicer.v1 import documents_pb2, invoicer_pb2

from gateway.calls import Calls
from gateway.dashboard import questions
from gateway.dashboard.charts.bars import Bars, stacked
from gateway.dashboard.pages.invoices import credited
from gateway.dashboard.pages.usage import columns_of
from gateway.portal.visit import PATH, PortalVisit, Visited
from gateway.routes.documents import RENDER_S
from gateway.shapes import invoices, subscriptions
from gateway.shapes.invoices import InvoicePreview
from gateway.shapes.metrics import Metric
from gateway.shapes.subscriptions import Subscription
from gateway.shapes.usage import UsageQuery
from services.kit.errors import DomainError, UnavailableError

INVOICES: Final = 20
SUBSCRIPTIONS_MAX: Final = 10
# Metrics whose figures are asked for, those first that the customer is billed for.
METRICS_MAX: Final = 12
DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Use:
    """What the customer used of a metric this month."""

    metric: Metric
    value: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription, and what its running period comes to; None: that can't be told."""

    subscription: Subscription
    preview: InvoicePreview | None


@get(PATH, include_in_schema=False)
async def show_portal(visit: Visited) -> Response[bytes]:
    """All of it on one page; older invoices by the cursor."""
    calls, query = visit.calls, visit.request.query_params
    listed = calls.call(
        calls.invoicer.ListInvoices,
        invoicer_pb2.ListInvoicesRequest(
            customer_id=visit.customer_id,
            page_size=INVOICES,
            page_token=query.get("cursor", ""),
        ),
    )
    name, subscribed, billed, metrics = await asyncio.gather(
        _customer_name(visit), _subscribed(visit), listed, questions.all_metrics(calls)
    )
    uses = await _uses(visit, _billed_first(metrics, subscribed))
    main = next((each.metric for each in uses if each.metric.key == query.get("metric")), None)
    main = main or (uses[0].metric if uses else None)
    return visit.page(
        "portal.html",
        customer_name=name or visit.customer_id,
        subscribed=subscribed,
        uses=uses,
        main=main,
        days=DAYS,
        chart=await _chart(visit, main) if main else None,
        invoices=[invoices.from_proto(each) for each in billed.invoices],
        cursor=billed.next_page_token,
    )


@get(PATH + "/invoices/{invoice_id:str}", include_in_schema=False)
async def show_invoice(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """One invoice; its lines unfold to how they came about."""
    request = invoicer_pb2.GetInvoiceRequest(invoice_id=invoice_id)
    answer = await visit.calls.call(visit.calls.invoicer.GetInvoice, request)
    invoice = invoices.from_proto(answer.invoice)
    return visit.page("portal_invoice.html", invoice=invoice, credited=credited(invoice))


@get(PATH + "/invoices/{invoice_id:str}/pdf", include_in_schema=False)
async def get_pdf(visit: Visited, invoice_id: FromPath[str]) -> Response[bytes]:
    """One invoice as PDF."""
    request = documents_pb2.GetRenderedInvoiceRequest(
        invoice_id=invoice_id, format=documents_pb2.RENDER_FORMAT_PDF
    )
    made = await visit.calls.call(visit.calls.documents.GetRenderedInvoice, request, RENDER_S)
    headers = {"content-disposition": f'inline; filename="{made.filename}"'}
    return Response(made.content, media_type="application/pdf", headers=headers)


async def _customer_name(visit: PortalVisit) -> str:
    """Their name; "" when nobody has noted one."""
    request = invoicer_pb2.GetCustomerRequest(customer_id=visit.customer_id)
    found = await questions.found(visit.calls.call(visit.calls.invoicer.GetCustomer, request))
    return found.customer.name if found else ""


async def _subscribed(visit: PortalVisit) -> list[Subscribed]:
    calls = visit.calls
    request = invoicer_pb2.ListSubscriptionsRequest(
        customer_id=visit.customer_id, page_size=SUBSCRIPTIONS_MAX
    )
    listed = await calls.call(calls.invoicer.ListSubscriptions, request)
    previews = await questions.together([_preview(calls, each) for each in listed.subscriptions])
    return [
        Subscribed(subscriptions.from_proto(each), preview)
        for each, preview in zip(listed.subscriptions, previews, strict=True)
    ]


async def _preview(calls: Calls, subscription: Any) -> InvoicePreview | None:
    request = invoicer_pb2.PreviewInvoiceRequest(subscription_id=subscription.id)
    try:
        answer = await calls.call(calls.invoicer.PreviewInvoice, request)
    except UnavailableError:
        raise
    except DomainError:
        # It has ended, or has not begun.
        return None
    return invoices.preview_from_proto(answer)


def _billed_first(metrics: Sequence[Metric], subscribed: Sequence[Subscribed]) -> list[Metric]:
    billed = {line.metric for each in subscribed if each.preview for line in each.preview.lines} - {
        None
    }
    return sorted(metrics, key=lambda metric: metric.key not in billed)[:METRICS_MAX]


async def _uses(visit: PortalVisit, metrics: Sequence[Metric]) -> list[Use]:
    """Those that the customer has used this month."""
    asked = [
        questions.ask_usage(
            visit.calls,
            UsageQuery(metric=each.key, customer_id=visit.customer_id, from_=visit.month),
        )
        for each in metrics
    ]
    answers = await questions.together(asked)
    uses = [
        Use(metric, usage.data[0].value if usage.data else "0")
        for metric, usage in zip(metrics, answers, strict=True)
    ]
    return [each for each in uses if each.value != "0"]


async def _chart(visit: PortalVisit, metric: Metric) -> Bars:
    asked = UsageQuery(
        metric=metric.key,
        customer_id=visit.customer_id,
        from_=visit.days_ago(DAYS - 1),
        window="DAY",
        timezone=visit.zone.key,
    )
    usage = await questions.ask_usage(visit.calls, asked)
    columns = columns_of([usage], usage.from_, usage.to, "DAY", visit.zone)
    return stacked([metric.name or metric.key], columns, metric.unit)


HANDLERS = [show_portal, show_invoice, get_pdf]
