"""The organization and its API keys."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.accounts.v1 import accounts_pb2 as pb

from gateway.shapes.common import name_of, number_of, time_of, time_or_none, timestamp
from services.kit.auth import MODE_NAMES

ScopeName = Literal["track", "read", "admin"]
_SCOPE = "SCOPE_"


class Organization(msgspec.Struct, rename="camel", kw_only=True):
    """The organization that the calling key belongs to."""

    id: str
    name: str
    created_at: datetime


class NewApiKey(msgspec.Struct, rename="camel", kw_only=True):
    """A key to make, in the calling key's organization and mode."""

    name: str = ""
    scopes: Annotated[list[ScopeName], Meta(max_length=3, description="At least one")]
    expires_at: Annotated[datetime | None, Meta(description="null: never")] = None


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


class ApiKeyWithSecret(ApiKey, rename="camel", kw_only=True):
    """A new key; the key itself is shown only here."""

    secret: Annotated[str, Meta(description="The key itself: uf_live_... or uf_test_...")]


class ApiKeyPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of keys."""

    data: list[ApiKey]
    next_cursor: str | None


def organization_from_proto(message: pb.Organization) -> Organization:
    """The JSON of an organization."""
    return Organization(id=message.id, name=message.name, created_at=time_of(message.create_time))


def to_proto(key: NewApiKey) -> pb.CreateApiKeyRequest:
    """The request that makes a key."""
    return pb.CreateApiKeyRequest(
        name=key.name,
        scopes=[number_of(pb.Scope, scope.upper(), _SCOPE) for scope in key.scopes],
        expire_time=timestamp(key.expires_at),
    )


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
    )


def with_secret(message: pb.CreateApiKeyResponse) -> ApiKeyWithSecret:
    """The JSON of a new key."""
    shown = msgspec.structs.asdict(from_proto(message.api_key))
    return ApiKeyWithSecret(**shown, secret=message.secret)
