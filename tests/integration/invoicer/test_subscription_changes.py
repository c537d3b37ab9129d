"""Changes of plan and quantity: what is billed for each part, to the cent."""

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.checks import MetricPriceInput
from services.invoicer.credit_checks import GrantInput
from services.invoicer.domain import Invoice, Subscription
from services.invoicer.rendering.view import view_of
from services.invoicer.service.paging import Page
from services.invoicer.service.subscription_changes import (
    ChangeInput,
    Migration,
    MigrationInput,
)
from services.invoicer.service.subscriptions import SubscriptionInput
from services.invoicer.term_checks import DiscountInput
from services.kit.errors import InvalidArgumentError, NotFoundError, PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH, APRIL = map(utc, ("2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01"))
ELEVENTH, SIXTEENTH, TWENTY_FIRST = map(utc, ("2026-01-11", "2026-01-16", "2026-01-21"))
WAIT_S = 20
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"})
DEAR_CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.02"})


def small(**changes: Any) -> Any:
    """31.00 a month of 31 days, 0.01 a call."""
    return pro_plan(**{"name": "Small", "base_price": "31", "metrics": [CALLS], **changes})


def big(**changes: Any) -> Any:
    """93.00 a month of 31 days, 0.02 a call."""
    return pro_plan(**{"name": "Big", "base_price": "93", "metrics": [DEAR_CALLS], **changes})


def told(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.description, str(line.amount)) for line in invoice.lines]


async def started(
    world: World, plan: Any = None, quantity: int = 1, customer_id: str = "user_123"
) -> Subscription:
    """On a new plan since 1 January."""
    world.at(JANUARY)
    made = await world.plans.create_plan(world.tenant, plan or small())
    given = SubscriptionInput(customer_id, made.id, JANUARY, "CALENDAR", quantity=quantity)
    subscription, _ = await world.subscriptions.create_subscription(world.tenant, given)
    await world.close_all()
    return subscription


async def settled(world: World, time: datetime) -> list[Invoice]:
    """All invoices once everything is closed that is over by then."""
    world.at(time)
    await world.close_all()
    return await world.all_invoices()


async def change(world: World, subscription: Subscription, **given: Any) -> Subscription:
    return await world.changes.change_subscription(
        world.tenant, ChangeInput(subscription.id, **given)
    )


def put(world: World, start: datetime, calls: str) -> None:
    world.aggregator.put(world.tenant, "user_123", "API_CALL", start, calls)


async def test_another_plan_at_once_cuts_the_period_into_two_invoices(world: World) -> None:
    subscription = await started(world)
    other = await world.plans.create_plan(world.tenant, big())
    world.at(ELEVENTH + timedelta(minutes=4))
    after = await change(world, subscription, plan_id=other.id)
    assert after.phase_at(world.clock.time).plan_id == other.id
    put(world, JANUARY, "100")
    put(world, ELEVENTH, "100")
    first, second = await settled(world, FEBRUARY + GRACE)
    assert told(first) == [
        ("Small: base price, 864,240 of 2,678,400 seconds", "10.00"),
        ("API_CALL: 100, 100 x 0.01", "1.00"),
    ]
    # 93.00 x 1,814,160 s / 2,678,400 s = 62.9916...
    assert told(second) == [
        ("Big: base price, 1,814,160 of 2,678,400 seconds", "62.99"),
        ("API_CALL: 100, 100 x 0.02", "2.00"),
    ]
    assert first.period.end == second.period.start == ELEVENTH
    (_, _, third) = await settled(world, MARCH + GRACE)
    assert str(third.amount) == "93.00"


async def test_late_usage_of_each_part_has_the_price_of_that_part(world: World) -> None:
    subscription = await started(world)
    other = await world.plans.create_plan(world.tenant, big())
    world.at(ELEVENTH)
    await change(world, subscription, plan_id=other.id)
    await settled(world, FEBRUARY + GRACE)
    put(world, JANUARY, "100")
    put(world, ELEVENTH, "100")
    (_, _, third) = await settled(world, MARCH + GRACE)
    assert [str(line.amount) for line in third.lines[2:]] == ["1.00", "2.00"]


