"""Webhook endpoints, events, deliveries: what they are. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from services.kit.database import TenantKey
from services.notifier import filters

ENDPOINTS_MAX = 100  # of one organization and mode: bounds the fan-out of one event
SECRETS_MAX = 10  # that sign at the same time
SECRET_OVERLAP = timedelta(hours=24)
REPLAY_PAUSE = timedelta(seconds=10)  # a second click within it changes nothing


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where webhooks go."""

    id: str
    tenant: TenantKey
    url: str
    event_types: tuple[str, ...]
    description: str
    create_time: datetime
    enabled: bool = True
    rate_limit: int = 0
    header_names: tuple[str, ...] = ()
    signature_kind: str = "v1"
    public_key: bytes | None = None
    disabled_reason: str = ""
    disable_time: datetime | None = None
    failing_since: datetime | None = None
    throttle_until: datetime | None = None

    def takes(self, event_type: str) -> bool:
        """Whether the endpoint subscribed to this type."""
        return self.enabled and filters.takes(self.event_types, event_type)


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An endpoint to register. `secret` "": one is made; `signature_kind` "": as the secret's."""

    url: str
    event_types: Sequence[str] = ()
    description: str = ""
    rate_limit: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    signature_kind: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What to change of an endpoint; None stays."""

    url: str | None = None
    event_types: Sequence[str] | None = None
    description: str | None = None
    enabled: bool | None = None
    rate_limit: int | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Something that happened, with the exact bytes that are signed and sent."""

    id: str
    tenant: TenantKey
    type: str
    create_time: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at delivering. `response_status` is 0 when there was none, `error` "" when all is
    well, otherwise "timeout", "connection", "dns", "tls", "refused_address" or "http_status".
    `retry_after_s` is what the receiver asked for.
    """

    start_time: datetime
    duration_ms: int
    response_status: int
    error: str
    response_body: bytes
    number: int = 0
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. `status`: pending, succeeded, failed or dropped."""

    id: str
    event_id: str
    endpoint_id: str
    event_type: str
    status: str
    next_attempt_time: datetime | None
    create_time: datetime
    attempts: tuple[Attempt, ...] = ()
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; None and "" take all. Times are half-open, of their making."""

    endpoint_id: str = ""
    status: str | None = None
    event_type: str = ""
    from_time: datetime | None = None
    to_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """What became of an endpoint's deliveries of a time range.

    `statuses` counts deliveries by status, `attempts` attempts by error ("" for none); the
    percentiles are of attempts, in milliseconds.
    """

    statuses: Mapping[str, int]
    attempts: Mapping[str, int]
    oldest_pending_time: datetime | None
    duration_p50_ms: int
    duration_p95_ms: int


def webhook_body(event_type: str, create_time: datetime, data_json: str) -> bytes:
    """The body that is signed and sent. ValueError unless `data_json` is a JSON object."""
    try:
        msgspec.json.decode(data_json, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise ValueError("data must be a JSON object") from error
    timestamp = create_time.isoformat().replace("+00:00", "Z")
    data = msgspec.Raw(data_json.encode())
    return msgspec.json.encode({"type": event_type, "timestamp": timestamp, "data": data})
