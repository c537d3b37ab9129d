"""/dashboard/webhooks"""

import asyncio
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.notifier.v1 import notifier_pb2

from gateway.dashboard.forms import ETAG, Form, split
from gateway.dashboard.text import indented
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import webhooks
from gateway.shapes.webhooks import (
    DeliveriesQuery,
    NewWebhook,
    Replay,
    SecretRotation,
    Webhook,
    WebhookChange,
)
from services.kit.errors import DomainError, StaleError
from services.kit.pages import PAGE_SIZE_MAX

EVENT_TYPES: Final = (
    "invoice.created",
    "invoice.paid",
    "invoice.failed",
    "invoice.voided",
    "credit_note.created",
    "payment.succeeded",
    "payment.failed",
    "payment.retry_scheduled",
    "subscription.created",
    "subscription.changed",
    "subscription.suspended",
    "subscription.cancelled",
    "usage.threshold_reached",
    "credits.granted",
    "credits.expired",
    "credits.low_balance",
    "webhook.disabled",
)
Status: TypeAlias = Literal["PENDING", "SUCCEEDED", "FAILED"]
PAGE_ROWS: Final = 30
STATUSES: Final = ("PENDING", "SUCCEEDED", "FAILED")


@get("/dashboard/webhooks", include_in_schema=False)
async def list_webhooks(visit: Visited) -> Response[bytes]:
    """Who is told what happens."""
    request = notifier_pb2.ListEndpointsRequest(page_size=PAGE_SIZE_MAX)
    answer = await visit.calls.call(visit.calls.notifier.ListEndpoints, request)
    return visit.page(
        "webhooks.html", endpoints=[webhooks.from_proto(each) for each in answer.endpoints]
    )


@get("/dashboard/webhooks/new", include_in_schema=False)
async def new_webhook(visit: Visited) -> Response[bytes]:
    """The form for one more."""
    visit.require("webhooks")
    return _form(visit, visit.form, None)


@post("/dashboard/webhooks/new", include_in_schema=False)
async def create_webhook(visit: Visited) -> Response[bytes]:
    """Register an endpoint; its secret is shown only on the page that answers."""
    try:
        new = visit.form.read(NewWebhook, events=[*_events(visit.form)])
        request = webhooks.to_proto(new)
        answer = await visit.calls.call(visit.calls.notifier.CreateEndpoint, request)
    except DomainError as error:
        visit.form.refuse(error)
        return _form(visit, visit.form, None, 400)
    made = webhooks.with_secret(answer)
    return visit.page("webhook_secret.html", endpoint=made, secret=made.secret, is_new=True)


@get("/dashboard/webhooks/{webhook_id:str}", include_in_schema=False)
async def show_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """One endpoint, how it is doing, and its deliveries."""
    return await _show(visit, webhook_id)


async def _show(visit: Visit, webhook_id: str, http_status: int = 200) -> Response[bytes]:
    query = visit.request.query_params
    status = query.get("status", "")
    calls = visit.calls
    listed = DeliveriesQuery(
        status=cast("Status", status) if status in STATUSES else None,
        limit=PAGE_ROWS,
        cursor=query.get("cursor", ""),
    )
    message, stats, deliveries = await asyncio.gather(
        _message(visit, webhook_id),
        calls.call(
            calls.notifier.GetEndpointStats,
            notifier_pb2.GetEndpointStatsRequest(endpoint_id=webhook_id),
        ),
        calls.call(calls.notifier.ListDeliveries, webhooks.list_request(listed, webhook_id)),
    )
    page = webhooks.page_from_proto(deliveries)
    return visit.page(
        "webhook.html",
        http_status,
        endpoint=webhooks.from_proto(message),
        etag=message.etag,
        stats=webhooks.stats_from_proto(stats),
        deliveries=page.data,
        cursor=page.next_cursor,
        statuses=STATUSES,
        chosen=listed.status or "",
    )


@get("/dashboard/webhooks/{webhook_id:str}/edit", include_in_schema=False)
async def edit_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """The form with what is set."""
    visit.require("webhooks")
    endpoint, form = await _filled(visit, webhook_id)
    return _form(visit, form, endpoint)


async def _filled(visit: Visit, webhook_id: str) -> tuple[Webhook, Form]:
    """The endpoint, and the form with what is set."""
    message = await _message(visit, webhook_id)
    endpoint = webhooks.from_proto(message)
    pairs = [
        (ETAG, message.etag),
        ("url", endpoint.url),
        ("description", endpoint.description),
        ("rateLimit", str(endpoint.rate_limit)),
        *(("events", each) for each in endpoint.events if each in EVENT_TYPES),
        ("_patterns", ", ".join(each for each in endpoint.events if each not in EVENT_TYPES)),
    ]
    return endpoint, Form(pairs)


@post("/dashboard/webhooks/{webhook_id:str}/edit", include_in_schema=False)
async def change_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """Change what the form shows."""
    try:
        change = visit.form.read(
            WebhookChange,
            events=[*_events(visit.form)],
            description=visit.form.get("description", ""),
        )
        request = webhooks.change_to_proto(webhook_id, change)
        request.if_match.extend(visit.form.if_match)
        await visit.calls.call(visit.calls.notifier.UpdateEndpoint, request)
    except StaleError:
        endpoint, now = await _filled(visit, webhook_id)
        return _form(visit, visit.form.outdated(now), endpoint, 412)
    except DomainError as error:
        visit.form.refuse(error)
        return _form(visit, visit.form, await _endpoint(visit, webhook_id), 400)
    return visit.go(_path(webhook_id), "saved")


