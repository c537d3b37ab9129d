"""accounts over real gRPC, with real NATS."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.accounts.v1 import accounts_pb2 as pb
from usageflow.accounts.v1 import accounts_pb2_grpc, messages_pb2
from usageflow.common.v1 import common_pb2

from services.accounts.app import add_services, people_of
from services.accounts.audit import AuditLog
from services.accounts.keys import ChangeBroadcast, OwnKeys
from services.accounts.settings import AccountsSettings
from services.kit.auth import KEY_CHANGED_SUBJECT, ORGANIZATION_CHANGED_SUBJECT, KeyCache
from services.kit.database import Database
from services.kit.errors import UnauthenticatedError, from_rpc_error
from services.kit.grpc_client import api_key_metadata, internal_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.messaging import Messaging
from tests.integration.accounts.conftest import INTERNAL_TOKEN, PEPPER, SIGNATURES, quick_passwords

WAIT_S = 15
DEADLINE_S = 10.0


class Client:
    """Calls accounts as UsageFlow's own processes and as holders of keys."""

    def __init__(self, channel: grpc.aio.Channel, settings: AccountsSettings) -> None:
        self.channel = channel
        self.settings = settings
        self.public = accounts_pb2_grpc.AccountsServiceStub(channel)
        self.internal = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        self._internal_metadata = internal_metadata(settings.internal_token)

    async def organization(self, name: str) -> str:
        response = await self.internal.CreateOrganization(
            pb.CreateOrganizationRequest(name=name),
            timeout=DEADLINE_S,
            metadata=self._internal_metadata,
        )
        return response.organization.id

    async def issue(
        self,
        organization_id: str,
        *scopes: pb.Scope.ValueType,
        mode: common_pb2.Mode.ValueType = common_pb2.MODE_TEST,
    ) -> pb.IssueApiKeyResponse:
        return await self.internal.IssueApiKey(
            pb.IssueApiKeyRequest(organization_id=organization_id, mode=mode, scopes=scopes),
            timeout=DEADLINE_S,
            metadata=self._internal_metadata,
        )

    async def resolve(self, secret: str) -> pb.Principal:
        response = await self.internal.ResolveApiKey(
            pb.ResolveApiKeyRequest(secret=secret),
            timeout=DEADLINE_S,
            metadata=self._internal_metadata,
        )
        return response.principal


@pytest.fixture
def settings(database_url: str, nats_url: str) -> AccountsSettings:
    """Settings of one accounts process."""
    return AccountsSettings(
        database_url=database_url,
        nats_url=nats_url,
        internal_token=INTERNAL_TOKEN,
        key_pepper=PEPPER.decode(),
    )


@pytest.fixture
async def messaging(nats_url: str) -> AsyncIterator[Messaging]:
    """A connection to NATS."""
    messaging = await Messaging.connect(nats_url, "test")
    yield messaging
    await messaging.close()


@pytest.fixture
async def client(
    database: Database, messaging: Messaging, settings: AccountsSettings
) -> AsyncIterator[Client]:
    """A client of a running accounts."""
    changes = ChangeBroadcast(messaging)
    people = people_of(database, PEPPER, changes, quick_passwords())
    own_keys = OwnKeys(people.accounts, people.signing_in, people.portals, SIGNATURES)
    server = GrpcServer(settings, own_keys)
    add_services(server, people, AuditLog(database), SIGNATURES)
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield Client(channel, settings)
    await server.stop()


async def test_an_issued_key_resolves_and_names_its_organization(client: Client) -> None:
    organization_id = await client.organization("Acme")
    issued = await client.issue(organization_id, pb.SCOPE_ADMIN, pb.SCOPE_TRACK)
    principal = await client.resolve(issued.secret)
    assert principal == pb.Principal(
        key_id=issued.api_key.id,
        organization_id=organization_id,
        mode=common_pb2.MODE_TEST,
        scopes=[pb.SCOPE_TRACK, pb.SCOPE_ADMIN],
        event_past_days=35,
        requests_per_second=50_000,
        events_per_second=1_000_000,
    )
    response = await client.public.GetOrganization(
        pb.GetOrganizationRequest(),
        timeout=DEADLINE_S,
        metadata=api_key_metadata(issued.secret),
    )
    assert (response.organization.id, response.organization.name) == (organization_id, "Acme")
    assert response.organization.settings == pb.OrganizationSettings(
        event_past_days=35,
        event_retention_days=400,
        requests_per_second=50_000,
        events_per_second=1_000_000,
    )


