"""Webhook endpoints and deliveries."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field
from usageflow.notifier.v1 import notifier_pb2 as pb

from gateway.shapes.common import (
    PageQuery,
    name_of,
    number_of,
    raw_object,
    time_of,
    time_or_none,
    timestamp,
)

_STATUS = "DELIVERY_STATUS_"
_SIGNATURE = "SIGNATURE_KIND_"
_REASON = "DISABLED_REASON_"
EVENTS_MAX = 50

Events = Annotated[
    list[str],
    Meta(
        max_length=EVENTS_MAX,
        description='Types such as "invoice.created", or "invoice.*" for a group; empty: all',
    ),
]
RateLimit = Annotated[int, Meta(ge=0, description="Webhooks a second at most; 0: no limit")]
Headers = Annotated[
    dict[str, str], Meta(description="Headers that its webhooks carry besides ours; never shown")
]
Signature = Literal["HMAC_SHA256", "ED25519"]
OwnSecret = Annotated[
    str, Meta(description='A secret of your own, "whsec_..." or "whsk_..."; else one is made')
]


class NewWebhook(msgspec.Struct, rename="camel", kw_only=True):
    """An endpoint to register."""

    url: str
    events: Events = []
    description: str = ""
    rate_limit: RateLimit = 0
    headers: Headers = {}
    signature: Signature | None = None
    secret: OwnSecret = ""


class WebhookChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change of an endpoint; what is left out stays."""

    url: str | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    description: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    rate_limit: RateLimit | UnsetType = UNSET
    headers: Headers | UnsetType = UNSET


