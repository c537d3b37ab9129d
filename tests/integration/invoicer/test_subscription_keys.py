"""A subscription made under an idempotency key: once, however often it is asked for."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.service.paging import Page
from services.invoicer.service.subscriptions import SubscriptionInput
from services.kit.errors import ConflictError, InvalidArgumentError
from tests.integration.invoicer.stand_ins import World, new_tenant, pro_plan, utc

JANUARY = utc("2026-01-01")


@pytest.fixture
async def given(world: World) -> SubscriptionInput:
    """A subscription to ask for, under a key."""
    plan = await world.plans.create_plan(world.tenant, pro_plan())
    return SubscriptionInput("user_123", plan.id, JANUARY, "CALENDAR", "order-1")


async def outbox_count(world: World) -> int:
    async with world.database.transaction() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM outbox"))).scalar_one())


async def test_the_same_request_under_a_key_makes_one_subscription(
    world: World, given: SubscriptionInput
) -> None:
    made, replayed = await world.subscriptions.create_subscription(world.tenant, given)
    again, replayed_again = await world.subscriptions.create_subscription(world.tenant, given)
    assert (replayed, replayed_again) == (False, True)
    assert again == made
    assert await outbox_count(world) == 1


async def test_requests_under_one_key_at_the_same_time_make_one_subscription(
    world: World, given: SubscriptionInput
) -> None:
    made = await asyncio.gather(
        *(world.subscriptions.create_subscription(world.tenant, given) for _ in range(8))
    )
    assert len({subscription.id for subscription, _ in made}) == 1
    assert sorted(replayed for _, replayed in made) == [False, *[True] * 7]
    found, _ = await world.subscriptions.list_subscriptions(world.tenant, "", Page())
    assert len(found) == 1


async def test_a_new_version_of_the_plan_does_not_make_the_same_request_another(
    world: World, given: SubscriptionInput
) -> None:
    made, _ = await world.subscriptions.create_subscription(world.tenant, given)
    await world.plans.create_plan_version(world.tenant, given.plan_id, pro_plan(base_price="9"))
    again, replayed = await world.subscriptions.create_subscription(world.tenant, given)
    assert (again, replayed) == (made, True)


@pytest.mark.parametrize(
    "change",
    [{"customer_id": "user_4"}, {"start_time": None}, {"billing_anchor": "ANNIVERSARY"}],
    ids=str,
)
async def test_other_content_under_the_key_is_refused_and_stores_nothing(
    world: World, given: SubscriptionInput, change: dict[str, Any]
) -> None:
    await world.subscriptions.create_subscription(world.tenant, given)
    with pytest.raises(ConflictError) as caught:
        await world.subscriptions.create_subscription(world.tenant, replace(given, **change))
    assert caught.value.reason == "idempotency_conflict"
    assert await outbox_count(world) == 1


async def test_a_refused_request_uses_no_key_up(world: World, given: SubscriptionInput) -> None:
    with pytest.raises(InvalidArgumentError, match="planId"):
        await world.subscriptions.create_subscription(world.tenant, replace(given, plan_id="x"))
    _, replayed = await world.subscriptions.create_subscription(world.tenant, given)
    assert not replayed


async def test_a_key_belongs_to_one_tenant(world: World, given: SubscriptionInput) -> None:
    made, _ = await world.subscriptions.create_subscription(world.tenant, given)
    for other in (new_tenant(), world.tenant._replace(mode="live")):
        plan = await world.plans.create_plan(other, pro_plan())
        theirs = replace(given, plan_id=plan.id)
        subscription, replayed = await world.subscriptions.create_subscription(other, theirs)
        assert not replayed
        assert subscription.id != made.id


@pytest.mark.parametrize("key", ["x" * 256, "a\nb", "é"])
async def test_a_key_that_can_be_none_is_named(
    world: World, given: SubscriptionInput, key: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="Idempotency-Key: must be 1-255 printable"):
        await world.subscriptions.create_subscription(
            world.tenant, replace(given, idempotency_key=key)
        )


async def test_the_database_refuses_a_second_subscription_of_a_key_and_a_change_of_it(
    world: World, given: SubscriptionInput
) -> None:
    await world.subscriptions.create_subscription(world.tenant, given)
    await world.subscriptions.create_subscription(
        world.tenant, replace(given, idempotency_key="order-2")
    )
    with pytest.raises(DBAPIError, match="the idempotency key of a subscription never changes"):
        async with world.database.transaction() as connection:
            await connection.execute(text("UPDATE subscriptions SET idempotency_key = NULL"))
    with pytest.raises(DBAPIError, match="uq_subscriptions_idempotency_key"):
        async with world.database.transaction() as connection:
            await connection.execute(text("ALTER TABLE subscriptions DISABLE TRIGGER USER"))
            await connection.execute(text("UPDATE subscriptions SET idempotency_key = 'one'"))