async def test_a_key_is_bound_to_networks_which_count_from_the_answer_on(client: Client) -> None:
    organization_id = await client.organization("Acme")
    admin = await client.issue(organization_id, pb.SCOPE_ADMIN)
    call: dict[str, Any] = {"timeout": DEADLINE_S, "metadata": api_key_metadata(admin.secret)}
    request = pb.UpdateApiKeyRequest(
        key_id=admin.api_key.id,
        allowed_networks=pb.AllowedNetworks(networks=["10.0.0.0/8"]),
        events_per_second=7,
    )
    changed = (await client.public.UpdateApiKey(request, **call)).api_key
    assert (list(changed.allowed_networks), changed.events_per_second) == (["10.0.0.0/8"], 7)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.public.GetOrganization(pb.GetOrganizationRequest(), **call)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_key_makes_lists_and_revokes_keys_of_its_own_mode(client: Client) -> None:
    organization_id = await client.organization("Acme")
    admin = await client.issue(organization_id, pb.SCOPE_ADMIN, mode=common_pb2.MODE_LIVE)
    metadata = api_key_metadata(admin.secret)
    made = await client.public.CreateApiKey(
        pb.CreateApiKeyRequest(name="server", scopes=[pb.SCOPE_TRACK]),
        timeout=DEADLINE_S,
        metadata=metadata,
    )
    assert made.secret.startswith("uf_live_")
    assert made.api_key.prefix == made.secret[:12]
    listed = await client.public.ListApiKeys(
        pb.ListApiKeysRequest(), timeout=DEADLINE_S, metadata=metadata
    )
    assert [key.id for key in listed.api_keys] == [made.api_key.id, admin.api_key.id]
    assert made.secret[12:].encode() not in listed.SerializeToString()
    revoked = await client.public.RevokeApiKey(
        pb.RevokeApiKeyRequest(key_id=made.api_key.id), timeout=DEADLINE_S, metadata=metadata
    )
    assert revoked.api_key.HasField("revoke_time")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.resolve(made.secret)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.details() == "Invalid API key"
    assert from_rpc_error(refused.value).reason == "invalid_api_key"


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("CreateApiKey", pb.CreateApiKeyRequest(scopes=[pb.SCOPE_TRACK])),
        ("ListApiKeys", pb.ListApiKeysRequest()),
        ("RevokeApiKey", pb.RevokeApiKeyRequest(key_id="key_" + "0" * 32)),
        ("UpdateOrganization", pb.UpdateOrganizationRequest(event_past_days=400)),
        ("ListAuditEvents", pb.ListAuditEventsRequest()),
    ],
)
async def test_managing_keys_and_the_organization_takes_the_scope_admin(
    client: Client, method: str, request_message: Message
) -> None:
    organization_id = await client.organization("Acme")
    key = await client.issue(organization_id, pb.SCOPE_TRACK, pb.SCOPE_READ)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(client.public, method)(
            request_message, timeout=DEADLINE_S, metadata=api_key_metadata(key.secret)
        )
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_another_organization_s_key_is_not_found(client: Client) -> None:
    acme = await client.issue(await client.organization("Acme"), pb.SCOPE_ADMIN)
    other = await client.issue(await client.organization("Other"), pb.SCOPE_ADMIN)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.public.RevokeApiKey(
            pb.RevokeApiKeyRequest(key_id=acme.api_key.id),
            timeout=DEADLINE_S,
            metadata=api_key_metadata(other.secret),
        )
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    listed = await client.public.ListApiKeys(
        pb.ListApiKeysRequest(), timeout=DEADLINE_S, metadata=api_key_metadata(other.secret)
    )
    assert [key.id for key in listed.api_keys] == [other.api_key.id]
    told = await client.public.ListAuditEvents(
        pb.ListAuditEventsRequest(), timeout=DEADLINE_S, metadata=api_key_metadata(other.secret)
    )
    assert [event.target_id for event in told.events] == [other.api_key.id]