class SecretRotation(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """How an endpoint's webhooks are signed from now on."""

    signature: Signature | None = None
    secret: OwnSecret = ""


class Webhook(msgspec.Struct, rename="camel", kw_only=True):
    """An endpoint."""

    id: str
    url: str
    events: list[str]
    description: str
    enabled: bool
    created_at: datetime
    rate_limit: int
    header_names: list[str]
    signature: str
    public_key: str | None
    disabled_reason: str | None
    disabled_at: datetime | None
    failing_since: datetime | None
    throttled_until: datetime | None


class WebhookWithSecret(Webhook, rename="camel", kw_only=True):
    """A new endpoint; its secret is shown only here, and is null for ED25519."""

    secret: str | None


class WebhookSecret(msgspec.Struct, rename="camel", kw_only=True):
    """A new secret; it is shown only here. For ED25519 there is a public key in its place."""

    id: str
    secret: str | None
    public_key: str | None


class WebhookPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of endpoints."""

    data: list[Webhook]
    next_cursor: str | None


class DeliveryAttempt(msgspec.Struct, rename="camel", kw_only=True):
    """One try at delivering."""

    number: int
    started_at: datetime
    duration_ms: int
    response_status: int | None
    error: str | None
    response_body: str


class Delivery(msgspec.Struct, rename="camel", kw_only=True):
    """One event on its way to one endpoint."""

    id: str
    event_id: str
    endpoint_id: str
    type: str
    status: str
    next_attempt_at: datetime | None
    attempts: list[DeliveryAttempt]
    created_at: datetime


class DeliveryPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of deliveries."""

    data: list[Delivery]
    next_cursor: str | None


class WebhookDeliveriesQuery(PageQuery, rename="camel", kw_only=True):
    """Which deliveries of an endpoint; times are half-open."""

    status: Literal["PENDING", "SUCCEEDED", "FAILED"] | None = None
    type: Annotated[str, Meta(description='An event type, or "invoice.*" for a group')] = ""
    from_: datetime | None = field(name="from", default=None)
    to: datetime | None = None


class DeliveriesQuery(WebhookDeliveriesQuery, rename="camel", kw_only=True):
    """Which deliveries."""

    endpoint_id: Annotated[str, Meta(description="Only those of this endpoint")] = ""


class DeliveryWithPayload(Delivery, rename="camel", kw_only=True):
    """A delivery with the body that is sent."""

    payload: msgspec.Raw


class StatsQuery(msgspec.Struct, rename="camel", kw_only=True):
    """Of which deliveries: those of the last 24 hours unless told; half-open."""

    from_: datetime | None = field(name="from", default=None)
    to: datetime | None = None


class WebhookStats(msgspec.Struct, rename="camel", kw_only=True):
    """What became of an endpoint's deliveries. `attempts` counts by error; "none" is success."""

    pending: int
    succeeded: int
    failed: int
    oldest_pending_at: datetime | None
    attempts: dict[str, int]
    duration_p50_ms: int
    duration_p95_ms: int


class Replay(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """What to send again: FAILED, ALL, or MISSED events, which the endpoint never got."""

    scope: Literal["FAILED", "ALL", "MISSED"] = "FAILED"
    from_: datetime | None = field(name="from", default=None)
    to: datetime | None = None
    cursor: Annotated[str, Meta(description="nextCursor of the call before")] = ""


class Replayed(msgspec.Struct, rename="camel", kw_only=True):
    """How many will be sent again; with a nextCursor more are left: call again."""

    replayed: int
    next_cursor: str | None


def status_number(name: str | None) -> pb.DeliveryStatus.ValueType:
    """The status to list; unspecified for all."""
    number: pb.DeliveryStatus.ValueType = number_of(
        pb.DeliveryStatus, name or "UNSPECIFIED", _STATUS
    )
    return number


def list_request(asked: WebhookDeliveriesQuery, endpoint_id: str) -> pb.ListDeliveriesRequest:
    """The request that lists deliveries; of all endpoints when `endpoint_id` is ""."""
    return pb.ListDeliveriesRequest(
        endpoint_id=endpoint_id,
        status=status_number(asked.status),
        event_type=asked.type,
        from_time=timestamp(asked.from_),
        to_time=timestamp(asked.to),
        page_size=asked.limit,
        page_token=asked.cursor,
    )


def page_from_proto(answer: pb.ListDeliveriesResponse) -> DeliveryPage:
    """The JSON of a page of deliveries."""
    return DeliveryPage(
        data=[delivery_from_proto(delivery) for delivery in answer.deliveries],
        next_cursor=answer.next_page_token or None,
    )


def with_payload(message: pb.Delivery) -> DeliveryWithPayload:
    """The JSON of a delivery with the body that is sent."""
    shown = msgspec.structs.asdict(delivery_from_proto(message))
    return DeliveryWithPayload(**shown, payload=raw_object(message.payload_json))


def stats_from_proto(message: pb.GetEndpointStatsResponse) -> WebhookStats:
    """The JSON of how an endpoint is doing."""
    return WebhookStats(
        pending=message.pending,
        succeeded=message.succeeded,
        failed=message.failed,
        oldest_pending_at=time_or_none(message, "oldest_pending_time"),
        attempts={each.error or "none": each.count for each in message.attempts},
        duration_p50_ms=message.duration_p50_ms,
        duration_p95_ms=message.duration_p95_ms,
    )


def replay_to_proto(webhook_id: str, replay: Replay) -> pb.ReplayDeliveriesRequest:
    """The request that sends many deliveries again."""
    scope: pb.ReplayScope.ValueType = number_of(pb.ReplayScope, replay.scope, "REPLAY_SCOPE_")
    return pb.ReplayDeliveriesRequest(
        endpoint_id=webhook_id,
        scope=scope,
        from_time=timestamp(replay.from_),
        to_time=timestamp(replay.to),
        page_token=replay.cursor,
    )


def from_proto(message: pb.Endpoint) -> Webhook:
    """The JSON of an endpoint."""
    return Webhook(
        id=message.id,
        url=message.url,
        events=list(message.event_types),
        description=message.description,
        enabled=message.enabled,
        created_at=time_of(message.create_time),
        rate_limit=message.rate_limit,
        header_names=list(message.header_names),
        signature=name_of(pb.SignatureKind, message.signature_kind, _SIGNATURE),
        public_key=message.public_key or None,
        disabled_reason=_reason(message.disabled_reason),
        disabled_at=time_or_none(message, "disable_time"),
        failing_since=time_or_none(message, "failing_since_time"),
        throttled_until=time_or_none(message, "throttled_until_time"),
    )


def _reason(number: int) -> str | None:
    return name_of(pb.DisabledReason, number, _REASON) if number else None


def to_proto(webhook: NewWebhook) -> pb.CreateEndpointRequest:
    """The request that registers an endpoint."""
    return pb.CreateEndpointRequest(
        url=webhook.url,
        event_types=webhook.events,
        description=webhook.description,
        rate_limit=webhook.rate_limit,
        headers=webhook.headers,
        signature_kind=_signature_number(webhook.signature),
        secret=webhook.secret,
    )


def change_to_proto(webhook_id: str, change: WebhookChange) -> pb.UpdateEndpointRequest:
    """The request that changes what was sent."""
    request = pb.UpdateEndpointRequest(endpoint_id=webhook_id)
    for name in ("url", "description", "enabled", "rate_limit"):
        value = getattr(change, name)
        if value is not UNSET:
            setattr(request, name, value)
    if not isinstance(change.events, UnsetType):
        request.event_types.CopyFrom(pb.EventTypes(values=change.events))
    if not isinstance(change.headers, UnsetType):
        request.headers.CopyFrom(pb.Headers(values=change.headers))
    return request


def rotation_to_proto(webhook_id: str, rotation: SecretRotation) -> pb.RotateEndpointSecretRequest:
    """The request that makes a new secret."""
    return pb.RotateEndpointSecretRequest(
        endpoint_id=webhook_id,
        signature_kind=_signature_number(rotation.signature),
        secret=rotation.secret,
    )


def _signature_number(name: str | None) -> pb.SignatureKind.ValueType:
    number: pb.SignatureKind.ValueType = number_of(
        pb.SignatureKind, name or "UNSPECIFIED", _SIGNATURE
    )
    return number


def with_secret(message: pb.CreateEndpointResponse) -> WebhookWithSecret:
    """The JSON of a new endpoint."""
    shown = msgspec.structs.asdict(from_proto(message.endpoint))
    return WebhookWithSecret(**shown, secret=message.secret or None)


def delivery_from_proto(message: pb.Delivery) -> Delivery:
    """The JSON of a delivery."""
    return Delivery(
        id=message.id,
        event_id=message.event_id,
        endpoint_id=message.endpoint_id,
        type=message.event_type,
        status=name_of(pb.DeliveryStatus, message.status, _STATUS),
        next_attempt_at=time_or_none(message, "next_attempt_time"),
        attempts=[_attempt(attempt) for attempt in message.attempts],
        created_at=time_of(message.create_time),
    )


def _attempt(attempt: pb.DeliveryAttempt) -> DeliveryAttempt:
    return DeliveryAttempt(
        number=attempt.number,
        started_at=time_of(attempt.start_time),
        duration_ms=attempt.duration_ms,
        response_status=attempt.response_status or None,
        error=attempt.error or None,
        response_body=attempt.response_body,
    )
