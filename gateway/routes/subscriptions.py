"""/api/subscriptions"""

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.calls import ApiCalls
from gateway.idempotency import IdempotencyKey, key_of, replayed_headers
from gateway.query import Asked, query
from gateway.shapes.subscriptions import (
    Cancellation,
    NewSubscription,
    Pause,
    Subscription,
    SubscriptionPage,
    SubscriptionsQuery,
    cancellation_to_proto,
    from_proto,
    pause_to_proto,
    to_proto,
)

WITH_THE_PERIOD = Cancellation()
AT_ONCE = Pause()


@post("/api/subscriptions")
async def create_subscription(
    calls: ApiCalls,
    data: JSONBody[NewSubscription],
    idempotency_key: IdempotencyKey = None,
) -> Response[Subscription]:
    """Put a customer on a plan; periods that are already over are invoiced at once.

    The same Idempotency-Key with the same content answers with the subscription that is there,
    and `Idempotent-Replayed: true`; with other content: 409.
    """
    request = to_proto(data)
    request.idempotency_key = key_of(idempotency_key)
    answer = await calls.call(calls.invoicer.CreateSubscription, request)
    return Response(from_proto(answer.subscription), headers=replayed_headers(answer.replayed))


@get("/api/subscriptions", dependencies=query(SubscriptionsQuery))
async def list_subscriptions(calls: ApiCalls, asked: Asked[SubscriptionsQuery]) -> SubscriptionPage:
    """List the subscriptions, newest first."""
    request = pb.ListSubscriptionsRequest(
        customer_id=asked.customer_id, page_size=asked.limit, page_token=asked.cursor
    )
    answer = await calls.call(calls.invoicer.ListSubscriptions, request)
    return SubscriptionPage(
        data=[from_proto(subscription) for subscription in answer.subscriptions],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/subscriptions/{subscription_id:str}")
async def get_subscription(calls: ApiCalls, subscription_id: FromPath[str]) -> Subscription:
    """One subscription."""
    request = pb.GetSubscriptionRequest(subscription_id=subscription_id)
    return from_proto((await calls.call(calls.invoicer.GetSubscription, request)).subscription)


@post("/api/subscriptions/{subscription_id:str}/cancel", status_code=200)
async def cancel_subscription(
    calls: ApiCalls, subscription_id: FromPath[str], data: JSONBody[Cancellation] = WITH_THE_PERIOD
) -> Subscription:
    """End a subscription: with its running period, which is invoiced as ever, or NOW, to the
    second (usage with the running quarter of an hour); what was paid in advance and is not used is
    credited then.

    Repeating it changes nothing; one that is to end later can be ended NOW.
    """
    request = cancellation_to_proto(subscription_id, data)
    return from_proto((await calls.call(calls.invoicer.CancelSubscription, request)).subscription)


@post("/api/subscriptions/{subscription_id:str}/pause", status_code=200)
async def pause_subscription(
    calls: ApiCalls, subscription_id: FromPath[str], data: JSONBody[Pause] = AT_ONCE
) -> Subscription:
    """Bill nothing until the subscription is resumed, or until `resumesAt`; usage of that time is
    never billed. Pausing it again changes the pause.
    """
    request = pause_to_proto(subscription_id, data)
    return from_proto((await calls.call(calls.invoicer.PauseSubscription, request)).subscription)


@post("/api/subscriptions/{subscription_id:str}/resume", status_code=200)
async def resume_subscription(calls: ApiCalls, subscription_id: FromPath[str]) -> Subscription:
    """End a pause in this second (usage of the running quarter of an hour is billed again), or
    call it off; make a suspended subscription active again.
    """
    request = pb.ResumeSubscriptionRequest(subscription_id=subscription_id)
    return from_proto((await calls.call(calls.invoicer.ResumeSubscription, request)).subscription)


HANDLERS = [
    create_subscription,
    list_subscriptions,
    get_subscription,
    cancel_subscription,
    pause_subscription,
    resume_subscription,
]
