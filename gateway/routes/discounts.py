"""/api/subscriptions/{id}/discounts and /api/discounts"""

from litestar import get, post
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import billing_terms_pb2 as pb

from gateway.calls import ApiCalls
from gateway.shapes.billing_terms import (
    NewDiscount,
    SubscriptionDiscount,
    SubscriptionDiscounts,
    discount_to_proto,
    subscription_discount_from_proto,
)


@post("/api/subscriptions/{subscription_id:str}/discounts")
async def create_discount(
    calls: ApiCalls, subscription_id: FromPath[str], data: JSONBody[NewDiscount]
) -> SubscriptionDiscount:
    """Give a subscription a discount, from the period on that is not invoiced yet."""
    request = pb.CreateDiscountRequest(
        subscription_id=subscription_id, discount=discount_to_proto(data)
    )
    answer = await calls.call(calls.terms.CreateDiscount, request)
    return subscription_discount_from_proto(answer.discount)


@get("/api/subscriptions/{subscription_id:str}/discounts")
async def list_discounts(calls: ApiCalls, subscription_id: FromPath[str]) -> SubscriptionDiscounts:
    """All discounts of a subscription, ended ones too, oldest first."""
    request = pb.ListDiscountsRequest(subscription_id=subscription_id)
    answer = await calls.call(calls.terms.ListDiscounts, request)
    return SubscriptionDiscounts(
        data=[subscription_discount_from_proto(each) for each in answer.discounts]
    )


@post("/api/discounts/{discount_id:str}/end", status_code=200)
async def end_discount(calls: ApiCalls, discount_id: FromPath[str]) -> SubscriptionDiscount:
    """End a discount before the first period of which nothing is invoiced."""
    request = pb.EndDiscountRequest(discount_id=discount_id)
    answer = await calls.call(calls.terms.EndDiscount, request)
    return subscription_discount_from_proto(answer.discount)


HANDLERS = [create_discount, list_discounts, end_discount]
