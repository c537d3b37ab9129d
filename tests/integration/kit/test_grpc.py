"""What the interceptor does around every RPC, and what a key's holder may do, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc, messages_pb2
from usageflow.common.v1 import common_pb2

from services.kit import auth
from services.kit.auth import KEY_CHANGED_SUBJECT, KeyCache
from services.kit.errors import (
    FieldProblem,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc_error,
)
from services.kit.grpc_client import (
    Metadata,
    api_key_metadata,
    forwarded_metadata,
    internal_metadata,
    open_channel,
)
from services.kit.grpc_server import GrpcServer
from services.kit.keys import make_key
from services.kit.messaging import Messaging
from services.kit.settings import ServiceSettings
from tests.waiting import until

TOKEN = SecretStr("t" * 32)
WAIT_S = 10


def settings(nats_url: str = "nats://127.0.0.1:1") -> ServiceSettings:
    return ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr(nats_url),
        internal_token=TOKEN,
        shutdown_s=2,
    )


@dataclass
class Accounts(accounts_pb2_grpc.AccountsServiceServicer):
    """Raises what a test tells it to, and says who called."""

    error: Exception | None = None
    callers: list[str] = field(default_factory=list)

    async def GetOrganization(self, request: Any, context: Any) -> Any:
        if self.error is not None:
            raise self.error
        principal = auth.require_scope("read")
        self.callers.append(principal.organization_id)
        organization = accounts_pb2.Organization(id=principal.organization_id)
        return accounts_pb2.GetOrganizationResponse(organization=organization)


@dataclass
class Internal(accounts_pb2_grpc.AccountsInternalServiceServicer):
    """Knows the keys in `scopes`."""

    scopes: dict[str, list[accounts_pb2.Scope.ValueType]] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    asked: int = 0

    async def ResolveApiKey(self, request: Any, context: Any) -> Any:
        self.asked += 1
        if request.secret not in self.scopes:
            raise auth.invalid_key()
        principal = accounts_pb2.Principal(
            key_id=f"key_{request.secret[-6:]}",
            organization_id="org_1",
            mode=common_pb2.MODE_TEST,
            scopes=self.scopes[request.secret],
            allowed_networks=self.networks,
        )
        return accounts_pb2.ResolveApiKeyResponse(principal=principal)


@dataclass
class World:
    """A server whose keys are looked up at itself."""

    server: GrpcServer
    channel: grpc.aio.Channel
    accounts: Accounts
    internal: Internal
    keys: KeyCache
    messaging: Messaging

    def new_key(self, *scopes: accounts_pb2.Scope.ValueType) -> str:
        secret = make_key("test")
        self.internal.scopes[secret] = list(scopes)
        return secret

    async def call(self, metadata: Any, timeout_s: float | None = 5.0) -> Any:
        stub = accounts_pb2_grpc.AccountsServiceStub(self.channel)
        request = accounts_pb2.GetOrganizationRequest()
        return await stub.GetOrganization(request, timeout=timeout_s, metadata=metadata)

    async def refusal(self, metadata: Any, timeout_s: float | None = 5.0) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(metadata, timeout_s)
        return caught.value


class Late:
    """A resolver that gets its cache after the server was made."""

    keys: KeyCache

    async def resolve(self, secret: str) -> auth.Principal:
        return await self.keys.resolve(secret)


@pytest.fixture
async def world(nats_url: str) -> AsyncIterator[World]:
    # The methods that are left out are not called.
    accounts, internal = Accounts(), Internal()  # type: ignore[abstract]
    late = Late()
    server = GrpcServer(settings(), late)
    server.add(
        accounts_pb2_grpc.add_AccountsServiceServicer_to_server,
        accounts,
        "usageflow.accounts.v1.AccountsService",
    )
    server.add(
        accounts_pb2_grpc.add_AccountsInternalServiceServicer_to_server,
        internal,
        "usageflow.accounts.v1.AccountsInternalService",
    )
    await server.start()
    services = accounts_pb2.DESCRIPTOR.services_by_name.values()
    channel = open_channel(f"127.0.0.1:{server.port}", list(services))
    messaging = await Messaging.connect(nats_url, "test")
    late.keys = KeyCache(channel, TOKEN, messaging)
    await late.keys.start()
    yield World(server, channel, accounts, internal, late.keys, messaging)
    await channel.close()
    await server.stop()
    await messaging.close()


async def test_key_holder_is_known_to_the_servicer(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    response = await world.call(api_key_metadata(secret))
    assert response.organization.id == "org_1"


async def test_bearer_token_is_taken_as_key(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_ADMIN)
    response = await world.call((("authorization", f"Bearer {secret}"),))
    assert response.organization.id == "org_1"


async def test_call_without_key_is_unauthenticated(world: World) -> None:
    error = await world.refusal(())
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.details() == "Missing API key"


async def test_mistyped_key_is_refused_without_asking_accounts(world: World) -> None:
    error = await world.refusal(api_key_metadata("uf_test_" + "x" * 38))
    assert error.details() == "Invalid API key"
    assert world.internal.asked == 0


async def test_unknown_key_is_refused_and_remembered_as_such(world: World) -> None:
    secret = make_key("live")
    for _ in range(3):
        assert (await world.refusal(api_key_metadata(secret))).details() == "Invalid API key"
    assert world.internal.asked == 1


async def test_key_without_the_scope_is_denied(world: World) -> None:
    error = await world.refusal(api_key_metadata(world.new_key(accounts_pb2.SCOPE_TRACK)))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("networks", "told", "let_in"),
    [
        (("127.0.0.0/8",), (), True),
        (("::1/128", "127.0.0.1/32"), (), True),
        (("10.0.0.0/8",), (), False),
        # Whoever has the internal token is a gateway, and calls for somebody else.
        (("10.0.0.0/8",), forwarded_metadata(TOKEN, "10.1.2.3"), True),
        (("127.0.0.0/8",), forwarded_metadata(TOKEN, "10.1.2.3"), False),
        (("127.0.0.0/8",), forwarded_metadata(TOKEN, "::ffff:127.0.0.1"), True),
        (("10.0.0.0/8",), (("x-usageflow-client-address", "10.1.2.3"),), False),
        (("10.0.0.0/8",), forwarded_metadata(SecretStr("x" * 32), "10.1.2.3"), False),
    ],
)
async def test_a_key_with_networks_works_only_from_there(
    world: World, networks: tuple[str, ...], told: Metadata, let_in: bool
) -> None:
    world.internal.networks = networks
    metadata = (*api_key_metadata(world.new_key(accounts_pb2.SCOPE_READ)), *told)
    if let_in:
        assert (await world.call(metadata)).organization.id == "org_1"
        return
    error = await world.refusal(metadata)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error.details() == "This API key may not be used from this address"


async def test_many_calls_with_one_key_ask_accounts_once(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    await asyncio.gather(*(world.call(api_key_metadata(secret)) for _ in range(30)))
    assert world.internal.asked == 1


async def test_revoked_key_stops_working_when_the_broadcast_comes(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    await world.call(api_key_metadata(secret))
    del world.internal.scopes[secret]
    changed = messages_pb2.ApiKeyChanged(key_id=f"key_{secret[-6:]}")
    await world.messaging.broadcast(KEY_CHANGED_SUBJECT, changed.SerializeToString())
    await until("the change", lambda: not world.keys.cached(secret), 1)
    error = await world.refusal(api_key_metadata(secret))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_key_revoked_while_nats_was_away_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "REMEMBERED_S", 0.2)
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    await world.call(api_key_metadata(secret))
    del world.internal.scopes[secret]
    await until("the end of its time", lambda: not world.keys.cached(secret), WAIT_S)
    error = await world.refusal(api_key_metadata(secret))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_call_without_deadline_is_refused(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    error = await world.refusal(api_key_metadata(secret), timeout_s=None)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "deadline" in str(error.details())


async def test_internal_service_refuses_api_keys_and_wrong_tokens(world: World) -> None:
    stub = accounts_pb2_grpc.AccountsInternalServiceStub(world.channel)
    secret = world.new_key(accounts_pb2.SCOPE_ADMIN)
    for metadata in (
        api_key_metadata(secret),
        internal_metadata(SecretStr("wrong")),
        (("authorization", f"Bearer {TOKEN.get_secret_value()}"),),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ResolveApiKey(
                accounts_pb2.ResolveApiKeyRequest(secret=secret), timeout=5, metadata=metadata
            )
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert world.internal.asked == 0


async def test_domain_error_keeps_code_reason_fields_and_retry_delay(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    problems = [FieldProblem("name", "must not be empty"), FieldProblem("unit", "is too long")]
    world.accounts.error = InvalidArgumentError(problems)
    error = from_rpc_error(await world.refusal(api_key_metadata(secret)))
    assert isinstance(error, InvalidArgumentError)
    assert error.problems == problems
    world.accounts.error = OverloadedError("Too much at once", retry_after_s=2.5)
    rpc_error = await world.refusal(api_key_metadata(secret))
    error = from_rpc_error(rpc_error)
    assert isinstance(error, OverloadedError)
    assert (error.message, error.retry_after_s) == ("Too much at once", 2.5)
    details = rpc_status.from_call(rpc_error).details  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info)
    assert (info.reason, info.domain) == ("overloaded", "usageflow")
    world.accounts.error = NotFoundError("There is no such thing")
    assert isinstance(from_rpc_error(await world.refusal(api_key_metadata(secret))), NotFoundError)


@pytest.mark.parametrize("letter", ["a", "é", "😀"])
async def test_of_very_many_problems_the_first_arrive_and_how_many_more_there_are(
    world: World, letter: str
) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    world.accounts.error = InvalidArgumentError(
        [FieldProblem(f"lines[{n}].{letter * 1_000}", "is too long") for n in range(1_000)]
    )
    error = from_rpc_error(await world.refusal(api_key_metadata(secret)))
    assert isinstance(error, InvalidArgumentError)
    told, last = error.problems[:-1], error.problems[-1]
    assert told[0].field.startswith(f"lines[0].{letter}")
    assert last == FieldProblem("", f"and {1_000 - len(told)} more problems")


async def test_unexpected_error_tells_the_caller_nothing_of_the_inside(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_READ)
    world.accounts.error = RuntimeError("password=hunter2")
    error = await world.refusal(api_key_metadata(secret))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(error)


async def test_accounts_away_is_unavailable_and_not_unauthenticated(nats_url: str) -> None:
    messaging = await Messaging.connect(nats_url, "test")
    channel = open_channel("127.0.0.1:1")
    keys = KeyCache(channel, TOKEN, messaging)
    with pytest.raises(UnavailableError):
        await keys.resolve(make_key("test"))
    with pytest.raises(UnauthenticatedError):
        await keys.resolve("uf_test_mistyped")
    await channel.close()
    await messaging.close()


async def test_a_method_that_nobody_has_is_unimplemented(world: World) -> None:
    secret = world.new_key(accounts_pb2.SCOPE_ADMIN)
    call: Any = world.channel.unary_unary("/usageflow.accounts.v1.AccountsService/GetAway")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=5, metadata=api_key_metadata(secret))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_and_reflection_need_no_key(world: World) -> None:
    health: Any = health_pb2_grpc.HealthStub(world.channel)
    for name in ("", "usageflow.accounts.v1.AccountsService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    channel: Any = world.channel
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for response in stub.ServerReflectionInfo(iter([request])):
        names = {service.name for service in response.list_services_response.service}
        break
    assert "usageflow.accounts.v1.AccountsInternalService" in names
