"""TestClocksService over real gRPC: contents, scopes, what a tenant sees of another."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.invoicer.v1 import test_clocks_pb2 as pb

from services.invoicer.clock_servicer import ClocksServicer
from services.kit.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from tests.integration.invoicer.conftest import NOW
from tests.integration.invoicer.serving import Api, serving
from tests.integration.invoicer.stand_ins import World

READS = {"GetTestClock", "ListTestClocks"}


def stamp(days: int) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(NOW + timedelta(days=days))
    return time


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The service of `world` on a port of its own."""
    async with serving(world, ClocksServicer(world.clocks)) as api:
        yield api


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


async def test_what_is_done_with_a_clock_is_told_to_the_audit_log(world: World, api: Api) -> None:
    made = (await api.call("CreateTestClock", customer_id="user_1", now=stamp(1))).test_clock
    with pytest.raises(ConflictError):
        await api.call("CreateTestClock", customer_id="user_1")
    await world.go_on()
    by_id = {"test_clock_id": made.id}
    await api.call("AdvanceTestClock", **by_id, to=stamp(9))
    with pytest.raises(PreconditionError):
        await api.call("AdvanceTestClock", **by_id, to=stamp(10))
    await world.go_on()
    for _ in range(2):
        await api.call("EndTestClock", **by_id)
    entries = await world.audited()
    days = [f"2026-01-{day}T12:00:00Z" for day in (15, 16, 24)]
    assert [(each.action, json.loads(each.details_json)) for each in entries] == [
        ("test_clock.created", {"customerId": "user_1", "now": days[0], "advancingTo": days[1]}),
        ("test_clock.advanced", {"customerId": "user_1", "now": days[1], "advancingTo": days[2]}),
        ("test_clock.ended", {"customerId": "user_1", "now": days[2]}),
    ]
    for each in entries:
        assert (each.target_id, each.key_id, each.tenant) == (made.id, "key_1", world.tenant)


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
    await api.refuse_who_lacks_scopes(await examples(world), READS)


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
