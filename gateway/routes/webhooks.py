"""/api/webhooks"""

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody
from usageflow.notifier.v1 import notifier_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.common import PageQuery
from gateway.shapes.webhooks import (
    DeliveriesQuery,
    Delivery,
    DeliveryPage,
    NewWebhook,
    Webhook,
    WebhookPage,
    WebhookSecret,
    WebhookWithSecret,
    delivery_from_proto,
    from_proto,
    status_number,
    with_secret,
)


@post("/api/webhooks")
async def create_webhook(calls: ApiCalls, data: JSONBody[NewWebhook]) -> WebhookWithSecret:
    """Register an endpoint; its secret is shown only in this answer."""
    request = pb.CreateEndpointRequest(
        url=data.url, event_types=data.events, description=data.description
    )
    return with_secret(await calls.call(calls.notifier.CreateEndpoint, request))


@get("/api/webhooks", dependencies=query(PageQuery))
async def list_webhooks(calls: ApiCalls, asked: Asked[PageQuery]) -> WebhookPage:
    """List the endpoints, newest first."""
    request = pb.ListEndpointsRequest(page_size=asked.limit, page_token=asked.cursor)
    answer = await calls.call(calls.notifier.ListEndpoints, request)
    return WebhookPage(
        data=[from_proto(endpoint) for endpoint in answer.endpoints],
        next_cursor=answer.next_page_token or None,
    )


@get("/api/webhooks/{webhook_id:str}")
async def get_webhook(calls: ApiCalls, webhook_id: FromPath[str]) -> Webhook:
    """One endpoint."""
    request = pb.GetEndpointRequest(endpoint_id=webhook_id)
    return from_proto((await calls.call(calls.notifier.GetEndpoint, request)).endpoint)


@delete("/api/webhooks/{webhook_id:str}")
async def delete_webhook(calls: ApiCalls, webhook_id: FromPath[str]) -> None:
    """End an endpoint; what is pending for it is dropped."""
    request = pb.DeleteEndpointRequest(endpoint_id=webhook_id)
    await calls.call(calls.notifier.DeleteEndpoint, request)


@post("/api/webhooks/{webhook_id:str}/rotate-secret", status_code=200)
async def rotate_webhook_secret(calls: ApiCalls, webhook_id: FromPath[str]) -> WebhookSecret:
    """Make a new secret; for 24 h webhooks carry signatures of both."""
    request = pb.RotateEndpointSecretRequest(endpoint_id=webhook_id)
    answer = await calls.call(calls.notifier.RotateEndpointSecret, request)
    return WebhookSecret(id=webhook_id, secret=answer.secret)


@post("/api/webhooks/{webhook_id:str}/test", status_code=200)
async def test_webhook(calls: ApiCalls, webhook_id: FromPath[str]) -> Delivery:
    """Send a "webhook.test" event to this endpoint."""
    request = pb.TestEndpointRequest(endpoint_id=webhook_id)
    return delivery_from_proto((await calls.call(calls.notifier.TestEndpoint, request)).delivery)


@get("/api/webhooks/{webhook_id:str}/deliveries", dependencies=query(DeliveriesQuery))
async def list_deliveries(
    calls: ApiCalls,
    webhook_id: FromPath[str],
    asked: Asked[DeliveriesQuery],
) -> DeliveryPage:
    """List an endpoint's deliveries with their attempts, newest first."""
    request = pb.ListDeliveriesRequest(
        endpoint_id=webhook_id,
        status=status_number(asked.status),
        page_size=asked.limit,
        page_token=asked.cursor,
    )
    answer = await calls.call(calls.notifier.ListDeliveries, request)
    return DeliveryPage(
        data=[delivery_from_proto(delivery) for delivery in answer.deliveries],
        next_cursor=answer.next_page_token or None,
    )


@post("/api/webhooks/deliveries/{delivery_id:str}/replay", status_code=200)
async def replay_delivery(calls: ApiCalls, delivery_id: FromPath[str]) -> Delivery:
    """Send a delivery again, at once, with the same webhook-id."""
    request = pb.ReplayDeliveryRequest(delivery_id=delivery_id)
    return delivery_from_proto((await calls.call(calls.notifier.ReplayDelivery, request)).delivery)


HANDLERS = [
    create_webhook,
    list_webhooks,
    get_webhook,
    delete_webhook,
    rotate_webhook_secret,
    test_webhook,
    list_deliveries,
    replay_delivery,
]
