"""How endpoints are left alone, limited, and disabled when nothing reaches them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from aiohttp import web
from sqlalchemy import text

from services.kit import clock
from services.kit.database import Database
from services.notifier import health_repository
from services.notifier.domain import Endpoint, EndpointChange
from services.notifier.health_repository import Disabled, Note
from tests.integration.notifier.conftest import (
    ACME,
    Answer,
    Receiver,
    World,
    Worlds,
    make_event,
    status,
)

DAY = timedelta(days=1)


def asking(number: int, retry_after: str) -> Answer:
    """An answer with this status and Retry-After."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=number, headers={"retry-after": retry_after})

    return answer


async def shown(world: World, endpoint: Endpoint) -> Endpoint:
    return await world.notifier.get_endpoint(ACME, endpoint.id)


async def note(database: Database, notes: Sequence[Note], now: datetime) -> list[Disabled]:
    async with database.transaction() as connection:
        return await health_repository.note(connection, notes, now)


def failure(endpoint: Endpoint, at: datetime) -> Note:
    return Note(endpoint.id, succeeded=False, failure_time=at, rest_s=None, gone=False)


def throttled(endpoint: Endpoint, at: datetime, rest_s: float = 1.0) -> Note:
    return Note(endpoint.id, succeeded=False, failure_time=at, rest_s=rest_s, gone=False)


def success(endpoint: Endpoint) -> Note:
    return Note(endpoint.id, succeeded=True, failure_time=None, rest_s=None, gone=False)


async def test_retry_after_is_honoured_up_to_twice_the_delay(
    make_world: Worlds, receiver: Receiver
) -> None:
    world = await make_world(webhook_retry_delays_s="0,1000")
    endpoint, _ = await world.endpoint(receiver.url)
    for retry_after, least, most in (
        ("1", 800, 1_200),
        ("1500", 1_499, 1_601),
        ("9999", 1_600, 2_400),
    ):
        receiver.answers = [asking(503, retry_after)]
        await world.notifier.take_events([make_event()])
        await world.recorder.next()
        (delivery, *_), _ = await world.listed(endpoint.id)
        assert delivery.next_attempt_time is not None
        waits_s = (delivery.next_attempt_time - delivery.attempts[0].start_time).total_seconds()
        assert least - 1 <= waits_s <= most + 1


@pytest.mark.parametrize("number", [429, 502, 504])
async def test_a_throttling_endpoint_is_left_alone_and_then_tried_with_one(
    world: World, receiver: Receiver, number: int
) -> None:
    """At most the four in flight reach it before the pause; after it one, which succeeds."""
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(number)] * 4
    events = [make_event() for _ in range(30)]
    began_s = asyncio.get_running_loop().time()
    await world.notifier.take_events(events)
    for _ in range(4):
        assert (await world.recorder.next()).attempt.response_status == number
    resting = await shown(world, endpoint)
    assert resting.throttle_until is not None
    assert receiver.requests.qsize() == 4
    for _ in events:
        assert (await world.recorder.next()).status == "succeeded"
    assert asyncio.get_running_loop().time() - began_s >= 0.9
    assert (await shown(world, endpoint)).throttle_until is None


