"""Several changes within a quarter of an hour, and in the first one of a period: to the cent."""

from datetime import timedelta

import pytest

from services.invoicer.domain import Subscription
from services.invoicer.service.simulations import Simulations
from services.invoicer.service.subscription_changes import ChangeInput
from services.invoicer.service.subscriptions import SubscriptionInput
from services.invoicer.simulation_checks import SimulationInput
from services.invoicer.term_checks import DiscountInput
from services.kit.errors import PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, World, utc
from tests.integration.invoicer.test_simulations import run
from tests.integration.invoicer.test_subscription_changes import (
    FEBRUARY,
    JANUARY,
    MARCH,
    big,
    change,
    put,
    settled,
    small,
    started,
    told,
)

FIRST, SECOND, THIRD = (utc(f"2026-01-10T10:{at}") for at in ("02:10", "04:05", "09:00"))
QUARTER = utc("2026-01-10T10:00")
ADVANCE = {"base_price_timing": "IN_ADVANCE", "metrics": []}


async def test_each_change_of_a_quarter_is_billed_from_its_second_on(world: World) -> None:
    subscription = await started(world)
    big_plan = await world.plans.create_plan(world.tenant, big())
    huge = await world.plans.create_plan(world.tenant, big(name="Huge", base_price="2678400"))
    world.at(FIRST)
    await change(world, subscription, plan_id=huge.id)
    world.at(SECOND)
    await change(world, subscription, quantity=2)
    world.at(THIRD)
    asked = ChangeInput(subscription.id, big_plan.id, quantity=1)
    preview = await world.changes.preview_change(world.tenant, asked)
    await change(world, subscription, plan_id=big_plan.id, quantity=1)
    put(world, JANUARY, "100")
    put(world, QUARTER, "100")
    first, second = await settled(world, FEBRUARY + GRACE)
    assert (first.period.end, second.period.start) == (QUARTER, QUARTER)
    # 813,730 s; of 31.00 that leaves 21.58. A second of Huge costs 1.00: 115 s, 2 x 295 s. Of 93.00
    # 1,864,260 s.
    assert told(first) == [
        ("Small: base price, 813,730 of 2,678,400 seconds", "9.42"),
        ("API_CALL: 100, 100 x 0.01", "1.00"),
    ]
    assert told(second) == [
        ("Huge: base price, 115 of 2,678,400 seconds", "115.00"),
        ("Huge: base price, 295 of 2,678,400 seconds, 2 x 2678400.00", "590.00"),
        ("Big: base price, 1,864,260 of 2,678,400 seconds", "64.73"),
        ("API_CALL: 100, 100 x 0.02", "2.00"),
    ]
    assert [line.period.start for line in second.lines[:3]] == [FIRST, SECOND, THIRD]
    assert [draft.lines[:3] for draft in preview.invoices][1] == second.lines[:3]


async def test_a_change_that_is_undone_in_its_quarter_leaves_one_invoice(world: World) -> None:
    subscription = await started(world)
    huge = await world.plans.create_plan(world.tenant, big(name="Huge", base_price="2678400"))
    world.at(FIRST)
    await change(world, subscription, plan_id=huge.id)
    world.at(THIRD)
    await change(world, subscription, plan_id=subscription.plan_id)
    put(world, JANUARY, "100")
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    # 31.00 less 410 s of it, by what is left at 10:02:10 and at 10:09:00.
    assert told(invoice) == [
        ("Small: base price, 813,730 of 2,678,400 seconds", "9.42"),
        ("Huge: base price, 410 of 2,678,400 seconds", "410.00"),
        ("Small: base price, 1,864,260 of 2,678,400 seconds", "21.58"),
        ("API_CALL: 100, 100 x 0.01", "1.00"),
    ]


@pytest.mark.parametrize("when", ["2026-02-01T00:05:07", "2026-02-01T00:05:07.999"])
async def test_a_change_in_the_first_quarter_of_a_period_leaves_seconds_of_the_plan_before(
    world: World, when: str
) -> None:
    subscription = await started(world, small(metrics=[], base_price="2419200"))
    other = await world.plans.create_plan(world.tenant, big(metrics=[]))
    world.at(utc(when))
    await change(world, subscription, plan_id=other.id)
    january, february = await settled(world, MARCH + GRACE)
    # In February, of 2,419,200 s, each costs 1.00; in January all of it.
    assert told(january) == [("Small: base price", "2419200.00")]
    assert told(february) == [
        ("Small: base price, 307 of 2,419,200 seconds", "307.00"),
        ("Big: base price, 2,418,893 of 2,419,200 seconds", "92.99"),
    ]


async def test_what_was_paid_in_advance_for_those_seconds_is_kept(world: World) -> None:
    subscription = await started(world, small(base_price="2419200", **ADVANCE))
    other = await world.plans.create_plan(world.tenant, big(**ADVANCE))
    # January's invoice has charged February.
    await settled(world, FEBRUARY + timedelta(hours=1))
    world.at(FEBRUARY + timedelta(hours=1, minutes=5))
    before = await world.all_invoices()
    assert told(before[-1]) == [
        ("Small: base price, 2026-02-01 to 2026-03-01 in advance", "2419200.00")
    ]
    await change(world, subscription, plan_id=other.id)
    *_, cut = await settled(world, FEBRUARY + timedelta(hours=3))
    # 3,900 s are used.
    assert told(cut) == [
        ("Small: base price not used, 2026-02-01 to 2026-03-01", "-2415300.00"),
        (
            "Big: base price, 2,415,300 of 2,419,200 seconds, 2026-02-01 to 2026-03-01 in advance",
            "92.85",
        ),
        ("Credit carried to the next invoice", "2415207.15"),
    ]


