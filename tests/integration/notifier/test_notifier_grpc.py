"""notifier over real gRPC: who may call what, and that tenants see nothing of each other."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from usageflow.common.v1 import common_pb2
from usageflow.notifier.v1 import notifier_pb2 as pb
from usageflow.notifier.v1 import notifier_pb2_grpc

from services.kit.auth import Principal, invalid_key
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import api_key_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.notifier.listening import Listening
from services.notifier.servicer import NotifierServicer
from tests.integration.notifier.conftest import ACME, Receiver, World, make_event

DEADLINE_S = 10.0
OTHER = "org_" + "b" * 32


def principal(organization_id: str, mode_name: str, *scopes: str) -> Principal:
    mode = common_pb2.MODE_LIVE if mode_name == "live" else common_pb2.MODE_TEST
    return Principal("key_1", organization_id, mode, mode_name, frozenset(scopes))


KEYS = {
    "admin": principal(ACME.organization_id, "test", "admin"),
    "reader": principal(ACME.organization_id, "test", "read"),
    "tracker": principal(ACME.organization_id, "test", "track"),
    "live": principal(ACME.organization_id, "live", "admin"),
    "other": principal(OTHER, "test", "admin"),
}


class KnownKeys:
    """A KeyResolver that knows KEYS."""

    async def resolve(self, secret: str) -> Principal:
        if secret not in KEYS:
            raise invalid_key()
        return KEYS[secret]


class Client:
    """Calls notifier with one of the known keys."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = notifier_pb2_grpc.NotifierServiceStub(channel)

    async def call(self, method: str, request: Any, key: str = "admin") -> Any:
        call = getattr(self._stub, method)
        return await call(request, timeout=DEADLINE_S, metadata=api_key_metadata(key))

    async def refused(self, method: str, request: Any, key: str = "admin") -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.call(method, request, key)
        return refused.value


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    """A client of a running notifier."""
    server = GrpcServer(world.settings, KnownKeys())
    server.add(
        notifier_pb2_grpc.add_NotifierServiceServicer_to_server,
        NotifierServicer(world.notifier, world.deliveries, Listening(world.database)),
        "usageflow.notifier.v1.NotifierService",
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield Client(channel)
    await server.stop()


@pytest.fixture
async def endpoint_id(client: Client, receiver: Receiver) -> str:
    """An endpoint of Acme's test mode."""
    response = await client.call("CreateEndpoint", pb.CreateEndpointRequest(url=receiver.url))
    return str(response.endpoint.id)


@pytest.fixture
async def delivery_id(client: Client, endpoint_id: str, world: World) -> str:
    """A delivery of that endpoint that succeeded."""
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    listed = await client.call("ListDeliveries", pb.ListDeliveriesRequest(endpoint_id=endpoint_id))
    return str(listed.deliveries[0].id)


def requests(endpoint_id: str, delivery_id: str) -> dict[str, Any]:
    """A request for every RPC that names a thing."""
    return {
        "GetEndpoint": pb.GetEndpointRequest(endpoint_id=endpoint_id),
        "UpdateEndpoint": pb.UpdateEndpointRequest(endpoint_id=endpoint_id, description="x"),
        "DeleteEndpoint": pb.DeleteEndpointRequest(endpoint_id=endpoint_id),
        "RotateEndpointSecret": pb.RotateEndpointSecretRequest(endpoint_id=endpoint_id),
        "TestEndpoint": pb.TestEndpointRequest(endpoint_id=endpoint_id),
        "ListDeliveries": pb.ListDeliveriesRequest(endpoint_id=endpoint_id),
        "GetEndpointStats": pb.GetEndpointStatsRequest(endpoint_id=endpoint_id),
        "ReplayDeliveries": pb.ReplayDeliveriesRequest(endpoint_id=endpoint_id),
        "GetDelivery": pb.GetDeliveryRequest(delivery_id=delivery_id),
        "ReplayDelivery": pb.ReplayDeliveryRequest(delivery_id=delivery_id),
    }


async def test_an_endpoint_is_made_shown_and_listed_and_its_secret_shown_once(
    client: Client, receiver: Receiver
) -> None:
    made = await client.call(
        "CreateEndpoint",
        pb.CreateEndpointRequest(
            url=receiver.url, event_types=["invoice.paid"], description="Ours"
        ),
    )
    assert made.secret.startswith("whsec_")
    assert made.endpoint.id.startswith("whe_")
    assert made.endpoint.enabled
    shown = await client.call("GetEndpoint", pb.GetEndpointRequest(endpoint_id=made.endpoint.id))
    listed = await client.call("ListEndpoints", pb.ListEndpointsRequest())
    assert shown.endpoint == made.endpoint
    assert list(listed.endpoints) == [made.endpoint]
    for response in (shown, listed):
        assert made.secret.removeprefix("whsec_") not in str(response)


async def test_deliveries_are_listed_with_their_attempts(
    client: Client, endpoint_id: str, delivery_id: str
) -> None:
    response = await client.call(
        "ListDeliveries",
        pb.ListDeliveriesRequest(endpoint_id=endpoint_id, status=pb.DELIVERY_STATUS_SUCCEEDED),
    )
    (delivery,) = response.deliveries
    assert delivery.id == delivery_id
    assert delivery.event_type == "invoice.created"
    assert not delivery.HasField("next_attempt_time")
    (attempt,) = delivery.attempts
    assert (attempt.number, attempt.response_status, attempt.error) == (1, 200, "")
    assert attempt.response_body == "thanks"


async def test_no_rpc_shows_or_changes_anything_of_another_tenant(
    client: Client, endpoint_id: str, delivery_id: str, world: World, receiver: Receiver
) -> None:
    await receiver.next()
    for key in ("other", "live"):
        for method, request in requests(endpoint_id, delivery_id).items():
            error = await client.refused(method, request, key)
            assert error.code() is grpc.StatusCode.NOT_FOUND, method
        listed = await client.call("ListEndpoints", pb.ListEndpointsRequest(), key)
        assert not listed.endpoints
    assert await client.call("GetEndpoint", pb.GetEndpointRequest(endpoint_id=endpoint_id))
    assert receiver.requests.empty()


async def test_every_rpc_takes_its_scope(
    client: Client, endpoint_id: str, delivery_id: str, receiver: Receiver
) -> None:
    reading = {
        "GetEndpoint",
        "GetEndpointStats",
        "GetDelivery",
        "ListDeliveries",
        "ListEndpoints",
    }
    every = requests(endpoint_id, delivery_id) | {
        "ListEndpoints": pb.ListEndpointsRequest(),
        "CreateEndpoint": pb.CreateEndpointRequest(url=receiver.url),
    }
    methods = pb.DESCRIPTOR.services_by_name["NotifierService"].methods
    assert {method.name for method in methods} == {*every, "ListenEvents"}
    for method, request in every.items():
        error = await client.refused(method, request, "tracker")
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED, method
        error = await client.refused(method, request, "unknown")
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED, method
        if method in reading:
            await client.call(method, request, "reader")
        else:
            error = await client.refused(method, request, "reader")
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED, method


async def test_an_id_that_names_nothing_is_not_found(client: Client) -> None:
    nothing = "0" * 32
    for wrong_id in ("x", f"whe_{nothing}", f"whd_{nothing}", "whe_\x00", "whe_" + "0" * 999):
        for method, request in requests(wrong_id, wrong_id).items():
            error = await client.refused(method, request)
            assert error.code() is grpc.StatusCode.NOT_FOUND, (method, wrong_id)


async def test_wrong_fields_are_named_as_in_the_http_api(client: Client) -> None:
    error = await client.refused(
        "CreateEndpoint",
        pb.CreateEndpointRequest(
            url="ftp://x", event_types=["invoice.crated"], description="x" * 501
        ),
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    problems = {problem.field: problem.message for problem in from_rpc_error(error).problems}
    assert set(problems) == {"url", "events", "description"}
    assert "subscription.suspended" in problems["events"]


async def test_pages_tell_what_is_wrong_with_them(client: Client, endpoint_id: str) -> None:
    for method, request in (
        ("ListEndpoints", pb.ListEndpointsRequest(page_size=101)),
        ("ListEndpoints", pb.ListEndpointsRequest(page_token="x")),
        ("ListDeliveries", pb.ListDeliveriesRequest(endpoint_id=endpoint_id, page_token="x")),
        ("ListDeliveries", pb.ListDeliveriesRequest(endpoint_id=endpoint_id, status=99)),  # type: ignore[arg-type]
    ):
        error = await client.refused(method, request)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (problem,) = from_rpc_error(error).problems
        assert problem.field in ("limit", "cursor", "status")


async def test_pages_of_endpoints_give_each_once(client: Client, receiver: Receiver) -> None:
    for _ in range(5):
        await client.call("CreateEndpoint", pb.CreateEndpointRequest(url=receiver.url))
    seen: list[str] = []
    token = ""
    for _ in range(3):
        page = await client.call(
            "ListEndpoints", pb.ListEndpointsRequest(page_size=2, page_token=token)
        )
        seen.extend(endpoint.id for endpoint in page.endpoints)
        token = page.next_page_token
    assert len(seen) == 5
    assert seen == sorted(set(seen), reverse=True)
    assert token == ""