@post("/dashboard/webhooks/{webhook_id:str}/enable", include_in_schema=False)
async def enable_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """Give it a new start."""
    return await _switch(visit, webhook_id, enabled=True)


@post("/dashboard/webhooks/{webhook_id:str}/disable", include_in_schema=False)
async def disable_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """Send it nothing for a while."""
    return await _switch(visit, webhook_id, enabled=False)


async def _switch(visit: Visit, webhook_id: str, *, enabled: bool) -> Response[bytes]:
    request = notifier_pb2.UpdateEndpointRequest(endpoint_id=webhook_id, enabled=enabled)
    await visit.calls.call(visit.calls.notifier.UpdateEndpoint, request)
    return visit.go(_path(webhook_id), "saved")


@post("/dashboard/webhooks/{webhook_id:str}/test", include_in_schema=False)
async def test_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """Send it a test event."""
    request = notifier_pb2.TestEndpointRequest(endpoint_id=webhook_id)
    await visit.calls.call(visit.calls.notifier.TestEndpoint, request)
    return visit.go(_path(webhook_id), "tested")


@post("/dashboard/webhooks/{webhook_id:str}/rotate", include_in_schema=False)
async def rotate_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """Make a new secret, which is shown only on the page that answers."""
    request = webhooks.rotation_to_proto(webhook_id, SecretRotation())
    answer = await visit.calls.call(visit.calls.notifier.RotateEndpointSecret, request)
    endpoint = await _endpoint(visit, webhook_id)
    return visit.page(
        "webhook_secret.html", endpoint=endpoint, secret=answer.secret or None, is_new=False
    )


@post("/dashboard/webhooks/{webhook_id:str}/delete", include_in_schema=False)
async def delete_webhook(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """End it; what is pending for it is dropped."""
    request = notifier_pb2.DeleteEndpointRequest(
        endpoint_id=webhook_id, if_match=visit.form.if_match
    )
    try:
        await visit.calls.call(visit.calls.notifier.DeleteEndpoint, request)
    except StaleError as error:
        return await _show(visit, webhook_id, visit.form.refuse(error))
    return visit.go("/dashboard/webhooks", "deleted")


@post("/dashboard/webhooks/{webhook_id:str}/replay", include_in_schema=False)
async def replay_failed(visit: Visited, webhook_id: FromPath[str]) -> Response[bytes]:
    """Send all that failed again."""
    request = webhooks.replay_to_proto(webhook_id, Replay())
    await visit.calls.call(visit.calls.notifier.ReplayDeliveries, request)
    return visit.go(_path(webhook_id), "replaying")


@get("/dashboard/deliveries/{delivery_id:str}", include_in_schema=False)
async def show_delivery(visit: Visited, delivery_id: FromPath[str]) -> Response[bytes]:
    """One delivery: what is sent, and what each attempt got."""
    request = notifier_pb2.GetDeliveryRequest(delivery_id=delivery_id)
    answer = await visit.calls.call(visit.calls.notifier.GetDelivery, request)
    delivery = webhooks.with_payload(answer.delivery)
    return visit.page(
        "delivery.html", delivery=delivery, payload=indented(bytes(delivery.payload).decode())
    )


@post("/dashboard/deliveries/{delivery_id:str}/replay", include_in_schema=False)
async def replay_delivery(visit: Visited, delivery_id: FromPath[str]) -> Response[bytes]:
    """Send it again, at once."""
    request = notifier_pb2.ReplayDeliveryRequest(delivery_id=delivery_id)
    await visit.calls.call(visit.calls.notifier.ReplayDelivery, request)
    return visit.go(f"/dashboard/deliveries/{quote(delivery_id, safe='')}", "replayed")


def _events(form: Form) -> list[str]:
    """The types that were ticked, and patterns such as "invoice.*"."""
    return [*form.all("events"), *split(form.get("_patterns", ""))]


def _form(visit: Visit, form: Form, endpoint: Webhook | None, status: int = 200) -> Response[bytes]:
    return visit.page(
        "webhook_edit.html",
        status,
        form=form,
        endpoint=endpoint,
        event_types=EVENT_TYPES,
        ticked=form.all("events"),
    )


async def _endpoint(visit: Visit, webhook_id: str) -> Webhook:
    return webhooks.from_proto(await _message(visit, webhook_id))


async def _message(visit: Visit, webhook_id: str) -> notifier_pb2.Endpoint:
    request = notifier_pb2.GetEndpointRequest(endpoint_id=webhook_id)
    return (await visit.calls.call(visit.calls.notifier.GetEndpoint, request)).endpoint


def _path(webhook_id: str) -> str:
    return f"/dashboard/webhooks/{quote(webhook_id, safe='')}"


HANDLERS = [
    list_webhooks,
    new_webhook,
    create_webhook,
    show_webhook,
    edit_webhook,
    change_webhook,
    enable_webhook,
    disable_webhook,
    test_webhook,
    rotate_webhook,
    delete_webhook,
    replay_failed,
    show_delivery,
    replay_delivery,
]
