"""/dashboard/subscriptions/{id}/discounts"""

import asyncio
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.invoicer.v1 import billing_terms_pb2, invoicer_pb2

from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import billing_terms, subscriptions
from gateway.shapes.billing_terms import NewDiscount
from services.kit.errors import DomainError


@get("/dashboard/subscriptions/{subscription_id:str}/discounts", include_in_schema=False)
async def show_discounts(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """What the subscription has off besides what its plan has."""
    return await _show(visit, subscription_id)


@post("/dashboard/subscriptions/{subscription_id:str}/discounts", include_in_schema=False)
async def create_discount(visit: Visited, subscription_id: FromPath[str]) -> Response[bytes]:
    """Give it a discount."""
    try:
        request = billing_terms_pb2.CreateDiscountRequest(
            subscription_id=subscription_id,
            discount=billing_terms.discount_to_proto(visit.form.read(NewDiscount)),
        )
        await visit.calls.call(visit.calls.terms.CreateDiscount, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, subscription_id, 400)
    return visit.go(_path(subscription_id), "created")


@post(
    "/dashboard/subscriptions/{subscription_id:str}/discounts/{discount_id:str}/end",
    include_in_schema=False,
)
async def end_discount(
    visit: Visited, subscription_id: FromPath[str], discount_id: FromPath[str]
) -> Response[bytes]:
    """End it before the first period of which nothing is invoiced."""
    request = billing_terms_pb2.EndDiscountRequest(discount_id=discount_id)
    await visit.calls.call(visit.calls.terms.EndDiscount, request)
    return visit.go(_path(subscription_id), "saved")


async def _show(visit: Visit, subscription_id: str, status: int = 200) -> Response[bytes]:
    calls = visit.calls
    answer, listed = await asyncio.gather(
        calls.call(
            calls.invoicer.GetSubscription,
            invoicer_pb2.GetSubscriptionRequest(subscription_id=subscription_id),
        ),
        calls.call(
            calls.terms.ListDiscounts,
            billing_terms_pb2.ListDiscountsRequest(subscription_id=subscription_id),
        ),
    )
    subscription = subscriptions.from_proto(answer.subscription)
    plan = await calls.call(
        calls.invoicer.GetPlan,
        invoicer_pb2.GetPlanRequest(
            plan_id=subscription.plan_id, version=subscription.plan_version
        ),
    )
    return visit.page(
        "discounts.html",
        status,
        subscription=subscription,
        currency=plan.plan.currency,
        discounts=[
            billing_terms.subscription_discount_from_proto(each) for each in listed.discounts
        ],
    )


def _path(subscription_id: str) -> str:
    return f"/dashboard/subscriptions/{quote(subscription_id, safe='')}/discounts"


HANDLERS = [show_discounts, create_discount, end_discount]
