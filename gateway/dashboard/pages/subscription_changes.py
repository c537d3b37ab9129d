"""/dashboard/subscriptions/{id}/change"""

import asyncio
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import invoicer_pb2, subscription_changes_pb2

from gateway.dashboard import questions
from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visit, Visited, html
from gateway.shapes import subscription_changes, subscriptions
from gateway.shapes.subscription_changes import Change
from services.kit.errors import DomainError

TIMINGS = (("NOW", "Now, what is left of the period in proportion"), ("PERIOD_END", "When it ends"))


@get("/dashboard/subscriptions/{subscription_id:str}/change", include_in_schema=False)
async def edit_subscription(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """The form with what it is on."""
    visit.require("billing")
    return await _show(visit, subscription_id)


@post("/dashboard/subscriptions/{subscription_id:str}/change", include_in_schema=False)
async def change_subscription(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """Move it to another plan, to its newest version, or to another quantity."""
    try:
        request = subscription_changes.to_proto(subscription_id, visit.form.read(Change))
        await visit.calls.call(visit.calls.changes.ChangeSubscription, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, subscription_id, 400)
    return visit.go(f"/dashboard/subscriptions/{quote(subscription_id, safe='')}", "changed")


@post("/dashboard/subscriptions/{subscription_id:str}/change/preview", include_in_schema=False)
async def preview_change(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """The invoices that would come: a part of the form's page."""
    problem, preview = "", None
    try:
        change = subscription_changes.to_proto(subscription_id, visit.form.read(Change))
        request = subscription_changes_pb2.PreviewSubscriptionChangeRequest(change=change)
        answer = await visit.calls.call(visit.calls.changes.PreviewSubscriptionChange, request)
        preview = subscription_changes.preview_from_proto(answer)
    except DomainError as error:
        visit.form.refuse(error)
        problem = visit.form.error
    return html(visit.fragment("change_preview.html", preview=preview, problem=problem))


async def _show(visit: Visit, subscription_id: str, status: int = 200) -> Response[bytes]:
    calls = visit.calls
    answer, plans = await asyncio.gather(
        calls.call(
            calls.invoicer.GetSubscription,
            invoicer_pb2.GetSubscriptionRequest(subscription_id=subscription_id),
        ),
        questions.all_plans(calls),
    )
    subscription = subscriptions.from_proto(answer.subscription)
    form = visit.form
    if not form:
        form = Form([("planId", subscription.plan_id), ("quantity", str(subscription.quantity))])
    return visit.page(
        "subscription_change.html",
        status,
        form=form,
        subscription=subscription,
        plans=plans,
        timings=TIMINGS,
    )


HANDLERS = [edit_subscription, change_subscription, preview_change]
