"""Every RPC with every role: what kit's interceptor, which all services have, lets through."""

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from services.kit.errors import NotFoundError, from_rpc_error
from services.kit.grpc_client import caller_metadata
from services.kit.permissions import PORTAL, ROLES, permission_of
from services.kit.portal import REACH
from tests.integration.gateway.conftest import MODULES, World, serving_services

pytestmark = pytest.mark.asyncio(loop_scope="module")
# Both sides of these are streams, or last: what a bare call shows is told by their first answer.
RPCS = [
    (f"/{service.full_name}/{method.name}", method)
    for messages, _stubs in MODULES
    for service in messages.DESCRIPTOR.services_by_name.values()
    if not service.name.endswith("InternalService")
    for method in service.methods
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel() -> AsyncIterator[tuple[grpc.aio.Channel, World]]:
    """A channel to all services, which have found nothing whatever they are asked."""
    # An error that nobody expects would be logged each time, with all there is: 0.3 s.
    world = World(answers=defaultdict(lambda: NotFoundError("No such thing")))
    world.recording.set()
    async with serving_services(world) as server:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel, world


async def refused(channel: grpc.aio.Channel, rpc: str, method: Any, credential: str) -> str:
    """The reason for which the call was not let through; "": it was."""
    options: dict[str, Any] = {"timeout": 20, "metadata": caller_metadata(credential)}
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }
    kind: Any = kinds[method.client_streaming, method.server_streaming]
    call = kind(rpc)(iter([b""]) if method.client_streaming else b"", **options)
    try:
        if method.server_streaming:
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            return from_rpc_error(error).reason
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            return "unauthenticated"
    finally:
        call.cancel()
    return ""


@pytest.mark.parametrize("role", ROLES)
async def test_a_member_may_call_what_their_role_is_for_and_nothing_else(
    channel: tuple[grpc.aio.Channel, World], role: str
) -> None:
    to_services, world = channel
    world.watched.put_nowait(None)
    credential = world.new_session(role)
    for rpc, method in RPCS:
        world.watched.put_nowait(None)
        permission = permission_of(rpc)
        assert permission is not None
        expected = "" if role in permission.roles else "missing_role"
        if permission is PORTAL:
            expected = "portal_links_only"
        assert await refused(to_services, rpc, method, credential) == expected, rpc


async def test_a_key_may_call_all_that_is_not_for_members_alone(
    channel: tuple[grpc.aio.Channel, World],
) -> None:
    to_services, world = channel
    for rpc, method in RPCS:
        world.watched.put_nowait(None)
        permission = permission_of(rpc)
        assert permission is not None
        expected = "" if permission.keys else "members_only"
        if permission is PORTAL:
            expected = "portal_links_only"
        assert await refused(to_services, rpc, method, world.new_key()) == expected, rpc


async def test_a_link_to_the_portal_reaches_what_is_named_for_it_and_nothing_else(
    channel: tuple[grpc.aio.Channel, World],
) -> None:
    to_services, world = channel
    token = world.new_portal_link("user_123")
    for rpc, method in RPCS:
        expected = "" if rpc in REACH else "portal_only"
        assert await refused(to_services, rpc, method, token) == expected, rpc


async def test_a_role_that_is_newer_than_the_service_may_do_nothing(
    channel: tuple[grpc.aio.Channel, World],
) -> None:
    to_services, world = channel
    credential = world.new_session("ACCOUNTANT")
    for rpc, method in RPCS:
        permission = permission_of(rpc)
        expected = "portal_links_only" if permission is PORTAL else "missing_role"
        assert await refused(to_services, rpc, method, credential) == expected, rpc


async def test_nobody_calls_anything(channel: tuple[grpc.aio.Channel, World]) -> None:
    to_services, _world = channel
    for rpc, method in RPCS:
        reason = await refused(to_services, rpc, method, "ufs_" + "x" * 38 + ".test")
        assert reason == "unauthenticated", rpc
