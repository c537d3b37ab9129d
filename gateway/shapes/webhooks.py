"""Webhook endpoints and deliveries."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.notifier.v1 import notifier_pb2 as pb

from gateway.shapes.common import PageQuery, name_of, number_of, time_of, time_or_none

_STATUS = "DELIVERY_STATUS_"
EVENTS_MAX = 100


class NewWebhook(msgspec.Struct, rename="camel", kw_only=True):
    """An endpoint to register."""

    url: str
    events: Annotated[
        list[str],
        Meta(max_length=EVENTS_MAX, description='Types such as "invoice.created"; empty: all'),
    ] = []
    description: str = ""


class Webhook(msgspec.Struct, rename="camel", kw_only=True):
    """An endpoint."""

    id: str
    url: str
    events: list[str]
    description: str
    enabled: bool
    created_at: datetime


class WebhookWithSecret(Webhook, rename="camel", kw_only=True):
    """A new endpoint; its secret is shown only here."""

    secret: str


class WebhookSecret(msgspec.Struct, rename="camel", kw_only=True):
    """A new secret; it is shown only here."""

    id: str
    secret: str


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


class DeliveriesQuery(PageQuery, rename="camel", kw_only=True):
    """Which deliveries."""

    status: Literal["PENDING", "SUCCEEDED", "FAILED"] | None = None


def status_number(name: str | None) -> pb.DeliveryStatus.ValueType:
    """The status to list; unspecified for all."""
    number: pb.DeliveryStatus.ValueType = number_of(
        pb.DeliveryStatus, name or "UNSPECIFIED", _STATUS
    )
    return number


def from_proto(message: pb.Endpoint) -> Webhook:
    """The JSON of an endpoint."""
    return Webhook(
        id=message.id,
        url=message.url,
        events=list(message.event_types),
        description=message.description,
        enabled=message.enabled,
        created_at=time_of(message.create_time),
    )


def with_secret(message: pb.CreateEndpointResponse) -> WebhookWithSecret:
    """The JSON of a new endpoint."""
    shown = msgspec.structs.asdict(from_proto(message.endpoint))
    return WebhookWithSecret(**shown, secret=message.secret)


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
