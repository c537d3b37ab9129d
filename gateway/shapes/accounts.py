"""The organization and its API keys."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from usageflow.accounts.v1 import accounts_pb2 as pb

from gateway.shapes.common import name_of, number_of, time_of, time_or_none, timestamp
from services.kit.auth import MODE_NAMES
from services.kit.events import (
    PAST_DAYS_DEFAULT,
    PAST_DAYS_MAX,
    RETENTION_DAYS_MAX,
    RETENTION_DAYS_MIN,
)
from services.kit.limits import EVENTS_PER_S_MAX, NETWORKS_MAX, REQUESTS_PER_S_MAX

ScopeName = Literal["track", "read", "admin"]
_SCOPE = "SCOPE_"


EventPastDays = Annotated[
    int,
    Meta(
        ge=PAST_DAYS_DEFAULT,
        le=PAST_DAYS_MAX,
        description="How many days ago an event may have happened when it is sent; for imports",
    ),
]
EventRetentionDays = Annotated[
    int,
    Meta(
        ge=RETENTION_DAYS_MIN,
        le=RETENTION_DAYS_MAX,
        description="How many days raw events and their idempotency keys are kept, a hundred years "
        "at most; at least eventPastDays",
    ),
]
RequestsPerSecond = Annotated[
    int,
    Meta(
        ge=1,
        le=REQUESTS_PER_S_MAX,
        description="How many requests a second the organization's keys may send in each mode",
    ),
]
EventsPerSecond = Annotated[
    int, Meta(ge=1, le=EVENTS_PER_S_MAX, description="How many usage events a second")
]
_AS_ITS_ORGANIZATION = "A second; null: as many as the organization"
KeyRequestsPerSecond = (
    Annotated[
        int,
        Meta(ge=1, le=REQUESTS_PER_S_MAX, description=_AS_ITS_ORGANIZATION),
    ]
    | None
)
KeyEventsPerSecond = (
    Annotated[
        int,
        Meta(ge=1, le=EVENTS_PER_S_MAX, description=_AS_ITS_ORGANIZATION),
    ]
    | None
)
AllowedNetworks = Annotated[
    list[Annotated[str, Meta(max_length=64)]],
    Meta(
        max_length=NETWORKS_MAX,
        description="Networks (203.0.113.0/24, 2001:db8::/32) or addresses that the key may be "
        "used from; none: from anywhere",
    ),
]

StrictMetrics = Annotated[
    bool,
    Meta(
        description="Whether events of metrics that nobody has defined are rejected; otherwise "
        "such a metric defines itself by its first event (SUM)"
    ),
]


class OrganizationSettings(msgspec.Struct, rename="camel", kw_only=True):
    """What an organization decides for itself."""

    event_past_days: EventPastDays
    event_retention_days: EventRetentionDays
    strict_metrics: StrictMetrics
    requests_per_second: RequestsPerSecond
    events_per_second: EventsPerSecond


class Organization(msgspec.Struct, rename="camel", kw_only=True):
    """The organization that the calling key belongs to."""

    id: str
    name: str
    settings: OrganizationSettings
    created_at: datetime


class OrganizationSettingsChange(msgspec.Struct, rename="camel", kw_only=True):
    """Settings to change; what is left out stays."""

    event_past_days: EventPastDays | UnsetType = UNSET
    event_retention_days: EventRetentionDays | UnsetType = UNSET
    strict_metrics: StrictMetrics | UnsetType = UNSET
    requests_per_second: RequestsPerSecond | UnsetType = UNSET
    events_per_second: EventsPerSecond | UnsetType = UNSET


class OrganizationChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change of the organization; what is left out stays."""

    name: str | UnsetType = UNSET
    settings: OrganizationSettingsChange | UnsetType = UNSET


class NewApiKey(msgspec.Struct, rename="camel", kw_only=True):
    """A key to make, in the calling key's organization and mode."""

    name: str = ""
    scopes: Annotated[list[ScopeName], Meta(max_length=3, description="At least one")]
    expires_at: Annotated[datetime | None, Meta(description="null: never")] = None
    allowed_networks: AllowedNetworks = []
    requests_per_second: KeyRequestsPerSecond = None
    events_per_second: KeyEventsPerSecond = None


class ApiKeyChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change of a key; what is left out stays."""

    name: str | UnsetType = UNSET
    allowed_networks: AllowedNetworks | UnsetType = UNSET
    requests_per_second: KeyRequestsPerSecond | UnsetType = UNSET
    events_per_second: KeyEventsPerSecond | UnsetType = UNSET


class ApiKey(msgspec.Struct, rename="camel", kw_only=True):
    """What may be shown of a key after it was made."""

    id: str
    name: str
    prefix: str
    mode: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: Annotated[
        datetime | None, Meta(description="The last time, give or take a minute; null: never")
    ]
    successor_id: Annotated[str | None, Meta(description="The key that it was rotated to")]
    allowed_networks: AllowedNetworks
    requests_per_second: KeyRequestsPerSecond
    events_per_second: KeyEventsPerSecond


class ApiKeyWithSecret(ApiKey, rename="camel", kw_only=True):
    """A new key; the key itself is shown only here."""

    secret: Annotated[str, Meta(description="The key itself: uf_live_... or uf_test_...")]


class Rotation(msgspec.Struct, rename="camel", kw_only=True):
    """How a key is replaced."""

    overlap_seconds: Annotated[
        int,
        Meta(ge=0, le=2_592_000, description="How long the old key goes on working; default a day"),
    ] = 86_400


class ApiKeyPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of keys."""

    data: list[ApiKey]
    next_cursor: str | None


def organization_from_proto(message: pb.Organization) -> Organization:
    """The JSON of an organization."""
    return Organization(
        id=message.id,
        name=message.name,
        settings=OrganizationSettings(
            event_past_days=message.settings.event_past_days,
            event_retention_days=message.settings.event_retention_days,
            strict_metrics=message.settings.strict_metrics,
            requests_per_second=message.settings.requests_per_second,
            events_per_second=message.settings.events_per_second,
        ),
        created_at=time_of(message.create_time),
    )


def change_to_proto(change: OrganizationChange) -> pb.UpdateOrganizationRequest:
    """The request that changes what was sent."""
    request = pb.UpdateOrganizationRequest()
    if change.name is not UNSET:
        request.name = change.name
    if change.settings is not UNSET:
        for name in change.settings.__struct_fields__:
            if (value := getattr(change.settings, name)) is not UNSET:
                setattr(request, name, value)
    return request


def to_proto(key: NewApiKey) -> pb.CreateApiKeyRequest:
    """The request that makes a key."""
    return pb.CreateApiKeyRequest(
        name=key.name,
        scopes=[number_of(pb.Scope, scope.upper(), _SCOPE) for scope in key.scopes],
        expire_time=timestamp(key.expires_at),
        allowed_networks=key.allowed_networks,
        requests_per_second=key.requests_per_second or 0,
        events_per_second=key.events_per_second or 0,
    )


def key_change_to_proto(key_id: str, change: ApiKeyChange) -> pb.UpdateApiKeyRequest:
    """The request that changes what was sent."""
    request = pb.UpdateApiKeyRequest(key_id=key_id)
    if change.name is not UNSET:
        request.name = change.name
    if change.allowed_networks is not UNSET:
        request.allowed_networks.CopyFrom(pb.AllowedNetworks(networks=change.allowed_networks))
    if change.requests_per_second is not UNSET:
        request.requests_per_second = change.requests_per_second or 0
    if change.events_per_second is not UNSET:
        request.events_per_second = change.events_per_second or 0
    return request


def from_proto(message: pb.ApiKey) -> ApiKey:
    """The JSON of a key."""
    return ApiKey(
        id=message.id,
        name=message.name,
        prefix=message.prefix,
        mode=MODE_NAMES[message.mode],
        scopes=[name_of(pb.Scope, scope, _SCOPE).lower() for scope in message.scopes],
        created_at=time_of(message.create_time),
        expires_at=time_or_none(message, "expire_time"),
        revoked_at=time_or_none(message, "revoke_time"),
        used_at=time_or_none(message, "use_time"),
        successor_id=message.successor_id or None,
        allowed_networks=list(message.allowed_networks),
        requests_per_second=message.requests_per_second or None,
        events_per_second=message.events_per_second or None,
    )


def with_secret(
    message: pb.CreateApiKeyResponse | pb.RotateApiKeyResponse,
) -> ApiKeyWithSecret:
    """The JSON of a new key."""
    shown = msgspec.structs.asdict(from_proto(message.api_key))
    return ApiKeyWithSecret(**shown, secret=message.secret)