async def test_what_another_endpoint_gets_does_not_wait_for_one_that_throttles(
    world: World, receiver: Receiver
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("busy"):
            return web.Response(status=429, headers={"retry-after": "60"})
        return web.Response()

    receiver.always = answer
    await world.endpoint(receiver.url + "/busy")
    await world.endpoint(receiver.url + "/good")
    await world.notifier.take_events([make_event() for _ in range(50)])
    paths = [(await receiver.next()).path for _ in range(51)]
    assert paths.count("/hooks/busy") <= 4
    assert paths.count("/hooks/good") >= 47


async def test_pauses_double_and_what_was_in_flight_together_counts_once(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    now = clock.now()
    pauses = []
    for _ in range(12):
        await note(database, [throttled(endpoint, now)], now)
        await note(database, [throttled(endpoint, now)], now)
        until = (await shown(world, endpoint)).throttle_until
        assert until is not None
        pauses.append(round((until - now).total_seconds()))
        now = until
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    await note(database, [success(endpoint)], now)
    assert (await shown(world, endpoint)).throttle_until is None


async def test_a_rate_limit_holds_over_all_workers(make_world: Worlds, receiver: Receiver) -> None:
    worlds = [await make_world() for _ in range(3)]
    await worlds[0].endpoint(receiver.url, rate_limit=20)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await worlds[0].notifier.take_events([make_event() for _ in range(60)])
    arrived_s = []
    for _ in range(60):
        await receiver.next()
        arrived_s.append(loop.time() - began_s)
    # A second's worth may come at once; the other 40 take two seconds.
    assert arrived_s[-1] >= 1.9


async def test_an_endpoint_without_a_limit_is_never_written_while_it_is_well(
    world: World, receiver: Receiver, database: Database
) -> None:
    await world.endpoint(receiver.url)
    async with database.transaction() as connection:
        before = await connection.execute(text("SELECT xmin FROM endpoints"))
        first = before.scalar_one()
    await world.notifier.take_events([make_event() for _ in range(20)])
    for _ in range(20):
        await world.recorder.next()
    async with database.transaction() as connection:
        after = await connection.execute(text("SELECT xmin FROM endpoints"))
        assert after.scalar_one() == first


async def test_410_disables_at_once_and_ends_what_is_pending(
    make_world: Worlds, receiver: Receiver
) -> None:
    world = await make_world(webhook_retry_delays_s="0,3600")
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(500), status(410)]
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    disabled = await shown(world, endpoint)
    assert (disabled.enabled, disabled.disabled_reason) == (False, "gone")
    deliveries, _ = await world.listed(endpoint.id)
    assert [delivery.status for delivery in deliveries] == ["failed", "failed"]
    assert await world.notifier.take_events([make_event()]) == 0


async def test_the_organizations_other_endpoints_hear_of_a_disabled_one(
    world: World, receiver: Receiver
) -> None:
    gone, _ = await world.endpoint(receiver.url + "/gone", "invoice.created")
    _, secret = await world.endpoint(receiver.url + "/other", "webhook.disabled")
    receiver.answers = [status(410)]
    await world.notifier.take_events([make_event()])
    assert (await receiver.next()).path == "/hooks/gone"
    told = await receiver.next()
    assert told.path == "/hooks/other"
    body = told.verified_by(secret)
    assert body["type"] == "webhook.disabled"
    data = body["data"]
    assert isinstance(data, dict)
    assert (data["endpointId"], data["reason"]) == (gone.id, "GONE")


async def test_five_days_of_nothing_but_failures_disable(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    start = clock.now()
    for day in (0, 1.2, 2.4, 3.6, 4.9):
        at = start + day * DAY
        assert await note(database, [failure(endpoint, at)], at) == []
    assert (await shown(world, endpoint)).failing_since == start
    at = start + 5 * DAY
    (disabled,) = await note(database, [failure(endpoint, at)], at)
    assert (disabled.endpoint_id, disabled.reason) == (endpoint.id, "failing")
    assert disabled.tenant == ACME
    assert await note(database, [failure(endpoint, at)], at) == []
    change = EndpointChange(enabled=True)
    enabled = await world.notifier.update_endpoint(ACME, endpoint.id, change)
    assert enabled.failing_since is None


async def test_one_success_begins_the_five_days_anew(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    start = clock.now()
    for day in range(10):
        at = start + day * DAY
        assert await note(database, [failure(endpoint, at)], at) == []
        if day % 4 == 3:
            await note(database, [success(endpoint)], at)
            assert (await shown(world, endpoint)).failing_since is None


async def test_rare_failures_are_no_five_days_of_failures(
    world: World, receiver: Receiver, database: Database
) -> None:
    """One event a month, to a receiver that happens to be away each time."""
    endpoint, _ = await world.endpoint(receiver.url)
    start = clock.now()
    for month in range(5):
        at = start + month * 30 * DAY
        assert await note(database, [failure(endpoint, at)], at) == []


async def test_failing_since_follows_what_comes_of_attempts(
    world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(500)]
    event = make_event()
    await world.notifier.take_events([event])
    await world.recorder.next()
    assert (await shown(world, endpoint)).failing_since is not None
    await world.recorder.next()
    assert (await shown(world, endpoint)).failing_since is None
