"""Trials, pauses and ends in the middle of a period: what is billed, and that nothing else is."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.checks import MetricPriceInput
from services.invoicer.domain import Invoice, InvoiceKind, Subscription, SubscriptionStatus
from services.invoicer.phases import PhaseKind
from services.invoicer.service.subscriptions import SubscriptionInput
from services.kit.errors import InvalidArgumentError, PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, LATE_QUIET, World, pro_plan, utc

JANUARY, FEBRUARY, MARCH, APRIL = map(utc, ("2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01"))
# 31 days before February.
TENTH, SIXTEENTH, SEVENTEENTH = map(utc, ("2026-01-10", "2026-01-16", "2026-01-17"))
QUARTER = timedelta(minutes=15)
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"})
ARREARS = pro_plan(base_price="31", metrics=[CALLS])
ADVANCE = pro_plan(base_price="31", metrics=[CALLS], base_price_timing="IN_ADVANCE")


def told(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.description, str(line.amount)) for line in invoice.lines]


async def on_trial(world: World, plan: object = ARREARS, **trial: object) -> Subscription:
    made = await world.plans.create_plan(world.tenant, plan)  # type: ignore[arg-type]
    given = SubscriptionInput("user_123", made.id, JANUARY, "CALENDAR", **trial)  # type: ignore[arg-type]
    subscription, _ = await world.subscriptions.create_subscription(world.tenant, given)
    return subscription


async def settled(world: World, time: object) -> list[Invoice]:
    """All invoices once everything is closed that is over by then."""
    world.at(time)  # type: ignore[arg-type]
    await world.close_all()
    return await world.all_invoices()


async def test_nothing_is_billed_in_a_trial_and_periods_begin_after_it(world: World) -> None:
    world.at(JANUARY)
    subscription = await on_trial(world, trial_days=15)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "900")
    world.aggregator.put(world.tenant, "user_123", "API_CALL", SIXTEENTH, "100")
    assert [(p.kind, p.start_time) for p in subscription.phases] == [
        (PhaseKind.TRIAL, JANUARY),
        (PhaseKind.BILLED, SIXTEENTH),
    ]
    assert await settled(world, SIXTEENTH + GRACE) == []
    (invoice,) = await settled(world, FEBRUARY + GRACE)
    assert told(invoice) == [
        ("Pro: base price, 16 of 31 days", "16.00"),
        ("API_CALL: 100, 100 x 0.01", "1.00"),
    ]
    # What was used in the trial is not found to be late.
    assert [line.metric for line in (await settled(world, MARCH + GRACE))[1].lines] == [
        "",
        "API_CALL",
    ]


async def test_setup_fee_and_base_price_in_advance_are_due_when_the_trial_has_ended(
    world: World,
) -> None:
    world.at(JANUARY)
    plan = pro_plan(base_price="31", metrics=[], base_price_timing="IN_ADVANCE", setup_fee="5")
    await on_trial(world, plan, trial_end_time=SIXTEENTH)
    assert await settled(world, SIXTEENTH - timedelta(seconds=1)) == []
    (opening,) = await settled(world, SIXTEENTH)
    assert told(opening) == [
        ("Pro: setup fee, once", "5.00"),
        ("Pro: base price, 16 of 31 days, 2026-01-16 to 2026-02-01 in advance", "16.00"),
    ]


async def test_an_anniversary_is_that_of_the_trials_end(world: World) -> None:
    world.at(JANUARY)
    made = await world.plans.create_plan(world.tenant, ARREARS)
    given = SubscriptionInput("user_123", made.id, JANUARY, "ANNIVERSARY", trial_days=15)
    await world.subscriptions.create_subscription(world.tenant, given)
    (invoice,) = await settled(world, utc("2026-02-16") + GRACE)
    assert (invoice.period.start, invoice.period.end) == (SIXTEENTH, utc("2026-02-16"))
    assert str(invoice.amount) == "31.00"


async def test_discounts_of_the_first_periods_count_from_the_trials_end(world: World) -> None:
    from services.invoicer.term_checks import DiscountInput

    world.at(JANUARY)
    plan = pro_plan(base_price="31", metrics=[], discounts=[DiscountInput(percent="50", periods=1)])
    await on_trial(world, plan, trial_end_time=FEBRUARY)
    found = await settled(world, APRIL + GRACE)
    assert [str(invoice.amount) for invoice in found] == ["15.50", "31.00"]


async def test_one_that_is_cancelled_in_its_trial_is_never_billed(world: World) -> None:
    world.at(JANUARY)
    subscription = await on_trial(world, ADVANCE, trial_days=15)
    ended = await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    assert ended.cancel_time == SIXTEENTH
    assert await settled(world, APRIL) == []


async def test_a_pause_cuts_the_period_and_nothing_of_it_is_billed(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    world.at(TENTH)
    paused = await world.subscriptions.pause_subscription(world.tenant, subscription.id)
    # Usage of the running quarter of an hour is billed.
    assert paused.status_at(TENTH + QUARTER) is SubscriptionStatus.PAUSED
    world.at(SIXTEENTH)
    resumed = await world.subscriptions.resume_subscription(world.tenant, subscription.id)
    assert resumed.status_at(SIXTEENTH) is SubscriptionStatus.ACTIVE
    for start, calls in ((JANUARY, "100"), (TENTH + QUARTER, "5000"), (SIXTEENTH, "200")):
        world.aggregator.put(world.tenant, "user_123", "API_CALL", start, calls)
    first, second = await settled(world, FEBRUARY + GRACE)
    assert told(first) == [
        ("Pro: base price, 9 of 31 days", "9.00"),
        ("API_CALL: 100, 100 x 0.01", "1.00"),
    ]
    assert told(second) == [
        ("Pro: base price, 16 of 31 days", "16.00"),
        ("API_CALL: 200, 200 x 0.01", "2.00"),
    ]


async def test_what_was_paid_in_advance_is_credited_by_a_pause_and_due_again_after_it(
    world: World,
) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ADVANCE)
    await world.close_all()
    world.at(TENTH)
    await world.subscriptions.pause_subscription(
        world.tenant, subscription.id, resume_time=SIXTEENTH
    )
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "100")
    _, before, after = await settled(world, SIXTEENTH)
    # 31.00 x 22 of 31 days are not used, of which 1.00 is taken off at once.
    assert told(before) == [
        ("Pro: base price not used, 2026-01-10 to 2026-02-01", "-22.00"),
        ("API_CALL: 100, 100 x 0.01", "1.00"),
        ("Credit carried to the next invoice", "21.00"),
    ]
    assert after.lines[0].amount == 16
    assert told(after)[1:] == [("Credit carried from earlier invoices", "-16.00")]
    (*_, third) = await settled(world, FEBRUARY + GRACE)
    assert told(third) == [
        ("Pro: base price, 2026-02-01 to 2026-03-01 in advance", "31.00"),
        ("API_CALL: 0, 0 x 0.01", "0.00"),
        ("Credit carried from earlier invoices", "-5.00"),
    ]


async def test_a_long_pause_has_no_invoices_and_can_be_called_off(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    await world.subscriptions.pause_subscription(world.tenant, subscription.id, "PERIOD_END")
    assert len(await settled(world, utc("2026-06-10"))) == 1
    await world.subscriptions.resume_subscription(world.tenant, subscription.id)
    (_, invoice) = await settled(world, utc("2026-07-01") + GRACE)
    # 31.00 x 21 of 30 days
    assert (invoice.period.start, str(invoice.amount)) == (utc("2026-06-10"), "21.70")
    await world.subscriptions.pause_subscription(world.tenant, subscription.id, "PERIOD_END")
    off = await world.subscriptions.resume_subscription(world.tenant, subscription.id)
    assert off.phases[-1].kind is PhaseKind.BILLED
    assert len(await settled(world, utc("2026-09-01") + GRACE)) == 4


async def test_cancelled_now_it_ends_with_the_quarter_of_an_hour_and_is_invoiced(
    world: World,
) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    world.at(SEVENTEENTH - timedelta(minutes=3))
    ended = await world.subscriptions.cancel_subscription(world.tenant, subscription.id, "NOW")
    assert (ended.status, ended.cancel_time) == (SubscriptionStatus.CANCELLED, SEVENTEENTH)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "100")
    assert await settled(world, SEVENTEENTH) == []
    (invoice,) = await settled(world, SEVENTEENTH + GRACE)
    assert (invoice.period.end, str(invoice.amount)) == (SEVENTEENTH, "17.00")
    assert len(await settled(world, APRIL)) == 1


async def test_cancelling_now_credits_what_was_paid_in_advance(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ADVANCE)
    await world.close_all()
    world.at(SEVENTEENTH)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id, "NOW")
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "2000")
    (_, last) = await settled(world, SEVENTEENTH + QUARTER + GRACE)
    assert told(last) == [
        ("Pro: base price not used, 2026-01-17 to 2026-02-01", "-15.00"),
        ("API_CALL: 2,000, 2,000 x 0.01", "20.00"),
    ]


async def test_one_that_is_to_end_later_can_be_ended_now_and_not_the_other_way(
    world: World,
) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    cancel = world.subscriptions.cancel_subscription
    assert (await cancel(world.tenant, subscription.id)).cancel_time == FEBRUARY
    now = await cancel(world.tenant, subscription.id, "NOW")
    assert now.cancel_time == world.clock.time + QUARTER
    assert await cancel(world.tenant, subscription.id) == now
    assert await cancel(world.tenant, subscription.id, "NOW") == now


async def test_usage_that_comes_after_the_last_invoice_is_billed_once_it_is_quiet(
    world: World,
) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    await settled(world, FEBRUARY + GRACE)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "250")
    assert len(await settled(world, FEBRUARY + LATE_QUIET)) == 1
    (_, late) = await settled(world, FEBRUARY + LATE_QUIET + GRACE)
    assert [str(line.amount) for line in late.lines] == ["2.50"]
    assert (late.period.start, late.period.end) == (FEBRUARY, FEBRUARY + LATE_QUIET)
    assert late.lines[0].period.start == JANUARY
    async with world.database.transaction() as connection:
        kinds = await connection.execute(text("SELECT kind FROM invoices ORDER BY id"))
        assert list(kinds.scalars()) == [InvoiceKind.PERIOD, InvoiceKind.LATE]
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "350")
    assert len(await settled(world, utc("2026-08-01"))) == 2


async def test_a_planned_pause_is_told_when_it_begins(world: World) -> None:
    from tests.integration.invoicer.test_closing import events

    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    await world.subscriptions.pause_subscription(world.tenant, subscription.id, "PERIOD_END")
    await settled(world, FEBRUARY + GRACE)
    told_events = [event for event in await events(world.database) if "subscription" in event.type]
    assert [event.type for event in told_events] == [
        "subscription.created",
        "subscription.changed",
        "subscription.changed",
    ]
    assert '"status":"ACTIVE"' in told_events[1].data_json
    assert '"status":"PAUSED"' in told_events[2].data_json


async def test_one_that_has_not_begun_is_paused_from_its_start_and_opened_when_it_goes_on(
    world: World,
) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=TENTH, plan=ADVANCE)
    await world.subscriptions.pause_subscription(
        world.tenant, subscription.id, resume_time=SIXTEENTH
    )
    assert await settled(world, TENTH) == []
    (opening,) = await settled(world, SIXTEENTH)
    assert str(opening.amount) == "16.00"


async def test_what_is_wrong_with_a_trial_is_named_at_once(world: World) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await on_trial(
            world, trial_days=731, trial_end_time=JANUARY - timedelta(seconds=1), quantity=0
        )
    assert {problem.field for problem in caught.value.problems} == {
        "trialDays",
        "trialEndsAt",
        "quantity",
    }
    world.at(JANUARY)
    made = await world.plans.create_plan(world.tenant, ARREARS)
    last = utc("9999-12-31")
    given = SubscriptionInput("u", made.id, last, "CALENDAR", trial_end_time=last)
    with pytest.raises(InvalidArgumentError, match="startsAt"):
        await world.subscriptions.create_subscription(world.tenant, given)
    with pytest.raises(InvalidArgumentError, match="trialEndsAt: must not be given besides"):
        await on_trial(world, trial_days=1, trial_end_time=SIXTEENTH)


async def test_pauses_that_can_not_be_are_refused(world: World) -> None:
    pause = world.subscriptions.pause_subscription
    world.at(JANUARY)
    trial = await on_trial(world, trial_days=15)
    with pytest.raises(PreconditionError, match="in its trial"):
        await pause(world.tenant, trial.id)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    with pytest.raises(InvalidArgumentError, match="resumesAt: must be after"):
        await pause(world.tenant, subscription.id, resume_time=JANUARY)
    with pytest.raises(InvalidArgumentError, match="resumesAt: must lie on a quarter"):
        await pause(
            world.tenant, subscription.id, resume_time=SIXTEENTH + timedelta(microseconds=1)
        )
    with pytest.raises(InvalidArgumentError, match="at: must be one of NOW, PERIOD_END"):
        await pause(world.tenant, subscription.id, "SOMETIME")
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    with pytest.raises(PreconditionError, match="ends before that"):
        await pause(world.tenant, subscription.id, "PERIOD_END")
    world.at(MARCH)
    with pytest.raises(PreconditionError, match="has ended"):
        await pause(world.tenant, subscription.id)


async def test_time_is_not_cut_into_more_parts_than_can_be_looked_at_again(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    with pytest.raises(PreconditionError, match="At most 40 changes of plan, pauses") as caught:
        for hour in range(30):
            world.at(JANUARY + timedelta(hours=hour))
            await world.subscriptions.pause_subscription(world.tenant, subscription.id)
            world.at(JANUARY + timedelta(hours=hour, minutes=30))
            await world.subscriptions.resume_subscription(world.tenant, subscription.id)
    assert caught.value.reason == "too_many_changes"
    assert hour == 20


_PHASE = (
    "INSERT INTO subscription_phases SELECT organization_id, mode, subscription_id, {}, {}, kind, "
    "plan_id, plan_version, billing_period, anchor_time, quantity, create_time "
    "FROM subscription_phases"
)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (_PHASE.format("'2026-05-01Z'", "'2026-06-01Z'"), "ex_subscription_phases_time"),
        (_PHASE.format("'2025-12-01Z'", "'2026-01-01Z'"), "what is invoiced keeps its phases"),
        ("UPDATE subscription_phases SET end_time = '2026-06-01Z'", "abut from its start to its"),
        ("UPDATE subscription_phases SET end_time = '2026-01-20Z'", "what is invoiced keeps its"),
        ("UPDATE subscription_phases SET quantity = 2", "nothing of a phase changes but its end"),
        ("DELETE FROM subscription_phases", "what is invoiced keeps its phases"),
        ("TRUNCATE subscription_phases", "TRUNCATE of subscription_phases is refused"),
        (
            "UPDATE subscriptions SET status = 'CANCELLED', cancel_time = '2026-06-01Z'",
            "abut from its start to its end",
        ),
        (
            "INSERT INTO invoices (organization_id, mode, id, customer_id, subscription_id, "
            "plan_id, plan_version, period_start, period_end, currency, amount, kind, create_time)"
            " SELECT organization_id, mode, 'inv_x', customer_id, subscription_id, plan_id, "
            "plan_version, '2026-01-31 12:00Z', '2026-02-10Z', currency, 0, 'PERIOD', create_time "
            "FROM invoices",
            "ex_invoices_period",
        ),
    ],
)
async def test_the_database_refuses_a_second_that_is_billed_twice_or_left_out(
    world: World, statement: str, why: str
) -> None:
    world.at(JANUARY)
    await world.subscribe(start=JANUARY, plan=ARREARS)
    await settled(world, FEBRUARY + GRACE)
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            await connection.execute(text(statement))


async def test_a_pause_is_billed_by_time_to_the_second_at_both_ends(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ARREARS)
    world.at(TENTH + timedelta(minutes=7, seconds=31))
    await world.subscriptions.pause_subscription(world.tenant, subscription.id)
    world.at(SIXTEENTH + timedelta(minutes=7, seconds=30))
    await world.subscriptions.resume_subscription(world.tenant, subscription.id)
    first, second = await settled(world, FEBRUARY + GRACE)
    # 9 days and 451 s: 31.00 less its rest, 31.00 x 1,900,349 s / 2,678,400 s = 21.99.
    assert told(first)[0] == ("Pro: base price, 778,051 of 2,678,400 seconds", "9.01")
    # 16 days less 450 s.
    assert told(second)[0] == ("Pro: base price, 1,381,950 of 2,678,400 seconds", "15.99")
    # Usage is cut at quarters of an hour.
    assert first.period.end == TENTH + QUARTER
    assert second.period.start == SIXTEENTH


async def test_what_ends_now_is_billed_by_time_to_the_second(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ADVANCE)
    await world.close_all()
    world.at(SEVENTEENTH + timedelta(minutes=7, seconds=31, microseconds=999_999))
    ended = await world.subscriptions.cancel_subscription(world.tenant, subscription.id, "NOW")
    assert ended.cancel_time == SEVENTEENTH + QUARTER
    (_, last) = await settled(world, SEVENTEENTH + QUARTER + GRACE)
    # 31.00 x 1,295,549 s / 2,678,400 s = 14.9947...
    assert str(last.lines[0].amount) == "-14.99"
    assert "1,295,549 s / 2,678,400 s" in last.lines[0].steps[0]
