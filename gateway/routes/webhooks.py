"""/api/webhooks"""

from litestar import Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from usageflow.notifier.v1 import notifier_pb2 as pb

from gateway.calls import ApiCalls
from gateway.preconditions import IfMatch, etag, tags_of
from gateway.query import Asked, query
from gateway.shapes.common import PageQuery, timestamp
from gateway.shapes.webhooks import (
    DeliveriesQuery,
    Delivery,
    DeliveryPage,
    DeliveryWithPayload,
    NewWebhook,
    Replay,
    Replayed,
    SecretRotation,
    StatsQuery,
    Webhook,
    WebhookChange,
    WebhookDeliveriesQuery,
    WebhookPage,
    WebhookSecret,
    WebhookStats,
    WebhookWithSecret,
    change_to_proto,
    delivery_from_proto,
    from_proto,
    list_request,
    page_from_proto,
    replay_to_proto,
    rotation_to_proto,
    stats_from_proto,
    to_proto,
    with_payload,
    with_secret,
)

SAME_KIND = SecretRotation()
FAILED = Replay()


@post("/api/webhooks")
async def create_webhook(calls: ApiCalls, data: JSONBody[NewWebhook]) -> WebhookWithSecret:
    """Register an endpoint; its secret is shown only in this answer."""
    return with_secret(await calls.call(calls.notifier.CreateEndpoint, to_proto(data)))


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
async def get_webhook(calls: ApiCalls, webhook_id: FromPath[str]) -> Response[Webhook]:
    """One endpoint."""
    request = pb.GetEndpointRequest(endpoint_id=webhook_id)
    endpoint = (await calls.call(calls.notifier.GetEndpoint, request)).endpoint
    return Response(from_proto(endpoint), headers=etag(endpoint))


@patch("/api/webhooks/{webhook_id:str}")
async def change_webhook(
    calls: ApiCalls,
    webhook_id: FromPath[str],
    data: JSONBody[WebhookChange],
    if_match: IfMatch = None,
) -> Response[Webhook]:
    """Change some of an endpoint; what is left out stays. Enabling gives it a new start."""
    request = change_to_proto(webhook_id, data)
    request.if_match.extend(tags_of(if_match))
    endpoint = (await calls.call(calls.notifier.UpdateEndpoint, request)).endpoint
    return Response(from_proto(endpoint), headers=etag(endpoint))


@delete("/api/webhooks/{webhook_id:str}")
async def delete_webhook(
    calls: ApiCalls, webhook_id: FromPath[str], if_match: IfMatch = None
) -> None:
    """End an endpoint; what is pending for it is dropped."""
    request = pb.DeleteEndpointRequest(endpoint_id=webhook_id, if_match=tags_of(if_match))
    await calls.call(calls.notifier.DeleteEndpoint, request)


@post("/api/webhooks/{webhook_id:str}/rotate-secret", status_code=200)
async def rotate_webhook_secret(
    calls: ApiCalls, webhook_id: FromPath[str], data: JSONBody[SecretRotation] = SAME_KIND
) -> WebhookSecret:
    """Make a new secret; for 24 h webhooks carry signatures of both."""
    request = rotation_to_proto(webhook_id, data)
    answer = await calls.call(calls.notifier.RotateEndpointSecret, request)
    return WebhookSecret(
        id=webhook_id, secret=answer.secret or None, public_key=answer.public_key or None
    )


@post("/api/webhooks/{webhook_id:str}/test", status_code=200)
async def test_webhook(calls: ApiCalls, webhook_id: FromPath[str]) -> Delivery:
    """Send a "webhook.test" event to this endpoint."""
    request = pb.TestEndpointRequest(endpoint_id=webhook_id)
    return delivery_from_proto((await calls.call(calls.notifier.TestEndpoint, request)).delivery)


@get("/api/webhooks/{webhook_id:str}/stats", dependencies=query(StatsQuery))
async def get_webhook_stats(
    calls: ApiCalls, webhook_id: FromPath[str], asked: Asked[StatsQuery]
) -> WebhookStats:
    """How an endpoint is doing: what became of the deliveries of a time range."""
    request = pb.GetEndpointStatsRequest(
        endpoint_id=webhook_id, from_time=timestamp(asked.from_), to_time=timestamp(asked.to)
    )
    return stats_from_proto(await calls.call(calls.notifier.GetEndpointStats, request))


@get("/api/webhooks/{webhook_id:str}/deliveries", dependencies=query(WebhookDeliveriesQuery))
async def list_webhook_deliveries(
    calls: ApiCalls,
    webhook_id: FromPath[str],
    asked: Asked[WebhookDeliveriesQuery],
) -> DeliveryPage:
    """List an endpoint's deliveries with their attempts, newest first."""
    request = list_request(asked, webhook_id)
    return page_from_proto(await calls.call(calls.notifier.ListDeliveries, request))


@post("/api/webhooks/{webhook_id:str}/replay", status_code=200)
async def replay_webhook(
    calls: ApiCalls, webhook_id: FromPath[str], data: JSONBody[Replay] = FAILED
) -> Replayed:
    """Send an endpoint's deliveries again: all failed ones, or those of a time range."""
    request = replay_to_proto(webhook_id, data)
    answer = await calls.call(calls.notifier.ReplayDeliveries, request)
    return Replayed(replayed=answer.replayed, next_cursor=answer.next_page_token or None)


@get("/api/webhooks/deliveries", dependencies=query(DeliveriesQuery))
async def list_deliveries(calls: ApiCalls, asked: Asked[DeliveriesQuery]) -> DeliveryPage:
    """List the deliveries of all endpoints with their attempts, newest first."""
    request = list_request(asked, asked.endpoint_id)
    return page_from_proto(await calls.call(calls.notifier.ListDeliveries, request))


@get("/api/webhooks/deliveries/{delivery_id:str}")
async def get_delivery(calls: ApiCalls, delivery_id: FromPath[str]) -> DeliveryWithPayload:
    """One delivery with what is sent and all that its attempts got."""
    request = pb.GetDeliveryRequest(delivery_id=delivery_id)
    return with_payload((await calls.call(calls.notifier.GetDelivery, request)).delivery)


@post("/api/webhooks/deliveries/{delivery_id:str}/replay", status_code=200)
async def replay_delivery(calls: ApiCalls, delivery_id: FromPath[str]) -> Delivery:
    """Send a delivery again, at once, with the same webhook-id."""
    request = pb.ReplayDeliveryRequest(delivery_id=delivery_id)
    return delivery_from_proto((await calls.call(calls.notifier.ReplayDelivery, request)).delivery)


HANDLERS = [
    create_webhook,
    list_webhooks,
    get_webhook,
    change_webhook,
    delete_webhook,
    rotate_webhook_secret,
    test_webhook,
    get_webhook_stats,
    list_webhook_deliveries,
    replay_webhook,
    list_deliveries,
    get_delivery,
    replay_delivery,
]
