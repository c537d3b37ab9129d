"""What organizations decide for themselves, and cancellations that are withdrawn."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.changes import Timing
from services.invoicer.domain import SubscriptionStatus
from services.invoicer.phases import PhaseKind
from services.invoicer.service.billing_settings import SettingsInput
from services.invoicer.service.subscriptions import SubscriptionInput
from services.kit.errors import InvalidArgumentError, PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
MINUTE = timedelta(minutes=1)


async def test_each_organization_waits_for_late_events_as_long_as_it_wants(world: World) -> None:
    patient, hasty = new_tenant(), new_tenant()
    for tenant in (world.tenant, patient, hasty):
        await world.subscribe(start=JANUARY, tenant=tenant)
    await world.settings.update_settings(patient, SettingsInput(3 * 3600), by_key="")
    await world.settings.update_settings(hasty, SettingsInput(0), by_key="")
    closed = []
    for waited in (timedelta(0), GRACE - MINUTE, GRACE, 3 * GRACE - MINUTE, 3 * GRACE):
        world.at(FEBRUARY + waited)
        await world.close_all()
        tenants = (world.tenant, patient, hasty)
        closed.append([len(await world.all_invoices(tenant)) for tenant in tenants])
    assert closed == [[0, 0, 1], [0, 0, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1]]


async def test_usage_is_waited_for_until_the_grace_of_the_organization(world: World) -> None:
    await world.settings.update_settings(world.tenant, SettingsInput(2 * 3600), by_key="key_1")
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + 2 * GRACE)
    world.aggregator.as_of = FEBRUARY + GRACE
    assert await world.close_all() == 0
    world.aggregator.as_of = FEBRUARY + 2 * GRACE
    assert await world.close_all() == 1


async def test_a_change_is_told_to_the_audit_log_once(world: World) -> None:
    assert (await world.settings.get_settings(world.tenant)).grace == GRACE
    for _ in range(2):
        change = SettingsInput(60)
        await world.settings.update_settings(world.tenant, change, by_key="key_1")
    (event,) = await world.audited()
    assert (event.action, event.key_id) == ("billing_settings.changed", "key_1")
    assert json.loads(event.details_json) == {
        "before": {"graceSeconds": 3600},
        "after": {"graceSeconds": 60},
    }


@pytest.mark.parametrize("grace_s", [-1, 72 * 3600 + 1])
async def test_a_grace_out_of_bounds_is_refused(world: World, grace_s: int) -> None:
    with pytest.raises(InvalidArgumentError, match="graceSeconds: must be from 0 to 259,200"):
        await world.settings.update_settings(world.tenant, SettingsInput(grace_s), by_key="")
    with pytest.raises(DBAPIError, match="ck_billing_settings_grace"):
        async with world.database.transaction() as connection:
            insert = f"""
                INSERT INTO billing_settings (organization_id, mode, grace, update_time)
                VALUES ('{world.tenant.organization_id}', 'test', '{grace_s} s', now())
            """
            await connection.execute(text(insert))


async def test_a_withdrawn_cancellation_leaves_no_trace_on_invoices(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    for _ in range(2):
        kept = await world.subscriptions.uncancel_subscription(world.tenant, subscription.id)
    assert (kept.status, kept.cancel_time) == (SubscriptionStatus.ACTIVE, None)
    assert kept.phases == subscription.phases
    world.at(MARCH + GRACE)
    await world.close_all()
    assert [each.period.start for each in await world.all_invoices()] == [JANUARY, FEBRUARY]


async def test_a_trial_goes_on_into_what_was_to_follow(world: World) -> None:
    plan = await world.plans.create_plan(world.tenant, pro_plan())
    given = SubscriptionInput("user_123", plan.id, JANUARY, "CALENDAR", trial_days=31)
    subscription, _ = await world.subscriptions.create_subscription(world.tenant, given)
    for timing in (Timing.PERIOD_END, Timing.NOW):
        await world.subscriptions.cancel_subscription(world.tenant, subscription.id, timing)
        kept = await world.subscriptions.uncancel_subscription(world.tenant, subscription.id)
        assert [phase.kind for phase in kept.phases] == [PhaseKind.TRIAL, PhaseKind.BILLED]
        assert [phase.start_time for phase in kept.phases] == [JANUARY, FEBRUARY]
        assert kept.phases[-1].end_time is None


async def test_what_has_ended_stays_ended(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    world.at(FEBRUARY)
    with pytest.raises(PreconditionError, match="has ended"):
        await world.subscriptions.uncancel_subscription(world.tenant, subscription.id)
