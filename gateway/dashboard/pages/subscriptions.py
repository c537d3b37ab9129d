"""/dashboard/subscriptions"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import invoicer_pb2, subscription_changes_pb2

from gateway.dashboard import questions
from gateway.dashboard.forms import Form, local_time
from gateway.dashboard.visit import Visit, Visited, new_key
from gateway.shapes import invoices, subscriptions
from gateway.shapes.invoices import InvoicePreview
from gateway.shapes.subscriptions import Cancellation, NewSubscription, Pause
from services.kit.errors import DomainError, NotFoundError, PreconditionError

PAGE_ROWS: Final = 50
ANCHORS: Final = (
    ("CALENDAR", "By the calendar: the first of the month"),
    ("ANNIVERSARY", "From its start: the same day each month"),
)


@get("/dashboard/subscriptions", include_in_schema=False)
async def list_subscriptions(visit: Visited) -> Response[bytes]:
    """Who is on which plan."""
    query = visit.request.query_params
    request = invoicer_pb2.ListSubscriptionsRequest(
        customer_id=query.get("customerId", ""),
        page_size=PAGE_ROWS,
        page_token=query.get("cursor", ""),
    )
    answer, plans = await asyncio.gather(
        visit.calls.call(visit.calls.invoicer.ListSubscriptions, request),
        questions.all_plans(visit.calls),
    )
    return visit.page(
        "subscriptions.html",
        subscriptions=[subscriptions.from_proto(each) for each in answer.subscriptions],
        plan_names={plan.id: plan.name for plan in plans},
        cursor=answer.next_page_token,
    )


@get("/dashboard/subscriptions/new", include_in_schema=False)
async def new_subscription(visit: Visited) -> Response[bytes]:
    """The form for one more."""
    visit.require("billing")
    query = visit.request.query_params
    names = ("customerId", "planId")
    form = Form([*((name, query.get(name, "")) for name in names), ("_key", new_key())])
    return await _form(visit, form)


@post("/dashboard/subscriptions/new", include_in_schema=False)
async def create_subscription(visit: Visited) -> Response[bytes]:
    """Put a customer on a plan."""
    form = visit.form
    try:
        more = {}
        if form.get("startsAt"):
            more["startsAt"] = local_time(form["startsAt"], "startsAt", visit.zone).isoformat()
        request = subscriptions.to_proto(form.read(NewSubscription, **more))
        request.idempotency_key = form.get("_key", "")
        answer = await visit.calls.call(visit.calls.invoicer.CreateSubscription, request)
    except DomainError as error:
        form.refuse(error)
        return await _form(visit, form, 400)
    return visit.go(_path(answer.subscription.id), "subscribed")


@get("/dashboard/subscriptions/{subscription_id:str}", include_in_schema=False)
async def show_subscription(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """One subscription, its invoices, and what the running period comes to."""
    return await _show(visit, subscription_id)


async def _show(visit: Visit, subscription_id: str, status: int = 200) -> Response[bytes]:
    calls = visit.calls
    answer, billed, preview = await asyncio.gather(
        calls.call(
            calls.invoicer.GetSubscription,
            invoicer_pb2.GetSubscriptionRequest(subscription_id=subscription_id),
        ),
        calls.call(
            calls.invoicer.ListInvoices,
            invoicer_pb2.ListInvoicesRequest(subscription_id=subscription_id, page_size=20),
        ),
        _preview(visit, subscription_id),
    )
    subscription = subscriptions.from_proto(answer.subscription)
    plan = await calls.call(
        calls.invoicer.GetPlan,
        invoicer_pb2.GetPlanRequest(
            plan_id=subscription.plan_id, version=subscription.plan_version
        ),
    )
    return visit.page(
        "subscription.html",
        status,
        subscription=subscription,
        plan=plan.plan,
        preview=preview,
        pauses=[
            phase
            for phase in subscription.phases
            if phase.kind == "PAUSED"
            and (phase.exact_ends_at is None or phase.exact_ends_at > visit.now)
        ],
        invoices=[invoices.from_proto(each) for each in billed.invoices],
    )


@post("/dashboard/subscriptions/{subscription_id:str}/cancel", include_in_schema=False)
async def cancel_subscription(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """End it, with its period or now."""
    cancellation = visit.form.read(Cancellation)
    request = subscriptions.cancellation_to_proto(subscription_id, cancellation)
    asked = visit.calls.call(visit.calls.invoicer.CancelSubscription, request)
    return await _done(visit, subscription_id, asked, "cancelled")


@post("/dashboard/subscriptions/{subscription_id:str}/pause", include_in_schema=False)
async def pause_subscription(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """Bill nothing for a while, from now or from the period's end on."""
    request = subscriptions.pause_to_proto(subscription_id, visit.form.read(Pause))
    asked = visit.calls.call(visit.calls.invoicer.PauseSubscription, request)
    return await _done(visit, subscription_id, asked, "paused")


@post("/dashboard/subscriptions/{subscription_id:str}/resume", include_in_schema=False)
async def resume_subscription(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """Go on with one that was suspended or paused."""
    request = invoicer_pb2.ResumeSubscriptionRequest(subscription_id=subscription_id)
    asked = visit.calls.call(visit.calls.invoicer.ResumeSubscription, request)
    return await _done(visit, subscription_id, asked, "resumed")


@post("/dashboard/subscriptions/{subscription_id:str}/uncancel", include_in_schema=False)
async def uncancel_subscription(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """Let it go on after all."""
    request = subscription_changes_pb2.UncancelSubscriptionRequest(subscription_id=subscription_id)
    asked = visit.calls.call(visit.calls.changes.UncancelSubscription, request)
    return await _done(visit, subscription_id, asked, "uncancelled")


async def _done(
    visit: Visit, subscription_id: str, asked: Awaitable[Any], note: str
) -> Response[bytes]:
    """Do what is asked, and say so on the subscription's page, or why it was refused."""
    try:
        await asked
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, subscription_id, 400)
    return visit.go(_path(subscription_id), note)


async def _form(visit: Visit, form: Form, status: int = 200) -> Response[bytes]:
    return visit.page(
        "subscription_new.html",
        status,
        form=form,
        plans=await questions.all_plans(visit.calls),
        anchors=ANCHORS,
    )


async def _preview(visit: Visit, subscription_id: str) -> InvoicePreview | None:
    """What the running period comes to; None when it has none."""
    request = invoicer_pb2.PreviewInvoiceRequest(subscription_id=subscription_id)
    try:
        answer = await visit.calls.call(visit.calls.invoicer.PreviewInvoice, request)
    except (PreconditionError, NotFoundError):
        return None
    return invoices.preview_from_proto(answer)


def _path(subscription_id: str) -> str:
    return f"/dashboard/subscriptions/{quote(subscription_id, safe='')}"


HANDLERS = [
    list_subscriptions,
    new_subscription,
    create_subscription,
    show_subscription,
    cancel_subscription,
    pause_subscription,
    resume_subscription,
    uncancel_subscription,
]
