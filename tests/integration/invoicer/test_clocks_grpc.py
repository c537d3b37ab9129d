"""TestClocksService over real gRPC: contents, scopes, what a tenant sees of another."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from usageflow.invoicer.v1 import test_clocks_pb2 as pb
from usageflow.invoicer.v1 import test_clocks_pb2_grpc

from services.invoicer.clock_servicer import ClocksServicer
from services.kit.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    from_rpc_error,
)
from services.kit.grpc_client import api_key_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.settings import ServiceSettings
from tests.integration.invoicer.conftest import NOW
from tests.integration.invoicer.stand_ins import TOKEN, World, new_tenant
from tests.integration.invoicer.test_invoicer_grpc import DEADLINE_S, Keys

READS = {"GetTestClock", "ListTestClocks"}
SERVICE = "TestClocksService"
METHODS = [each.name for each in pb.DESCRIPTOR.services_by_name[SERVICE].methods]


def stamp(days: int) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(NOW + timedelta(days=days))
    return time


@dataclass
class Api:
    """Calls methods by name with a key."""

    stub: "test_clocks_pb2_grpc.TestClocksServiceAsyncStub"  # in the stubs only

    async def call(self, name: str, key: str = "ours-admin", **request: object) -> Any:
        """The response, or the domain error that came back."""
        message = getattr(pb, f"{name}Request")(**request)
        try:
            return await getattr(self.stub, name)(
                message, timeout=DEADLINE_S, metadata=api_key_metadata(key)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The service of `world` on a port of its own."""
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr("nats://unused"),
        internal_token=TOKEN,
        shutdown_s=1,
    )
    ids = {"ours": world.tenant.organization_id, "theirs": new_tenant().organization_id}
    server = GrpcServer(settings, Keys(ids))
    server.add(
        test_clocks_pb2_grpc.add_TestClocksServiceServicer_to_server,
        ClocksServicer(world.clocks),
        f"usageflow.invoicer.v1.{SERVICE}",
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield Api(test_clocks_pb2_grpc.TestClocksServiceStub(channel))
    await server.stop()


async def test_a_clock_is_made_advanced_and_ended(world: World, api: Api) -> None:
    made = (await api.call("CreateTestClock", customer_id="user_1")).test_clock
    assert (made.customer_id, made.status) == ("user_1", pb.TEST_CLOCK_STATUS_ADVANCING)
    await world.go_on()
    with pytest.raises(InvalidArgumentError, match="to: is required"):
        await api.call("AdvanceTestClock", test_clock_id=made.id)
    going = (await api.call("AdvanceTestClock", test_clock_id=made.id, to=stamp(9))).test_clock
    assert (going.now, going.target_time) == (stamp(0), stamp(9))
    await world.go_on()
    there = (await api.call("GetTestClock", test_clock_id=made.id)).test_clock
    assert (there.now, there.status) == (stamp(9), pb.TEST_CLOCK_STATUS_READY)
    assert not there.HasField("target_time")
    ended = (await api.call("EndTestClock", test_clock_id=made.id)).test_clock
    assert (ended.now, ended.status) == (stamp(9), pb.TEST_CLOCK_STATUS_ENDED)
    other = (await api.call("CreateTestClock", customer_id="user_2")).test_clock
    listed = await api.call("ListTestClocks", page_size=1)
    assert [each.id for each in listed.test_clocks] == [other.id]
    token = listed.next_page_token
    rest = await api.call("ListTestClocks", page_size=1, page_token=token)
    assert [each.id for each in rest.test_clocks] == [made.id]
    assert [
        each.id for each in (await api.call("ListTestClocks", customer_id="user_1")).test_clocks
    ] == [made.id]


async def examples(world: World) -> dict[str, dict[str, Any]]:
    """A request for each method about a clock of ours."""
    clock = await world.clocks.create_clock(world.tenant, "user_1", None)
    by_id = {"test_clock_id": clock.id}
    return {
        "CreateTestClock": {},
        "GetTestClock": by_id,
        "ListTestClocks": {},
        "AdvanceTestClock": {**by_id, "to": stamp(9)},
        "EndTestClock": by_id,
    }


async def test_reads_take_the_scope_read_and_all_else_admin(world: World, api: Api) -> None:
    asked = await examples(world)
    assert sorted(asked) == sorted(METHODS)
    for name, request in asked.items():
        for key in ["ours-track"] if name in READS else ["ours-track", "ours-read"]:
            with pytest.raises(PermissionDeniedError, match="lacks the scope"):
                await api.call(name, key, **request)


@pytest.mark.parametrize("key", ["theirs-admin", "ours-admin-live"])
async def test_no_method_shows_or_changes_what_is_another_tenants(
    world: World, api: Api, key: str
) -> None:
    for name, request in (await examples(world)).items():
        if name == "ListTestClocks":
            assert list((await api.call(name, key)).test_clocks) == []
        elif name != "CreateTestClock":
            with pytest.raises(NotFoundError):
                await api.call(name, key, **request)
    with pytest.raises(PreconditionError, match="test mode"):
        await api.call("CreateTestClock", "ours-admin-live")
