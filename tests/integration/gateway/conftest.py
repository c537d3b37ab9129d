"""A real gateway on a real port, in front of a gRPC server that implements our protos in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from pydantic import SecretStr
from usageflow.accounts.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    members_pb2,
    members_pb2_grpc,
    portal_pb2,
    portal_pb2_grpc,
)
from usageflow.aggregator.v1 import (
    aggregator_pb2,
    aggregator_pb2_grpc,
    live_pb2,
    live_pb2_grpc,
    quotas_pb2,
    quotas_pb2_grpc,
)
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from usageflow.invoicer.v1 import (
    billing_settings_pb2,
    billing_settings_pb2_grpc,
    billing_terms_pb2,
    billing_terms_pb2_grpc,
    budgets_pb2,
    budgets_pb2_grpc,
    credits_pb2,
    credits_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    invoicer_pb2,
    invoicer_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
    simulation_pb2,
    simulation_pb2_grpc,
    subscription_changes_pb2,
    subscription_changes_pb2_grpc,
    test_clocks_pb2,
    test_clocks_pb2_grpc,
)
from usageflow.notifier.v1 import notifier_pb2, notifier_pb2_grpc

from cli.embedded import EmbeddedNats
from gateway.app import build
from gateway.calls import Channels
from gateway.rate_exchange import RateExchange
from gateway.rates import Rates
from gateway.server import HttpServer
from gateway.sessions import COOKIE, csrf_token
from gateway.settings import GatewaySettings
from services.kit import auth, clock, usage_token
from services.kit.auth import KeyCache, Principal
from services.kit.errors import UnauthenticatedError
from services.kit.grpc_server import GrpcServer
from services.kit.ids import new_uuid
from services.kit.keys import (
    KEY_MODES,
    PORTAL_START,
    SESSION_START,
    make_key,
    make_token,
)
from services.kit.messaging import Messaging
from services.kit.settings import ServiceSettings
from services.kit.signatures import Signatures

TOKEN = SecretStr("internal token of these tests, long")
SIGNATURES = Signatures(TOKEN)
ORGANIZATION_ID = "org_" + "a" * 32
USAGE_TOKEN = usage_token.encode([new_uuid()], clock.now())
ALL_SCOPES = ("track", "read", "admin")
MODULES = (
    (accounts_pb2, accounts_pb2_grpc),
    (members_pb2, members_pb2_grpc),
    (portal_pb2, portal_pb2_grpc),
    (aggregator_pb2, aggregator_pb2_grpc),
    (quotas_pb2, quotas_pb2_grpc),
    (live_pb2, live_pb2_grpc),
    (ingest_pb2, ingest_pb2_grpc),
    (invoicer_pb2, invoicer_pb2_grpc),
    (billing_settings_pb2, billing_settings_pb2_grpc),
    (billing_terms_pb2, billing_terms_pb2_grpc),
    (budgets_pb2, budgets_pb2_grpc),
    (credits_pb2, credits_pb2_grpc),
    (documents_pb2, documents_pb2_grpc),
    (payments_pb2, payments_pb2_grpc),
    (subscription_changes_pb2, subscription_changes_pb2_grpc),
    (simulation_pb2, simulation_pb2_grpc),
    (test_clocks_pb2, test_clocks_pb2_grpc),
    (notifier_pb2, notifier_pb2_grpc),
)


@dataclass
class World:
    """All services: answers what a test sets, stores events in memory, knows API keys."""

    principals: dict[str, Principal] = field(default_factory=dict)
    # Of links to the portal, by their tokens without a signature, as accounts looks them up.
    links: dict[str, Principal] = field(default_factory=dict)
    answers: dict[str, Message | Exception] = field(default_factory=dict)
    requests: list[tuple[str, Message]] = field(default_factory=list)
    callers: list[Principal] = field(default_factory=list)
    stored: dict[tuple[str, int, str], ingest_pb2.EventInput] = field(default_factory=dict)
    record_failure: Exception | None = None
    sign_in_failure: Exception | None = None
    # Addresses of invitations that are open, by token.
    invited: dict[str, str] = field(default_factory=dict)
    recording: asyncio.Event = field(default_factory=asyncio.Event)
    # One for each call to ingest; when there are none left, USAGE_TOKEN.
    usage_tokens: list[str] = field(default_factory=list)
    # What WatchUsage and SimulatePlan send, one after the other; None ends it.
    watched: asyncio.Queue[Message | Exception | None] = field(default_factory=asyncio.Queue)
    watches_ended: int = 0
    resolved: int = 0
    # Of the calls in `requests` that had one.
    idempotency_keys: list[str] = field(default_factory=list)
    past_days_told: list[int] = field(default_factory=list)
    # Of organizations with strict metrics; what becomes of their events of other metrics.
    defined: set[str] = field(default_factory=set)
    undefined_are: ingest_pb2.ReceiptStatus.ValueType = ingest_pb2.RECEIPT_STATUS_REJECTED
    clocks_told: list[list[tuple[str, int]]] = field(default_factory=list)

    def new_key(
        self,
        *scopes: str,
        event_past_days: int = 35,
        strict: bool = False,
        test_clocks: tuple[tuple[str, int], ...] = (),
        **limits: Any,
    ) -> str:
        """A key of the organization with these scopes, and with `limits` as Principal has them."""
        secret = make_key("test")
        self.principals[secret] = Principal(
            key_id=f"key_{len(self.principals)}",
            organization_id=ORGANIZATION_ID,
            mode=auth.MODE_NUMBERS["test"],
            mode_name="test",
            scopes=frozenset(scopes or ALL_SCOPES),
            event_past_days=event_past_days,
            strict_metrics=strict,
            test_clocks=test_clocks,
            **limits,
        )
        return secret

    def new_session(self, role: str = "OWNER", mode: str = "test") -> str:
        """A member's session, as its cookie holds it, in this mode."""
        token = make_token(SESSION_START)
        for each in KEY_MODES:
            number = len(self.principals)
            self.principals[SIGNATURES.session(token, each)] = Principal(
                key_id="",
                organization_id=ORGANIZATION_ID,
                mode=auth.MODE_NUMBERS[each],
                mode_name=each,
                scopes=frozenset({"read", "admin"}),
                expire_time=clock.now() + timedelta(days=1),
                member_id=f"mem_{number:032x}",
                role=role,
                session_id=f"ses_{number:032x}",
                member_name="Ada <b>",
            )
        return SIGNATURES.session(token, mode)

    def new_portal_link(self, customer_id: str) -> str:
        """A link to the portal of this customer: its signed token."""
        token, expire_time = make_token(PORTAL_START), clock.now() + timedelta(days=1)
        credential = SIGNATURES.portal_link(token, expire_time)
        self.principals[credential] = self.links[token] = Principal(
            key_id="",
            organization_id=ORGANIZATION_ID,
            mode=auth.MODE_NUMBERS["test"],
            mode_name="test",
            scopes=frozenset({"read"}),
            expire_time=expire_time,
            customer_id=customer_id,
            portal_link_id=f"ptl_{len(self.principals):032x}",
        )
        return credential

    async def resolve(self, secret: str) -> Principal:
        """The KeyResolver of the services' own interceptor."""
        if secret not in self.principals:
            raise auth.invalid_credential(secret)
        return self.principals[secret]

    async def answer(self, method: str, request: Message) -> Message:
        """What a test set for `method`."""
        special = getattr(self, f"_{method}", None)
        if special is not None:
            return special(request)  # type: ignore[no-any-return]
        self.callers.append(auth.current_principal())
        self.requests.append((method, request))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _ResolveApiKey(
        self, request: accounts_pb2.ResolveApiKeyRequest
    ) -> accounts_pb2.ResolveApiKeyResponse:
        self.resolved += 1
        principal = self.principals.get(request.secret)
        if principal is None:
            raise auth.invalid_key()
        scopes = [accounts_pb2.Scope.Value(f"SCOPE_{scope.upper()}") for scope in principal.scopes]
        told = accounts_pb2.Principal(
            key_id=principal.key_id,
            organization_id=principal.organization_id,
            mode=principal.mode,  # type: ignore[arg-type]
            scopes=scopes,
            event_past_days=principal.event_past_days,
            strict_metrics=principal.strict_metrics,
            requests_per_second=principal.requests_per_s,
            events_per_second=principal.events_per_s,
            key_requests_per_second=principal.key_requests_per_s,
            key_events_per_second=principal.key_events_per_s,
            allowed_networks=[str(each) for each in principal.networks],
        )
        for customer_id, micros in principal.test_clocks:
            told.test_clocks.add(customer_id=customer_id).time.FromMicroseconds(micros)
        return accounts_pb2.ResolveApiKeyResponse(principal=told)

    def _ResolveSession(
        self, request: members_pb2.ResolveSessionRequest
    ) -> members_pb2.ResolveSessionResponse:
        self.resolved += 1
        mode = auth.MODE_NAMES[request.mode]
        principal = self.principals.get(SIGNATURES.session(request.token, mode))
        if principal is None:
            raise auth.invalid_session()
        return members_pb2.ResolveSessionResponse(
            principal=accounts_pb2.Principal(
                organization_id=principal.organization_id,
                mode=principal.mode,  # type: ignore[arg-type]
                event_past_days=principal.event_past_days,
                member_id=principal.member_id,
                role=auth.ROLE_NUMBERS[principal.role],
                session_id=principal.session_id,
                member_name=principal.member_name,
            )
        )

    def _ResolvePortalLink(
        self, request: portal_pb2.ResolvePortalLinkRequest
    ) -> portal_pb2.ResolvePortalLinkResponse:
        self.resolved += 1
        principal = self.links.get(request.token)
        if principal is None:
            raise auth.invalid_portal_link()
        message = accounts_pb2.Principal(
            organization_id=principal.organization_id,
            mode=principal.mode,  # type: ignore[arg-type]
            customer_id=principal.customer_id,
            portal_link_id=principal.portal_link_id,
        )
        if principal.expire_time is not None:
            message.expire_time.FromDatetime(principal.expire_time)
        return portal_pb2.ResolvePortalLinkResponse(principal=message)

    def _SignIn(self, request: members_pb2.SignInRequest) -> members_pb2.SignInResponse:
        self.requests.append(("SignIn", request))
        if self.sign_in_failure is not None:
            raise self.sign_in_failure
        token, _mode = SIGNATURES.read_session(self.new_session()) or ("", "")
        answer = members_pb2.SignInResponse(token=token)
        answer.expire_time.FromDatetime(clock.now() + timedelta(days=30))
        return answer

    def _GetInvitation(
        self, request: members_pb2.GetInvitationRequest
    ) -> members_pb2.GetInvitationResponse:
        if request.token not in self.invited:
            raise UnauthenticatedError("This invitation does not work", reason="invalid_invitation")
        return members_pb2.GetInvitationResponse(
            invitation=members_pb2.Invitation(email=self.invited[request.token]),
            organization_name="Acme <i>",
        )

    def _AcceptInvitation(
        self, request: members_pb2.AcceptInvitationRequest
    ) -> members_pb2.AcceptInvitationResponse:
        self.requests.append(("AcceptInvitation", request))
        if self.sign_in_failure is not None:
            raise self.sign_in_failure
        token, _mode = SIGNATURES.read_session(self.new_session()) or ("", "")
        answer = members_pb2.AcceptInvitationResponse(token=token)
        answer.expire_time.FromDatetime(clock.now() + timedelta(days=30))
        return answer

    def _EndSession(self, request: members_pb2.EndSessionRequest) -> members_pb2.EndSessionResponse:
        for mode in KEY_MODES:
            self.principals.pop(SIGNATURES.session(request.token, mode), None)
        return members_pb2.EndSessionResponse()

    def _RecordTenantEvents(
        self, request: ingest_pb2.RecordTenantEventsRequest
    ) -> ingest_pb2.RecordTenantEventsResponse:
        if self.record_failure is not None:
            raise self.record_failure
        response = ingest_pb2.RecordTenantEventsResponse()
        response.usage_token = self.usage_tokens.pop(0) if self.usage_tokens else USAGE_TOKEN
        for tenant in request.tenants:
            self.past_days_told.append(tenant.event_past_days)
            if tenant.test_clocks:
                self.clocks_told.append(list(auth.clock_times(tenant.test_clocks)))
            for event in tenant.events:
                if tenant.strict_metrics and event.metric not in self.defined:
                    response.receipts.add(status=self.undefined_are).errors.add(field="metric")
                    continue
                key = (tenant.organization_id, tenant.mode, event.idempotency_key)
                response.receipts.append(self._receipt(key, event))
        return response

    def _receipt(
        self, key: tuple[str, int, str], event: ingest_pb2.EventInput
    ) -> ingest_pb2.EventReceipt:
        before = self.stored.setdefault(key, event)
        event_id = f"evt_{hash(key) & 2**64 - 1:032x}"
        if before is event:
            status = ingest_pb2.RECEIPT_STATUS_ACCEPTED
        elif before == event:
            status = ingest_pb2.RECEIPT_STATUS_DUPLICATE
        else:
            status = ingest_pb2.RECEIPT_STATUS_CONFLICT
        return ingest_pb2.EventReceipt(status=status, event_id=event_id)

    @property
    def events(self) -> list[ingest_pb2.EventInput]:
        """What is stored."""
        return list(self.stored.values())


