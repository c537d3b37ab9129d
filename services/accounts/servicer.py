"""Translates between proto and domain; decides nothing but who may call."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Literal

from usageflow.accounts.v1 import accounts_pb2 as pb
from usageflow.accounts.v1.accounts_pb2_grpc import (
    AccountsInternalServiceServicer,
    AccountsServiceServicer,
)

from services.accounts.audit import AuditLog
from services.accounts.audit_repository import AuditFilter, Entry
from services.accounts.domain import (
    ApiKey,
    ClockTime,
    KeyChange,
    KeyLimits,
    NewKey,
    OrganizationChange,
)
from services.accounts.keys import principal_of_key
from services.accounts.proto import SCOPE_NUMBERS, organization_message, time_of, timestamp
from services.accounts.service import Accounts
from services.kit.auth import (
    MODE_NAMES,
    MODE_NUMBERS,
    SCOPE_NAMES,
    current_principal,
    require_scope,
)
from services.kit.database import TenantKey
from services.kit.etag import expecting, tagged

_CHANGES: tuple[
    Literal[
        "name",
        "event_past_days",
        "event_retention_days",
        "strict_metrics",
        "requests_per_second",
        "events_per_second",
    ],
    ...,
] = (
    "name",
    "event_past_days",
    "event_retention_days",
    "strict_metrics",
    "requests_per_second",
    "events_per_second",
)
_KEY_CHANGES: tuple[Literal["name", "requests_per_second", "events_per_second"], ...] = (
    "name",
    "requests_per_second",
    "events_per_second",
)


class AccountsServicer(AccountsServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(self, accounts: Accounts, audit_log: AuditLog) -> None:
        self._accounts = accounts
        self._audit_log = audit_log

    async def GetOrganization(
        self, request: pb.GetOrganizationRequest, context: object
    ) -> pb.GetOrganizationResponse:
        """The caller's organization; any scope."""
        tenant = current_principal().tenant
        organization = await self._accounts.get_organization(tenant.organization_id)
        return pb.GetOrganizationResponse(organization=organization_message(organization))

    async def UpdateOrganization(
        self, request: pb.UpdateOrganizationRequest, context: object
    ) -> pb.UpdateOrganizationResponse:
        """Change the caller's organization; scope admin."""
        principal = require_scope("admin")
        given = {name: getattr(request, name) for name in _CHANGES if request.HasField(name)}
        organization = await self._accounts.update_organization(
            principal.organization_id,
            OrganizationChange(**given),
            by_key=principal.actor_id,
            expect=expecting(request.if_match, organization_message),
        )
        return pb.UpdateOrganizationResponse(organization=organization_message(organization))

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: object
    ) -> pb.CreateApiKeyResponse:
        """A new key, shown once; scope admin."""
        principal = require_scope("admin")
        key, secret = await self._accounts.create_api_key(
            principal.tenant, _new_key(request), by_key=principal.actor_id
        )
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

    async def GetApiKey(
        self, request: pb.GetApiKeyRequest, context: object
    ) -> pb.GetApiKeyResponse:
        """A key, never the key itself; scope admin."""
        tenant = require_scope("admin").tenant
        key = await self._accounts.get_api_key(tenant, request.key_id)
        return pb.GetApiKeyResponse(api_key=_api_key(key))

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: object
    ) -> pb.RevokeApiKeyResponse:
        """End a key for good; scope admin."""
        principal = require_scope("admin")
        key = await self._accounts.revoke_api_key(
            principal.tenant,
            request.key_id,
            by_key=principal.actor_id,
            expect=expecting(request.if_match, _api_key),
        )
        return pb.RevokeApiKeyResponse(api_key=_api_key(key))

    async def UpdateApiKey(
        self, request: pb.UpdateApiKeyRequest, context: object
    ) -> pb.UpdateApiKeyResponse:
        """Change a key; scope admin."""
        principal = require_scope("admin")
        given = {name: getattr(request, name) for name in _KEY_CHANGES if request.HasField(name)}
        networks = None
        if request.HasField("allowed_networks"):
            networks = list(request.allowed_networks.networks)
        key = await self._accounts.update_api_key(
            principal.tenant,
            request.key_id,
            KeyChange(networks=networks, **given),
            by_key=principal.actor_id,
            expect=expecting(request.if_match, _api_key),
        )
        return pb.UpdateApiKeyResponse(api_key=_api_key(key))

    async def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, context: object
    ) -> pb.RotateApiKeyResponse:
        """Put a new key in the place of one; scope admin."""
        principal = require_scope("admin")
        given = request.HasField("overlap_seconds")
        key, secret, old = await self._accounts.rotate_api_key(
            principal.tenant,
            request.key_id,
            timedelta(seconds=request.overlap_seconds) if given else None,
            by_key=principal.actor_id,
        )
        return pb.RotateApiKeyResponse(
            api_key=_api_key(key), secret=secret, old_api_key=_api_key(old)
        )

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: object
    ) -> pb.ListAuditEventsResponse:
        """A page of what was done; scope admin."""
        tenant = require_scope("admin").tenant
        wanted = AuditFilter(
            action=request.action,
            target_id=request.target_id,
            key_id=request.key_id,
            from_time=time_of(request, "from_time", "from"),
            to_time=time_of(request, "to_time", "to"),
        )
        events, next_page_token = await self._audit_log.list(
            tenant, wanted, request.page_size, request.page_token
        )
        return pb.ListAuditEventsResponse(
            events=[_audit_event(entry) for entry in events], next_page_token=next_page_token
        )

    async def VerifyAuditLog(
        self, request: pb.VerifyAuditLogRequest, context: object
    ) -> pb.VerifyAuditLogResponse:
        """Work the chain of the audit log out again; scope admin."""
        tenant = require_scope("admin").tenant
        found = await self._audit_log.verify(tenant, request.after_number)
        return pb.VerifyAuditLogResponse(
            number=found.number,
            head_number=found.head_number,
            hash=found.hash.hex(),
            broken_number=found.broken_number or 0,
        )