async def test_another_plan_at_the_periods_end_leaves_this_one_as_it_is(world: World) -> None:
    subscription = await started(world)
    other = await world.plans.create_plan(world.tenant, big())
    world.at(ELEVENTH)
    planned = await change(world, subscription, plan_id=other.id, timing="PERIOD_END")
    assert [phase.start_time for phase in planned.phases] == [JANUARY, FEBRUARY]
    first, second = await settled(world, MARCH + GRACE)
    assert (str(first.amount), str(second.amount)) == ("31.00", "93.00")


async def test_what_was_paid_in_advance_is_credited_and_the_new_price_charged(
    world: World,
) -> None:
    subscription = await started(world, small(base_price_timing="IN_ADVANCE", metrics=[]))
    other = await world.plans.create_plan(
        world.tenant, big(base_price_timing="IN_ADVANCE", metrics=[])
    )
    world.at(ELEVENTH)
    await change(world, subscription, plan_id=other.id)
    opening, cut = await settled(world, ELEVENTH + GRACE)
    assert str(opening.amount) == "31.00"
    assert told(cut) == [
        ("Small: base price not used, 2026-01-11 to 2026-02-01", "-21.00"),
        ("Big: base price, 21 of 31 days, 2026-01-11 to 2026-02-01 in advance", "63.00"),
    ]
    (_, _, third) = await settled(world, FEBRUARY + GRACE)
    assert told(third) == [("Big: base price, 2026-02-01 to 2026-03-01 in advance", "93.00")]


@pytest.mark.parametrize(
    ("before", "after", "amounts"),
    [
        ("IN_ADVANCE", "IN_ARREARS", ["31.00", "0.00", "42.00", "93.00"]),
        ("IN_ARREARS", "IN_ADVANCE", ["73.00", "93.00", "93.00"]),
    ],
)
async def test_a_base_price_may_be_due_at_another_time_after_the_change(
    world: World, before: str, after: str, amounts: list[str]
) -> None:
    subscription = await started(world, small(base_price_timing=before, metrics=[]))
    other = await world.plans.create_plan(world.tenant, big(base_price_timing=after, metrics=[]))
    world.at(ELEVENTH)
    await change(world, subscription, plan_id=other.id)
    # 31 - 21 + 63, and February; of one in advance March too.
    found = await settled(world, MARCH + GRACE)
    assert [str(invoice.amount) for invoice in found] == amounts


async def test_seats_added_and_taken_away_share_the_base_price_and_leave_usage_whole(
    world: World,
) -> None:
    subscription = await started(world, quantity=2)
    world.at(ELEVENTH)
    await change(world, subscription, quantity=5)
    world.at(TWENTY_FIRST)
    await change(world, subscription, quantity=3)
    put(world, JANUARY, "100")
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    assert told(invoice) == [
        ("Small: base price, 10 of 31 days, 2 x 31.00", "20.00"),
        ("Small: base price, 10 of 31 days, 5 x 31.00", "50.00"),
        ("Small: base price, 11 of 31 days, 3 x 31.00", "33.00"),
        ("API_CALL: 100, 100 x 0.01", "1.00"),
    ]


async def test_seats_paid_in_advance_are_settled_with_the_next_invoice(world: World) -> None:
    plan = small(base_price_timing="IN_ADVANCE", metrics=[])
    subscription = await started(world, plan, quantity=2)
    world.at(ELEVENTH)
    await change(world, subscription, quantity=5)
    _, second = await settled(world, FEBRUARY + GRACE)
    assert [str(line.amount) for line in second.lines] == ["-42.00", "105.00", "155.00"]


