"""What is old is forgotten, and nothing else."""

from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from services.kit import clock
from services.kit.database import Database
from services.notifier import repository
from services.notifier.domain import EndpointChange
from services.notifier.maintenance import Maintenance
from tests.integration.notifier.conftest import (
    ACME,
    Receiver,
    World,
    Worlds,
    make_event,
    make_settings,
    status,
)

TABLES = ("deliveries", "delivery_attempts", "webhook_events", "inbox")


async def counts(database: Database) -> list[int]:
    """How many rows there are in TABLES."""
    async with database.transaction() as connection:
        return [
            (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in TABLES
        ]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, database: Database) -> "Later":
    """Runs maintenance on a later day."""
    return Later(monkeypatch, Maintenance(database, retention_days=30))


class Later:
    """Maintenance on a later day."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, maintenance: Maintenance) -> None:
        self._monkeypatch = monkeypatch
        self._maintenance = maintenance

    async def round(self, days: int) -> dict[str, int]:
        """What a round forgets in so many days from now."""
        with self._monkeypatch.context() as patch:
            patch.setattr(clock, "_offset", timedelta(days=days))
            return await self._maintenance.round()


async def test_what_is_done_is_kept_for_the_retention_and_the_inbox_for_longer(
    world: World, receiver: Receiver, database: Database, later: Later
) -> None:
    await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event() for _ in range(3)])
    for _ in range(3):
        await world.recorder.next()
    await later.round(29)
    assert await counts(database) == [3, 3, 3, 3]
    forgotten = await later.round(31)
    assert (forgotten["deliveries"], forgotten["events"]) == (3, 3)
    assert await counts(database) == [0, 0, 0, 3]
    assert (await later.round(89))["inbox"] == 0
    assert (await later.round(91))["inbox"] == 3


async def test_what_is_pending_or_was_replayed_lately_is_kept(
    make_world: Worlds, receiver: Receiver, database: Database, later: Later
) -> None:
    world = await make_world(webhook_retry_delays_s="0,3600")
    endpoint, _ = await world.endpoint(receiver.url)
    receiver.answers = [status(500)]
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    await world.notifier.take_events([make_event()])
    await world.recorder.next()
    (delivery, _), _ = await world.listed(endpoint.id)
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE deliveries SET replay_time = now() + interval '20 days' WHERE id = :id"),
            {"id": delivery.id},
        )
        # The worker's clock moves with ours.
        await connection.execute(
            text(
                "UPDATE deliveries SET next_attempt_time = now() + interval '1 year'"
                " WHERE status = 'pending'"
            )
        )
    assert (await later.round(31))["deliveries"] == 0
    assert await counts(database) == [2, 2, 2, 2]
    forgotten = await later.round(51)
    assert (forgotten["deliveries"], forgotten["events"]) == (1, 1)
    assert await counts(database) == [1, 1, 1, 2]


async def test_an_event_that_comes_again_after_the_inbox_forgot_it_is_not_delivered_again(
    world: World, receiver: Receiver, database: Database
) -> None:
    await world.endpoint(receiver.url)
    event = make_event()
    await world.notifier.take_events([event])
    await world.recorder.next()
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM inbox"))
    fresh = make_event()
    assert await world.notifier.take_events([event, fresh]) == 1
    assert await world.notifier.take_events([event]) == 0


async def test_signing_keys_that_have_expired_are_forgotten(
    world: World, receiver: Receiver, database: Database, later: Later
) -> None:
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.rotate_secret(ACME, endpoint.id)
    assert (await later.round(0))["secrets"] == 0
    assert (await later.round(2))["secrets"] == 1


def gauge(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


async def test_an_operator_sees_how_far_behind_deliveries_are_and_how_endpoints_do(
    receiver: Receiver, database: Database, database_url: str, later: Later
) -> None:
    world = World(database, make_settings(database_url, webhook_retry_delays_s="0,3600"))
    async with world.working():
        await world.endpoint(receiver.url)
        disabled, _ = await world.endpoint(receiver.url)
        await world.notifier.update_endpoint(ACME, disabled.id, EndpointChange(enabled=False))
        await later.round(0)
        assert gauge("usageflow_webhook_overdue_seconds") == 0
        assert gauge("usageflow_webhook_endpoints", state="healthy") == 1
        assert gauge("usageflow_webhook_endpoints", state="disabled") == 1
        receiver.always = status(500)
        await world.notifier.take_events([make_event()])
        await world.recorder.next()
    # A worker's clock would move with ours, and it would try again what is overdue.
    await later.round(1)
    assert gauge("usageflow_webhook_endpoints", state="failing") == 1
    day_s = 24 * 3_600
    assert day_s - 1.3 * 3_600 < gauge("usageflow_webhook_overdue_seconds") < day_s


async def test_what_disabling_left_pending_of_a_large_backlog_ends_with_the_next_round(
    make_world: Worlds,
    receiver: Receiver,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repository, "ENDED_AT_ONCE_MAX", 2)
    world = await make_world(webhook_retry_delays_s="3600", webhook_poll_s=60)
    endpoint, _ = await world.endpoint(receiver.url)
    await world.notifier.take_events([make_event() for _ in range(5)])
    await world.notifier.update_endpoint(ACME, endpoint.id, EndpointChange(enabled=False))
    pending, _ = await world.listed(endpoint.id, "pending")
    assert len(pending) == 3
    await later.round(0)
    failed, _ = await world.listed(endpoint.id, "failed")
    assert len(failed) == 5