async def test_the_internal_service_takes_the_internal_token_only(client: Client) -> None:
    issued = await client.issue(await client.organization("Acme"), pb.SCOPE_ADMIN)
    for metadata in (None, api_key_metadata(issued.secret)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.internal.ResolveApiKey(
                pb.ResolveApiKeyRequest(secret=issued.secret),
                timeout=DEADLINE_S,
                metadata=metadata,
            )
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("request_message", "fields"),
    [
        (pb.IssueApiKeyRequest(scopes=[pb.SCOPE_READ]), {"mode"}),
        (pb.IssueApiKeyRequest(mode=common_pb2.MODE_LIVE), {"scopes"}),
        (
            pb.IssueApiKeyRequest(mode=common_pb2.MODE_LIVE, scopes=[pb.SCOPE_UNSPECIFIED]),
            {"scopes"},
        ),
        (
            pb.IssueApiKeyRequest(
                mode=common_pb2.MODE_LIVE,
                scopes=[pb.SCOPE_READ],
                expire_time=Timestamp(seconds=2**60),
            ),
            {"expiresAt"},
        ),
    ],
)
async def test_a_wrong_request_names_its_fields(
    client: Client, request_message: pb.IssueApiKeyRequest, fields: set[str]
) -> None:
    request_message.organization_id = await client.organization("Acme")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.internal.IssueApiKey(
            request_message,
            timeout=DEADLINE_S,
            metadata=internal_metadata(client.settings.internal_token),
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert {problem.field for problem in from_rpc_error(refused.value).problems} == fields


async def test_a_revoked_key_is_forgotten_by_other_processes(
    client: Client, messaging: Messaging, nats_url: str
) -> None:
    organization_id = await client.organization("Acme")
    admin = await client.issue(organization_id, pb.SCOPE_ADMIN)
    key = await client.issue(organization_id, pb.SCOPE_TRACK)
    elsewhere = await Messaging.connect(nats_url, "elsewhere")
    cache = KeyCache(client.channel, client.settings.internal_token, elsewhere)
    await cache.start()
    told: asyncio.Queue[bytes] = asyncio.Queue()
    await elsewhere.on_broadcast(KEY_CHANGED_SUBJECT, told.put)
    await cache.resolve(key.secret)
    assert cache.cached(key.secret) is not None
    await client.public.RevokeApiKey(
        pb.RevokeApiKeyRequest(key_id=key.api_key.id),
        timeout=DEADLINE_S,
        metadata=api_key_metadata(admin.secret),
    )
    change = messages_pb2.ApiKeyChanged.FromString(await asyncio.wait_for(told.get(), WAIT_S))
    assert change.key_id == key.api_key.id
    assert cache.cached(key.secret) is None
    with pytest.raises(UnauthenticatedError):
        await cache.resolve(key.secret)
    await elsewhere.close()


async def test_a_changed_setting_reaches_other_processes(client: Client, nats_url: str) -> None:
    """Every key of the organization is asked for again, in both modes; other keys are not."""
    organization_id = await client.organization("Acme")
    admin = await client.issue(organization_id, pb.SCOPE_ADMIN)
    tracking = await client.issue(organization_id, pb.SCOPE_TRACK, mode=common_pb2.MODE_LIVE)
    stranger = await client.issue(await client.organization("Other"), pb.SCOPE_TRACK)
    elsewhere = await Messaging.connect(nats_url, "elsewhere")
    cache = KeyCache(client.channel, client.settings.internal_token, elsewhere)
    await cache.start()
    told: asyncio.Queue[bytes] = asyncio.Queue()
    await elsewhere.on_broadcast(ORGANIZATION_CHANGED_SUBJECT, told.put)
    assert (await cache.resolve(tracking.secret)).event_past_days == 35
    await cache.resolve(stranger.secret)
    await client.public.UpdateOrganization(
        pb.UpdateOrganizationRequest(event_past_days=400),
        timeout=DEADLINE_S,
        metadata=api_key_metadata(admin.secret),
    )
    change = messages_pb2.OrganizationChanged.FromString(await asyncio.wait_for(told.get(), WAIT_S))
    assert change.organization_id == organization_id
    assert cache.cached(tracking.secret) is None
    assert cache.cached(stranger.secret) is not None
    principal = await cache.resolve(tracking.secret)
    assert principal.event_past_days == 400
    assert principal.event_past_micros == 400 * 86_400 * 1_000_000
    await elsewhere.close()


async def test_a_wrong_setting_is_named_with_what_is_allowed(client: Client) -> None:
    admin = await client.issue(await client.organization("Acme"), pb.SCOPE_ADMIN)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.public.UpdateOrganization(
            pb.UpdateOrganizationRequest(name="", event_past_days=401, event_retention_days=0),
            timeout=DEADLINE_S,
            metadata=api_key_metadata(admin.secret),
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    told = {problem.field: problem.message for problem in from_rpc_error(refused.value).problems}
    assert told == {
        "name": "is required",
        "settings.eventPastDays": "must be from 35 to 400 days",
        "settings.eventRetentionDays": "must be from 90 to 36500 days",
    }


async def test_every_organization_is_listed_to_our_own_processes(client: Client) -> None:
    made = [await client.organization(name) for name in ("Acme", "Other", "Third")]
    seen, token = [], ""
    for _ in range(2):
        page = await client.internal.ListOrganizations(
            pb.ListOrganizationsRequest(page_size=2, page_token=token),
            timeout=DEADLINE_S,
            metadata=internal_metadata(client.settings.internal_token),
        )
        assert all(each.settings.event_retention_days == 400 for each in page.organizations)
        seen += [each.id for each in page.organizations]
        token = page.next_page_token
    assert (seen, token) == (made, "")


async def test_a_key_is_revoked_while_nats_is_away(client: Client, messaging: Messaging) -> None:
    admin = await client.issue(await client.organization("Acme"), pb.SCOPE_ADMIN)
    await messaging.close()
    await client.public.RevokeApiKey(
        pb.RevokeApiKeyRequest(key_id=admin.api_key.id),
        timeout=DEADLINE_S,
        metadata=api_key_metadata(admin.secret),
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.resolve(admin.secret)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