async def test_a_change_that_is_called_off_before_it_begins_leaves_nothing(world: World) -> None:
    subscription = await started(world)
    other = await world.plans.create_plan(world.tenant, big())
    await change(world, subscription, plan_id=other.id, quantity=9, timing="PERIOD_END")
    back = await change(
        world, subscription, plan_id=subscription.plan_id, quantity=1, timing="PERIOD_END"
    )
    assert [(p.start_time, p.end_time) for p in back.phases] == [(JANUARY, None)]
    assert await change(world, subscription, quantity=1) == back


async def test_a_part_counts_with_its_period_for_discounts(world: World) -> None:
    off = [DiscountInput("Ten", amount="10", periods=1)]
    subscription = await started(world, small(metrics=[], base_price="62"))
    await world.discounts.create_discount(
        world.tenant, subscription.id, DiscountInput("Half", percent="50", periods=1)
    )
    other = await world.plans.create_plan(
        world.tenant, big(metrics=[], base_price="124", discounts=off)
    )
    world.at(SIXTEENTH)
    await change(world, subscription, plan_id=other.id)
    first, second, third = await settled(world, MARCH + GRACE)
    # 62 x 15 / 31 / 2; 124 x 16 / 31 / 2 less 10 x 16 / 31; both are over in February.
    assert [str(each.amount) for each in (first, second, third)] == ["15.00", "26.84", "124.00"]


async def test_a_minimum_is_shared_and_included_units_are_whole_in_each_part(
    world: World,
) -> None:
    calls = MetricPriceInput("API_CALL", "PER_UNIT", "100", {"unitPrice": "1"})
    subscription = await started(world, small(base_price="", metrics=[calls], minimum="310"))
    other = await world.plans.create_plan(
        world.tenant, small(base_price="", metrics=[calls], minimum="310")
    )
    world.at(ELEVENTH)
    await change(world, subscription, plan_id=other.id)
    put(world, JANUARY, "90")
    put(world, ELEVENTH, "400")
    first, second = await settled(world, FEBRUARY + GRACE)
    assert (str(first.amount), str(second.amount)) == ("100.00", "300.00")
    assert told(first)[-1] == ("At least 100.00 a period", "100.00")


async def test_periods_of_another_length_begin_with_the_calendars(world: World) -> None:
    subscription = await started(world, small(metrics=[]))
    yearly = await world.plans.create_plan(
        world.tenant, small(metrics=[], base_price="365", billing_period="YEARLY")
    )
    world.at(ELEVENTH)
    await change(world, subscription, plan_id=yearly.id)
    first, second = await settled(world, utc("2027-01-01") + GRACE)
    assert (str(first.amount), str(second.amount)) == ("10.00", "355.00")


async def test_a_plan_changed_in_a_trial_is_the_one_after_it(world: World) -> None:
    world.at(JANUARY)
    plan = await world.plans.create_plan(world.tenant, small())
    given = SubscriptionInput("user_123", plan.id, JANUARY, "CALENDAR", trial_days=15)
    subscription, _ = await world.subscriptions.create_subscription(world.tenant, given)
    other = await world.plans.create_plan(world.tenant, big())
    await change(world, subscription, plan_id=other.id)
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    assert told(invoice)[0] == ("Big: base price, 16 of 31 days", "48.00")


async def test_one_that_has_not_begun_is_opened_with_what_it_begins_with(world: World) -> None:
    subscription = await world.subscribe(start=FEBRUARY, plan=small(metrics=[]))
    other = await world.plans.create_plan(
        world.tenant, big(metrics=[], base_price_timing="IN_ADVANCE", setup_fee="7")
    )
    await change(world, subscription, plan_id=other.id)
    (opening,) = await settled(world, FEBRUARY)
    assert str(opening.amount) == "100.00"