def add_services(server: GrpcServer, world: World) -> None:
    """Serve every service of our protos from `world`."""
    for messages, stubs in MODULES:
        for service in messages.DESCRIPTOR.services_by_name.values():
            members = {method.name: _handler(world, method) for method in service.methods}
            servicer = type(service.name, (getattr(stubs, f"{service.name}Servicer"),), members)()
            register = getattr(stubs, f"add_{service.name}Servicer_to_server")
            server.add(register, servicer, service.full_name)


def _handler(world: World, descriptor: Any) -> Any:
    method: str = descriptor.name

    async def watch(_self: Any, request: Message, _context: Any) -> AsyncIterator[Message]:
        world.callers.append(auth.current_principal())
        world.requests.append((method, request))
        try:
            while (answer := await world.watched.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            world.watches_ended += 1

    async def nothing(_self: Any, _requests: Any, _context: Any) -> AsyncIterator[Message]:
        empty: tuple[Message, ...] = ()
        for message in empty:
            yield message

    if method in ("WatchUsage", "SimulatePlan"):
        return watch
    if descriptor.server_streaming:
        return nothing

    async def handle(_self: Any, request: Message, context: Any) -> Message:
        if method == "RecordTenantEvents":
            await world.recording.wait()
        if (key := dict(context.invocation_metadata()).get("idempotency-key")) is not None:
            world.idempotency_keys.append(key)
        return await world.answer(method, request)

    return handle


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    world: World
    services: GrpcServer
    server: HttpServer
    client: httpx.AsyncClient

    def forgetful(self) -> "Gateway":
        """The same as if nothing had happened before."""
        self.world.__init__()  # type: ignore[misc]
        self.world.recording.set()
        for name in ("cookie", "host", "x-csrf-token", "x-usageflow-api-key"):
            self.client.headers.pop(name, None)
        self.client.cookies.clear()
        return self


@asynccontextmanager
async def serving(nats_url: str, **changes: Any) -> AsyncIterator[Gateway]:
    """A gateway and its services; `changes` are settings that differ from the defaults."""
    world = World()
    world.recording.set()
    async with serving_services(world) as services:
        address = f"127.0.0.1:{services.port}"
        settings = GatewaySettings(
            nats_url=SecretStr(nats_url),
            internal_token=TOKEN,
            http_listen="127.0.0.1:0",
            accounts_address=address,
            ingest_address=address,
            aggregator_address=address,
            invoicer_address=address,
            notifier_address=address,
            shutdown_s=2,
            **changes,
        )
        async with serving_gateway(settings) as server:
            url = f"http://127.0.0.1:{server.port}"
            async with httpx.AsyncClient(base_url=url, timeout=20) as client:
                yield Gateway(url, world, services, server, client)


@asynccontextmanager
async def serving_services(world: World) -> AsyncIterator[GrpcServer]:
    """The gRPC server of all services."""
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr("nats://unused"),
        internal_token=TOKEN,
        shutdown_s=1,
    )
    server = GrpcServer(settings, world)
    add_services(server, world)
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def serving_gateway(settings: GatewaySettings) -> AsyncIterator[HttpServer]:
    """The gateway, wired as its process is."""
    messaging = await Messaging.connect(settings.nats_url.get_secret_value(), "gateway")
    channels = Channels(settings)
    keys = KeyCache(channels.accounts, TOKEN, messaging)
    await keys.start()
    rates = Rates()
    exchange = RateExchange(rates, messaging)
    await exchange.start()
    telling = asyncio.create_task(exchange.run())
    server = build(settings, channels, keys, rates)
    await server.start()
    yield server
    await server.stop()
    telling.cancel()
    await channels.close()
    await messaging.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gateway(nats_server: EmbeddedNats) -> AsyncIterator[Gateway]:
    """A gateway for all tests of a module that leave it as it was."""
    async with serving(nats_server.url) as gateway:
        yield gateway


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """Settings of the gateway that differ from the defaults; tests override this."""
    return {}


@pytest.fixture
async def gateway(
    nats_server: EmbeddedNats, settings_changes: dict[str, Any]
) -> AsyncIterator[Gateway]:
    """A gateway of this test alone."""
    async with serving(nats_server.url, **settings_changes) as gateway:
        yield gateway


@pytest.fixture
def world(gateway: Gateway) -> World:
    """What the services answer; they take events at once."""
    return gateway.world


@pytest.fixture
def services(gateway: Gateway) -> GrpcServer:
    """The services' server."""
    return gateway.services


@pytest.fixture
def http(gateway: Gateway) -> httpx.AsyncClient:
    """A client whose key has every scope."""
    gateway.client.headers["x-usageflow-api-key"] = gateway.world.new_key()
    return gateway.client


def as_member(client: httpx.AsyncClient, world: World, role: str = "OWNER") -> str:
    """From now on the client is a page of ours, of a member with this role; their credential."""
    credential = world.new_session(role)
    client.headers.pop("x-usageflow-api-key", None)
    client.headers["cookie"] = f"{COOKIE}={credential}"
    client.headers["x-csrf-token"] = csrf_token(credential)
    client.headers["host"] = "billing.example"
    return credential