async def test_seconds_of_a_plan_have_its_minimum_and_its_amounts_off(world: World) -> None:
    subscription = await started(world, small(metrics=[]))
    least = big(name="Least", base_price="0", metrics=[], minimum="2678400")
    off = [DiscountInput("Off", amount="1339200")]
    half = big(name="Half", base_price="2678400", metrics=[], discounts=off)
    plans = [await world.plans.create_plan(world.tenant, each) for each in (least, half)]
    for second, plan_id in ((FIRST, plans[0].id), (SECOND, plans[1].id), (THIRD, "")):
        world.at(second)
        await change(world, subscription, plan_id=plan_id or subscription.plan_id)
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    # 115 s and 295 s.
    assert told(invoice) == [
        ("Small: base price, 813,730 of 2,678,400 seconds", "9.42"),
        ("Half: base price, 295 of 2,678,400 seconds", "295.00"),
        ("Small: base price, 1,864,260 of 2,678,400 seconds", "21.58"),
        ("At least 115.00 a period", "115.00"),
        ("Discount", "-147.50"),
    ]
    assert [line.period.start for line in invoice.lines[3:]] == [FIRST, SECOND]


async def test_a_pause_that_is_over_in_its_quarter_takes_its_seconds(world: World) -> None:
    subscription = await started(world, small(base_price="2678400"))
    world.at(FIRST)
    await world.subscriptions.pause_subscription(world.tenant, subscription.id)
    world.at(THIRD)
    await world.subscriptions.resume_subscription(world.tenant, subscription.id)
    put(world, JANUARY, "100")
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    assert [str(line.amount) for line in invoice.lines] == ["813730.00", "1864260.00", "1.00"]


async def begun(world: World, anchor: str, **more: str) -> Subscription:
    world.at(FIRST)
    plan = await world.plans.create_plan(world.tenant, big(metrics=[], **more))
    given = SubscriptionInput("user_123", plan.id, None, anchor)
    subscription, _ = await world.subscriptions.create_subscription(world.tenant, given)
    return subscription


async def test_the_first_period_of_an_anniversary_is_a_whole_one_from_its_second_on(
    world: World,
) -> None:
    subscription = await begun(world, "ANNIVERSARY")
    assert (subscription.start_time, subscription.priced_at(FIRST).priced_from) == (QUARTER, FIRST)
    first, second = await settled(world, utc("2026-03-10T10:00") + GRACE)
    assert told(first) == told(second) == [("Big: base price", "93.00")]
    assert first.lines[0].period.start == FIRST
    assert second.lines[0].period.start == utc("2026-02-10T10:00")


async def test_periods_of_another_length_begin_anew_with_their_second(world: World) -> None:
    """1,000 s of the month before are billed, and then a whole year."""
    subscription = await begun(world, "ANNIVERSARY", base_price="2678270")
    yearly = await world.plans.create_plan(
        world.tenant, big(name="Year", base_price="365", billing_period="YEARLY", metrics=[])
    )
    world.at(FIRST + timedelta(seconds=300))
    await change(world, subscription, plan_id=yearly.id)
    (invoice,) = await settled(world, utc("2027-01-10T10:00") + GRACE)
    assert told(invoice) == [
        ("Big: base price, 300 of 2,678,270 seconds", "300.00"),
        ("Year: base price", "365.00"),
    ]


async def test_a_simulation_comes_to_what_was_invoiced(world: World) -> None:
    """Of seats that were changed in one quarter, and in the first one of a month."""
    plan = small(metrics=[], base_price="2678400")
    subscription = await started(world, plan)
    for second, seats in ((FIRST, 2), (SECOND, 3), (THIRD, 1), (FEBRUARY + (THIRD - QUARTER), 2)):
        world.at(second)
        await change(world, subscription, quantity=seats)
    invoices = await settled(world, MARCH + GRACE)
    simulations = Simulations(world.database, world.usage, world.clock, world.metrics)
    costs, _ = await run(simulations, world, SimulationInput(plan, "2026-01", "2026-02"))
    amount = sum(each.amount for each in invoices)
    assert (costs["user_123"].old_amount, costs["user_123"].new_amount) == (amount, amount)


async def test_what_has_ended_by_its_second_is_not_changed_any_more(world: World) -> None:
    subscription = await started(world)
    world.at(FIRST)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id, "NOW")
    world.at(SECOND)
    with pytest.raises(PreconditionError, match="ends before that"):
        await change(world, subscription, quantity=2)
    with pytest.raises(PreconditionError, match="ends before that"):
        await world.subscriptions.pause_subscription(world.tenant, subscription.id)
    # It may go on as if it had not been cancelled.
    await world.subscriptions.uncancel_subscription(world.tenant, subscription.id)
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    assert str(invoice.amount) == "31.00"


async def test_one_that_ends_in_this_quarter_anyway_can_be_ended_at_this_second(
    world: World,
) -> None:
    subscription = await started(world, small(metrics=[], base_price="2678400"))
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    world.at(FEBRUARY - timedelta(seconds=100))
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id, "NOW")
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    assert str(invoice.amount) == "2678300.00"


async def test_changes_within_a_quarter_count_among_those_that_there_may_be(world: World) -> None:
    subscription = await started(world)
    other = await world.plans.create_plan(world.tenant, big())
    ids = (other.id, subscription.plan_id)
    with pytest.raises(PreconditionError, match="At most 40 changes of plan") as caught:
        for number in range(50):
            world.at(QUARTER + timedelta(seconds=number))
            await change(world, subscription, plan_id=ids[number % 2])
    assert (caught.value.reason, number) == ("too_many_changes", 40)