async def test_a_void_invoice_in_advance_neither_is_charged_again_nor_credited(
    world: World,
) -> None:
    plan = small(base_price_timing="IN_ADVANCE", metrics=[])
    subscription = await started(world, plan)
    (opening,) = await world.all_invoices()
    await world.invoices.void_invoice(world.tenant, opening.id)
    world.at(ELEVENTH)
    await change(world, subscription, quantity=2)
    _, second = await settled(world, FEBRUARY + GRACE)
    # 2 x 21.00 from the change on, and 2 x 31.00 for February.
    assert [str(line.amount) for line in second.lines] == ["42.00", "62.00"]


async def test_a_preview_shows_what_the_invoices_will_be(world: World) -> None:
    subscription = await started(world, small(base_price_timing="IN_ADVANCE"))
    other = await world.plans.create_plan(world.tenant, big(base_price_timing="IN_ADVANCE"))
    world.at(ELEVENTH)
    put(world, JANUARY, "100")
    credit = GrantInput(subscription.customer_id, "20", "USD")
    await world.credits.grant_credits(world.tenant, credit)
    given = ChangeInput(subscription.id, plan_id=other.id)
    shown = await world.changes.preview_change(world.tenant, given)
    assert shown.subscription.phase_at(ELEVENTH).plan_id == other.id
    unchanged = await world.subscriptions.get_subscription(world.tenant, subscription.id)
    assert [phase.plan_id for phase in unchanged.phases] == [subscription.plan_id]
    await world.changes.change_subscription(world.tenant, given)
    _, first, second = await settled(world, FEBRUARY + GRACE)
    assert [draft.lines for draft in shown.invoices] == [first.lines, second.lines]
    assert list(shown.credits_applied) == [first.credits_applied, second.credits_applied]
    assert sum(shown.credits_applied) == 20