class AccountsInternalServicer(AccountsInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def ResolveApiKey(
        self, request: pb.ResolveApiKeyRequest, context: object
    ) -> pb.ResolveApiKeyResponse:
        """Who a key stands for."""
        resolved = await self._accounts.resolve_api_key(request.secret)
        principal = principal_of_key(resolved)
        return pb.ResolveApiKeyResponse(principal=principal)

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: object
    ) -> pb.CreateOrganizationResponse:
        """A new organization."""
        organization = await self._accounts.create_organization(request.name)
        return pb.CreateOrganizationResponse(organization=organization_message(organization))

    async def IssueApiKey(
        self, request: pb.IssueApiKeyRequest, context: object
    ) -> pb.IssueApiKeyResponse:
        """A key for any organization: how the first one of an organization is made."""
        tenant = TenantKey(request.organization_id, MODE_NAMES.get(request.mode, ""))
        key, secret = await self._accounts.create_api_key(tenant, _new_key(request))
        return pb.IssueApiKeyResponse(api_key=_api_key(key), secret=secret)

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: object
    ) -> pb.ListOrganizationsResponse:
        """A page of all organizations."""
        organizations, next_page_token = await self._accounts.list_organizations(
            request.page_size, request.page_token
        )
        return pb.ListOrganizationsResponse(
            organizations=[organization_message(organization) for organization in organizations],
            next_page_token=next_page_token,
        )

    async def SetTestClock(
        self, request: pb.SetTestClockRequest, context: object
    ) -> pb.SetTestClockResponse:
        """What a test clock shows."""
        time = time_of(request, "time", "time")
        clock = ClockTime(request.customer_id, time, request.revision)
        await self._accounts.set_clock(request.organization_id, request.test_clock_id, clock)
        return pb.SetTestClockResponse()


def _new_key(request: pb.CreateApiKeyRequest | pb.IssueApiKeyRequest) -> NewKey:
    limits = KeyLimits()
    if isinstance(request, pb.CreateApiKeyRequest):
        limits = KeyLimits(
            tuple(request.allowed_networks), request.requests_per_second, request.events_per_second
        )
    return NewKey(
        name=request.name,
        scopes=_scope_names(request.scopes),
        expire_time=time_of(request, "expire_time", "expiresAt"),
        limits=limits,
    )


def _scope_names(numbers: Iterable[pb.Scope.ValueType]) -> list[str]:
    # An unknown number stays in the list, so that the domain refuses it.
    return [SCOPE_NAMES.get(number, str(number)) for number in numbers]


def _audit_event(entry: Entry) -> pb.AuditEvent:
    event = entry.event
    return pb.AuditEvent(
        id=event.id,
        action=event.action,
        target_id=event.target_id,
        key_id=event.key_id,
        request_id=event.request_id,
        time=timestamp(event.time),
        details_json=event.details_json,
        number=entry.number,
        previous_hash=entry.previous_hash.hex(),
        hash=entry.hash.hex(),
    )


def _api_key(key: ApiKey) -> pb.ApiKey:
    message = tagged(
        pb.ApiKey(
            id=key.id,
            name=key.name,
            prefix=key.prefix,
            mode=MODE_NUMBERS[key.mode],
            scopes=[SCOPE_NUMBERS[scope] for scope in key.scopes],
            create_time=timestamp(key.create_time),
            expire_time=timestamp(key.expire_time),
            revoke_time=timestamp(key.revoke_time),
            successor_id=key.successor_id or "",
            allowed_networks=key.limits.networks,
            requests_per_second=key.limits.requests_per_second,
            events_per_second=key.limits.events_per_second,
        )
    )
    # Not in the tag: the key of a busy program could never be changed with it.
    if key.use_time is not None:
        message.use_time.FromDatetime(key.use_time)
    return message
