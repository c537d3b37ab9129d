"""SubscriptionChangesService over real gRPC: contents, scopes, what a tenant sees of another."""

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from usageflow.invoicer.v1 import invoicer_pb2

from services.invoicer.change_servicer import SubscriptionChangesServicer
from services.invoicer.service.billing_periods import BillingPeriods
from services.kit.errors import (
    InvalidArgumentError,
    NotFoundError,
)
from tests.integration.invoicer.serving import Api, serving
from tests.integration.invoicer.stand_ins import World, pro_plan, utc

JANUARY = utc("2026-01-01")
READS = {"PreviewSubscriptionChange", "ListBillingPeriods"}


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The service of `world` on a port of its own."""
    async with serving(
        world,
        SubscriptionChangesServicer(
            world.changes,
            world.subscriptions,
            BillingPeriods(world.database, world.clock),
            world.clock,
        ),
    ) as api:
        yield api


async def examples(world: World) -> dict[str, dict[str, Any]]:
    """A request for each method about things of ours."""
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    change = {"subscription_id": subscription.id, "quantity": 3}
    return {
        "ChangeSubscription": change,
        "PreviewSubscriptionChange": {"change": change},
        "MigrateSubscriptions": {"plan_id": subscription.plan_id},
        "ListBillingPeriods": {"subscription_id": subscription.id},
        "UncancelSubscription": {"subscription_id": subscription.id},
    }


async def test_a_change_and_its_preview_tell_the_subscription(world: World, api: Api) -> None:
    asked = await examples(world)
    shown = await api.call("PreviewSubscriptionChange", **asked["PreviewSubscriptionChange"])
    made = await api.call("ChangeSubscription", **asked["ChangeSubscription"])
    assert shown.subscription == made.subscription
    assert (made.subscription.quantity, len(made.subscription.phases)) == (3, 2)
    assert [phase.quantity for phase in made.subscription.phases] == [1, 3]
    first, second = made.subscription.phases
    assert first.kind == invoicer_pb2.PHASE_KIND_BILLED
    assert first.exact_start_time == first.start_time
    assert first.exact_end_time == second.exact_start_time
    assert not second.HasField("exact_end_time")
    (invoice,) = shown.invoices
    assert [line.amount for line in invoice.lines] == ["46.77", "159.68"]


async def test_each_of_several_changes_in_a_quarter_is_told_with_its_seconds(
    world: World, api: Api
) -> None:
    asked = (await examples(world))["ChangeSubscription"]
    for second, quantity in ((130, 3), (245, 2)):
        world.at(utc("2026-01-10T10:00") + timedelta(seconds=second))
        made = await api.call("ChangeSubscription", **{**asked, "quantity": quantity})
    _, short, last = made.subscription.phases
    assert short.start_time == short.end_time == last.start_time
    seconds = [each.ToDatetime() for each in (short.exact_start_time, short.exact_end_time)]
    assert [f"{each:%H:%M:%S}" for each in seconds] == ["10:02:10", "10:04:05"]
    assert last.exact_start_time == short.exact_end_time


async def test_a_migration_tells_each_subscription(world: World, api: Api) -> None:
    plan_id = (await examples(world))["MigrateSubscriptions"]["plan_id"]
    await world.plans.create_plan_version(world.tenant, plan_id, pro_plan(metrics=[]))
    done = await api.call("MigrateSubscriptions", plan_id=plan_id)
    assert done.to_version == 2
    (moved,) = done.migrations
    assert (moved.customer_id, moved.from_version, moved.problem) == ("user_123", 1, "")
    assert moved.time.ToDatetime(JANUARY.tzinfo) == utc("2026-02-01")


async def test_periods_are_those_that_are_invoiced(world: World, api: Api) -> None:
    asked = (await examples(world))["ListBillingPeriods"]
    plan = await world.plans.create_plan(world.tenant, pro_plan(metrics=[]))
    world.clock.time = utc("2026-02-10T12:07")
    await api.call("ChangeSubscription", plan_id=plan.id, **asked)
    starts = [utc(day) for day in ("2026-02-01", "2026-02-10T12:00", "2026-03-01", "2026-04-01")]

    async def told(**times: Any) -> list[tuple[datetime, datetime]]:
        found = await api.call("ListBillingPeriods", "ours-read", **asked, **times)
        return [
            (each.start_time.ToDatetime(UTC), each.end_time.ToDatetime(UTC))
            for each in found.periods
        ]

    abutting = list(itertools.pairwise(starts))
    assert await told(**{"from": utc("2026-02-02"), "to": utc("2026-03-02")}) == abutting
    assert await told() == abutting[1:2]
    assert await told(**{"from": utc("2025-01-01"), "to": JANUARY}) == []
    for times in (
        {"from": utc("2026-02-02"), "to": JANUARY},
        {"from": utc("1999-12-31")},
        {"from": utc("9999-12-31T23:59")},
    ):
        with pytest.raises(InvalidArgumentError, match="from"):
            await told(**times)


async def test_previews_and_lists_take_the_scope_read_and_all_else_admin(
    world: World, api: Api
) -> None:
    await api.refuse_who_lacks_scopes(await examples(world), READS)


@pytest.mark.parametrize("key", ["theirs-admin", "ours-admin-live"])
async def test_no_method_shows_or_changes_what_is_another_tenants(
    world: World, api: Api, key: str
) -> None:
    for name, request in (await examples(world)).items():
        with pytest.raises(NotFoundError):
            await api.call(name, key, **request)