async def test_changes_that_can_not_be_are_refused(world: World) -> None:
    subscription = await started(world)
    euros = await world.plans.create_plan(world.tenant, small(currency="EUR"))
    theirs = await world.plans.create_plan(new_tenant(), small())
    for given, message in (
        ({}, "planId: give planId, planVersion or quantity"),
        ({"plan_id": "x"}, "planId: there is no such plan"),
        ({"plan_id": theirs.id}, "planId: there is no such plan"),
        ({"plan_version": 2}, "planVersion: there is no such plan, or version"),
        ({"plan_id": euros.id}, "planId: must be in USD"),
        ({"quantity": -1}, "quantity: must be a whole number"),
        ({"quantity": 2, "timing": "X"}, "at: must be one of"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            await change(world, subscription, **given)
    with pytest.raises(NotFoundError):
        await world.changes.change_subscription(
            new_tenant(), ChangeInput(subscription.id, quantity=2)
        )
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    with pytest.raises(PreconditionError, match="ends before that"):
        await change(world, subscription, quantity=2, timing="PERIOD_END")
    world.at(APRIL)
    with pytest.raises(PreconditionError, match="has ended"):
        await change(world, subscription, quantity=2)


async def test_a_change_while_a_period_is_closed_is_not_overlooked(world: World) -> None:
    """What was computed before the change is not written; it is computed anew."""
    plan = small(base_price_timing="IN_ADVANCE")
    subscription = await started(world, plan)
    world.at(FEBRUARY + GRACE)
    world.aggregator.answering.clear()
    world.aggregator.asked.clear()
    closing = asyncio.create_task(world.closer.close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), WAIT_S)
    await change(world, subscription, quantity=2)
    world.aggregator.answering.set()
    assert await closing == 0
    assert await world.close_all() == 1
    (_, second) = await world.all_invoices()
    # Of February an hour for one, the rest for two.
    assert [str(line.amount) for line in second.lines] == ["0.05", "61.91", "0.00"]


async def test_changes_at_once_from_everywhere_leave_one_line_of_phases(world: World) -> None:
    subscription = await started(world)
    other = await world.plans.create_plan(world.tenant, big())
    world.at(ELEVENTH)
    await asyncio.gather(
        *(change(world, subscription, quantity=number) for number in range(2, 8)),
        *(change(world, subscription, plan_id=other.id) for _ in range(3)),
        world.subscriptions.pause_subscription(world.tenant, subscription.id, "PERIOD_END"),
        world.subscriptions.resume_subscription(world.tenant, subscription.id),
        world.subscriptions.cancel_subscription(world.tenant, subscription.id),
        return_exceptions=True,
    )
    after = await world.subscriptions.get_subscription(world.tenant, subscription.id)
    assert after.phases[0].start_time == JANUARY
    assert after.phases[-1].end_time == after.cancel_time
    assert all(one.end_time == next_.start_time for one, next_ in pairwise(after.phases))
    found = await settled(world, APRIL)
    assert [each.period.start for each in found] == [JANUARY, ELEVENTH]


async def migrate(world: World, plan_id: str, **given: Any) -> list[Migration]:
    """All pages, of two each."""
    done: list[Migration] = []
    token = ""
    while True:
        _, page, token = await world.changes.migrate_subscriptions(
            world.tenant, MigrationInput(plan_id, **given), Page(2, token)
        )
        done += page
        if not token:
            return done


async def test_subscriptions_are_moved_to_a_newer_version_after_a_dry_run(world: World) -> None:
    first = await started(world, customer_id="one")
    plan_id = first.plan_id
    others = []
    for customer_id in ("two", "three", "four", "five"):
        given = SubscriptionInput(customer_id, plan_id, JANUARY, "CALENDAR")
        made, _ = await world.subscriptions.create_subscription(world.tenant, given)
        others.append(made)
    await world.subscriptions.cancel_subscription(world.tenant, others[3].id)
    await world.plans.create_plan_version(world.tenant, plan_id, small(base_price="62"))
    elsewhere = await world.subscribe("six", start=JANUARY, plan=small())
    dry = await migrate(world, plan_id, dry_run=True)
    assert [each.subscription_id for each in dry] == [each.id for each in (first, *others[:3])]
    assert {(each.from_version, each.time, each.problem) for each in dry} == {(1, FEBRUARY, "")}
    assert await migrate(world, plan_id, dry_run=True) == dry
    assert await migrate(world, plan_id) == dry
    assert await migrate(world, plan_id) == []
    amounts = {
        (invoice.customer_id, invoice.period.start): str(invoice.amount)
        for invoice in await settled(world, MARCH + GRACE)
    }
    assert amounts["one", JANUARY] == "31.00"
    assert amounts["four", FEBRUARY] == "62.00"
    assert amounts[elsewhere.customer_id, FEBRUARY] == "31.00"
    assert ("five", FEBRUARY) not in amounts


async def test_what_can_not_be_moved_is_told_and_the_others_are(world: World) -> None:
    subscription = await started(world)
    plan_id = subscription.plan_id
    await world.plans.create_plan_version(world.tenant, plan_id, small(currency="EUR"))
    (refused,) = await migrate(world, plan_id)
    assert "must be in USD" in refused.problem
    with pytest.raises(NotFoundError):
        await migrate(world, plan_id, to_version=3)
    with pytest.raises(NotFoundError):
        await world.changes.migrate_subscriptions(new_tenant(), MigrationInput(plan_id), Page())


async def test_a_migration_does_not_give_a_plans_first_periods_again(world: World) -> None:
    plan = small(metrics=[], discounts=[DiscountInput(percent="100", periods=1)])
    subscription = await started(world, plan)
    await world.plans.create_plan_version(world.tenant, subscription.plan_id, plan)
    await migrate(world, subscription.plan_id)
    first, second = await settled(world, MARCH + GRACE)
    assert (str(first.amount), str(second.amount)) == ("0.00", "31.00")


SECOND = utc("2026-01-10T10:07:31")


async def test_an_upgrade_is_billed_by_time_from_its_second_on(world: World) -> None:
    subscription = await started(world, small(base_price_timing="IN_ADVANCE", metrics=[]))
    other = await world.plans.create_plan(
        world.tenant, big(base_price_timing="IN_ADVANCE", metrics=[])
    )
    world.at(SECOND)
    asked = ChangeInput(subscription.id, other.id)
    preview = await world.changes.preview_change(world.tenant, asked)
    await change(world, subscription, plan_id=other.id)
    _, cut = await settled(world, SECOND + GRACE)
    # 31.00 x 1,864,349 s / 2,678,400 s = 21.5781..., 93.00 x the same = 64.7344...
    assert told(cut) == [
        ("Small: base price not used, 2026-01-10 to 2026-02-01", "-21.58"),
        (
            "Big: base price, 1,864,349 of 2,678,400 seconds, 2026-01-10 to 2026-02-01 in advance",
            "64.73",
        ),
    ]
    assert cut.lines[1].period.start == SECOND
    assert cut.lines[1].steps[0] == (
        "from 2026-01-10 10:07:31 to 2026-02-01 00:00:00 (UTC), "
        "of the period from 2026-01-01 00:00:00 to 2026-02-01 00:00:00"
    )
    assert preview.invoices[0].lines == cut.lines


async def test_seats_are_billed_from_their_second_on(world: World) -> None:
    subscription = await started(world, small(metrics=[]))
    world.at(SECOND)
    await change(world, subscription, quantity=3)
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    # 31.00 less its rest of 21.58, and 3 x 31.00 x 1,864,349 s / 2,678,400 s.
    assert [str(line.amount) for line in invoice.lines] == ["9.42", "64.73"]
    assert [line.period.start for line in invoice.lines] == [JANUARY, SECOND]
    customer = await world.customers.get_customer(world.tenant, "user_123")
    assert [line.period for line in view_of(invoice, customer).lines] == [
        "2026-01-01 00:00:00 to 2026-01-10 10:07:31",
        "2026-01-10 10:07:31 to 2026-02-01 00:00:00",
    ]


async def test_without_a_start_it_is_billed_by_time_from_now_on(world: World) -> None:
    world.at(SECOND)
    plan = await world.plans.create_plan(world.tenant, big(metrics=[]))
    given = SubscriptionInput("user_123", plan.id, None, "CALENDAR")
    subscription, _ = await world.subscriptions.create_subscription(world.tenant, given)
    assert subscription.start_time == utc("2026-01-10T10:00")
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    assert str(invoice.amount) == "64.73"


async def test_minimums_and_amounts_off_have_the_share_of_the_seconds(world: World) -> None:
    metric = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"}, minimum="93")
    off = [DiscountInput(amount="31")]
    subscription = await started(
        world, small(base_price="0", metrics=[metric], discounts=off, minimum="310")
    )
    other = await world.plans.create_plan(world.tenant, big())
    world.at(SECOND)
    await change(world, subscription, plan_id=other.id)
    first, *_ = await settled(world, FEBRUARY + GRACE)
    # Of 93.00, 31.00 and 310.00 is left 64.73, 21.58 and 215.78 (1,864,349 s / 2,678,400 s).
    assert [str(line.amount) for line in first.lines] == ["0.00", "28.27", "-9.42", "75.37"]


async def test_what_is_invoiced_to_the_second_stays_so_in_the_database(world: World) -> None:
    subscription = await started(world)
    other = await world.plans.create_plan(world.tenant, big())
    world.at(SECOND)
    await change(world, subscription, plan_id=other.id)
    await settled(world, SECOND + GRACE)
    moved = (
        "UPDATE subscription_phases SET exact_end_time = '2026-01-10T10:07Z' "
        "WHERE end_time = '2026-01-10T10:00Z'"
    )
    async with world.database.transaction() as connection:
        with pytest.raises(DBAPIError, match="what is invoiced keeps its phases"):
            await connection.execute(text(moved))
