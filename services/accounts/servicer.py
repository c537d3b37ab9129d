"""Translates between proto and domain; decides nothing but who may call."""

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.accounts.v1 import accounts_pb2 as pb
from usageflow.accounts.v1.accounts_pb2_grpc import (
    AccountsInternalServiceServicer,
    AccountsServiceServicer,
)

from services.accounts.domain import ApiKey, NewKey, Organization
from services.accounts.service import Accounts
from services.kit.auth import (
    MODE_NAMES,
    MODE_NUMBERS,
    SCOPE_NAMES,
    current_principal,
    require_scope,
)
from services.kit.database import TenantKey
from services.kit.errors import FieldProblem, InvalidArgumentError

_SCOPE_NUMBERS = {name: number for number, name in SCOPE_NAMES.items()}


class AccountsServicer(AccountsServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def GetOrganization(
        self, request: pb.GetOrganizationRequest, context: object
    ) -> pb.GetOrganizationResponse:
        """The caller's organization; any scope."""
        tenant = current_principal().tenant
        organization = await self._accounts.get_organization(tenant.organization_id)
        return pb.GetOrganizationResponse(organization=_organization(organization))

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: object
    ) -> pb.CreateApiKeyResponse:
        """A new key, shown once; scope admin."""
        tenant = require_scope("admin").tenant
        key, secret = await self._accounts.create_api_key(tenant, _new_key(request))
        return pb.CreateApiKeyResponse(api_key=_api_key(key), secret=secret)

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: object
    ) -> pb.ListApiKeysResponse:
        """A page of keys, never the keys themselves; scope admin."""
        tenant = require_scope("admin").tenant
        keys, next_page_token = await self._accounts.list_api_keys(
            tenant, request.page_size, request.page_token
        )
        return pb.ListApiKeysResponse(
            api_keys=[_api_key(key) for key in keys], next_page_token=next_page_token
        )

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: object
    ) -> pb.RevokeApiKeyResponse:
        """End a key for good; scope admin."""
        tenant = require_scope("admin").tenant
        key = await self._accounts.revoke_api_key(tenant, request.key_id)
        return pb.RevokeApiKeyResponse(api_key=_api_key(key))


class AccountsInternalServicer(AccountsInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def ResolveApiKey(
        self, request: pb.ResolveApiKeyRequest, context: object
    ) -> pb.ResolveApiKeyResponse:
        """Who a key stands for."""
        key = await self._accounts.resolve_api_key(request.secret)
        principal = pb.Principal(
            key_id=key.id,
            organization_id=key.organization_id,
            mode=MODE_NUMBERS[key.mode],
            scopes=_scope_numbers(key),
            expire_time=_timestamp(key.expire_time),
        )
        return pb.ResolveApiKeyResponse(principal=principal)

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: object
    ) -> pb.CreateOrganizationResponse:
        """A new organization."""
        organization = await self._accounts.create_organization(request.name)
        return pb.CreateOrganizationResponse(organization=_organization(organization))

    async def IssueApiKey(
        self, request: pb.IssueApiKeyRequest, context: object
    ) -> pb.IssueApiKeyResponse:
        """A key for any organization: how the first one of an organization is made."""
        tenant = TenantKey(request.organization_id, MODE_NAMES.get(request.mode, ""))
        key, secret = await self._accounts.create_api_key(tenant, _new_key(request))
        return pb.IssueApiKeyResponse(api_key=_api_key(key), secret=secret)


def _new_key(request: pb.CreateApiKeyRequest | pb.IssueApiKeyRequest) -> NewKey:
    return NewKey(
        name=request.name,
        scopes=_scope_names(request.scopes),
        expire_time=_expire_time(request) if request.HasField("expire_time") else None,
    )


def _scope_names(numbers: Iterable[pb.Scope.ValueType]) -> list[str]:
    # An unknown number stays in the list, so that the domain refuses it.
    return [SCOPE_NAMES.get(number, str(number)) for number in numbers]


def _expire_time(request: pb.CreateApiKeyRequest | pb.IssueApiKeyRequest) -> datetime:
    try:
        return request.expire_time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        problem = FieldProblem("expiresAt", "must be a time of the years 1 to 9999")
        raise InvalidArgumentError([problem]) from None


def _organization(organization: Organization) -> pb.Organization:
    return pb.Organization(
        id=organization.id,
        name=organization.name,
        create_time=_timestamp(organization.create_time),
    )


def _api_key(key: ApiKey) -> pb.ApiKey:
    return pb.ApiKey(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        mode=MODE_NUMBERS[key.mode],
        scopes=_scope_numbers(key),
        create_time=_timestamp(key.create_time),
        expire_time=_timestamp(key.expire_time),
        revoke_time=_timestamp(key.revoke_time),
    )


def _scope_numbers(key: ApiKey) -> list[pb.Scope.ValueType]:
    return [_SCOPE_NUMBERS[scope] for scope in key.scopes]


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
