"""Replays of many deliveries: what failed, a time range, what an endpoint never got."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text

from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError, NotFoundError, PreconditionError
from services.notifier import deliveries as use_cases
from services.notifier.domain import EndpointChange
from tests.integration.notifier.conftest import ACME, Receiver, World, make_event, status

OTHER = TenantKey("org_" + "b" * 32, "test")


async def replay(world: World, endpoint_id: str, scope: str = "failed") -> tuple[int, str]:
    return await world.deliveries.replay_many(ACME, endpoint_id, scope, None, None, "")


async def fail_some(world: World, receiver: Receiver, count: int) -> list[str]:
    """Let so many events fail for good; their ids."""
    receiver.always = status(500)
    events = [make_event() for _ in range(count)]
    await world.notifier.take_events(events)
    for _ in range(3 * count):
        await world.recorder.next()
    while not receiver.requests.empty():
        receiver.requests.get_nowait()
    receiver.always = None
    return [event.id for event in events]


async def test_all_that_failed_is_sent_again_with_the_same_ids_and_once_for_two_clicks(
    world: World, receiver: Receiver
) -> None:
    endpoint, secret = await world.endpoint(receiver.url)
    failed = await fail_some(world, receiver, 3)
    await world.notifier.take_events([make_event()])
    await receiver.next()
    await world.recorder.next()
    clicks = await asyncio.gather(*(replay(world, endpoint.id) for _ in range(3)))
    assert sorted(count for count, _ in clicks) == [0, 0, 3]
    received = [await receiver.next() for _ in failed]
    assert sorted(webhook.webhook_id for webhook in received) == sorted(failed)
    assert all(webhook.verified_by(secret) for webhook in received)
    for _ in failed:
        await world.recorder.next()
    assert await replay(world, endpoint.id) == (0, "")
    assert receiver.requests.empty()


async def test_a_time_range_replays_what_was_made_in_it_whether_or_not_it_arrived(
    world: World, receiver: Receiver, database: Database
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    events = [make_event() for _ in range(3)]
    for event in events:
        await world.notifier.take_events([event])
        await receiver.next()
        await world.recorder.next()
    found, _ = await world.listed(endpoint.id)
    times = sorted(delivery.create_time for delivery in found)
    count, _ = await world.deliveries.replay_many(ACME, endpoint.id, "all", times[1], times[2], "")
    assert count == 1
    assert (await receiver.next()).webhook_id == events[1].id
    await world.recorder.next()
    again = await world.deliveries.replay_many(ACME, endpoint.id, "all", times[1], times[2], "")
    assert again == (0, "")
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE deliveries SET replay_time = now() - interval '11s'"))
    assert (await replay(world, endpoint.id, "all"))[0] == 3


async def test_what_came_while_an_endpoint_was_disabled_is_made_up_for(
    world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url, "invoice.*")
    await world.notifier.update_endpoint(ACME, endpoint.id, EndpointChange(enabled=False))
    missed = make_event("invoice.paid")
    others = [make_event("subscription.created"), make_event("invoice.paid", OTHER)]
    await world.notifier.take_events([missed, *others])
    with pytest.raises(PreconditionError, match="disabled"):
        await replay(world, endpoint.id, "missed")
    await world.notifier.update_endpoint(ACME, endpoint.id, EndpointChange(enabled=True))
    clicks = await asyncio.gather(*(replay(world, endpoint.id, "missed") for _ in range(3)))
    assert sum(count for count, _ in clicks) == 1
    assert (await receiver.next()).webhook_id == missed.id
    await world.recorder.next()
    assert receiver.requests.empty()


async def test_a_test_event_of_another_endpoint_was_not_missed(
    world: World, receiver: Receiver
) -> None:
    tested, _ = await world.endpoint(receiver.url)
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.send_test(ACME, tested.id)
    assert await replay(world, endpoint.id, "missed") == (0, "")


async def test_a_large_replay_comes_in_pages(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use_cases, "REPLAYED_AT_ONCE_MAX", 2)
    endpoint, _ = await world.endpoint(receiver.url)
    failed = await fail_some(world, receiver, 5)
    counts, token = [], ""
    while True:
        count, token = await world.deliveries.replay_many(
            ACME, endpoint.id, "failed", None, None, token
        )
        counts.append(count)
        if not token:
            break
    assert counts == [2, 2, 1]
    assert {(await receiver.next()).webhook_id for _ in failed} == set(failed)


async def test_nothing_of_another_tenant_is_replayed(world: World, receiver: Receiver) -> None:
    endpoint, _ = await world.endpoint(receiver.url, tenant=OTHER)
    for scope in ("failed", "all", "missed"):
        with pytest.raises(NotFoundError):
            await replay(world, endpoint.id, scope)


async def test_a_token_of_something_else_is_refused(world: World, receiver: Receiver) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    for token in ("x", "W10", "WyJhIiwid2hkXzEiXQ"):
        with pytest.raises(InvalidArgumentError):
            await world.deliveries.replay_many(ACME, endpoint.id, "failed", None, None, token)


async def test_one_replay_of_a_disabled_endpoint_is_refused(
    world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(410)]
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    (delivery,), _ = await world.listed(endpoint.id)
    with pytest.raises(PreconditionError, match="disabled"):
        await world.deliveries.replay(ACME, delivery.id)
    (delivery,), _ = await world.listed(endpoint.id)
    assert delivery.status == "failed"


async def test_figures_tell_what_became_of_the_deliveries_of_a_time_range(
    world: World, receiver: Receiver
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    await fail_some(world, receiver, 2)
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    stats = await world.deliveries.stats(ACME, endpoint.id, None, None)
    assert stats.statuses == {"failed": 2, "succeeded": 1}
    assert stats.attempts == {"http_status": 6, "": 1}
    assert stats.oldest_pending_time is None
    assert 0 <= stats.duration_p50_ms <= stats.duration_p95_ms
    later = clock.now() + timedelta(hours=1)
    nothing = await world.deliveries.stats(ACME, endpoint.id, later, None)
    assert (nothing.statuses, nothing.attempts, nothing.duration_p50_ms) == ({}, {}, 0)
    with pytest.raises(NotFoundError):
        await world.deliveries.stats(OTHER, endpoint.id, None, None)
