"""Test clocks: what is due happens, at its time and in its order; nobody's time goes back."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.clocks import Clock, ClockStatus
from services.invoicer.credit_checks import GrantInput
from services.invoicer.domain import InvoiceStatus, SubscriptionStatus
from services.invoicer.scheduler import Scheduler
from services.invoicer.service.paging import Page
from services.invoicer.service.subscriptions import SubscriptionInput
from services.invoicer.term_checks import ChargeInput
from services.kit.database import TenantKey
from services.kit.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from tests.integration.invoicer.conftest import NOW
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc
from tests.integration.invoicer.test_closing import events

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
NEXT_YEAR = utc("2027-01-01") + GRACE
BASE = pro_plan(metrics=[])
WAIT_S = 60


async def on_clock(world: World, customer_id: str = "user_123") -> Clock:
    """A clock that is READY at the present."""
    made = await world.clocks.create_clock(world.tenant, customer_id, None)
    assert (made.status, made.time) == (ClockStatus.ADVANCING, NOW)
    await world.go_on()
    return await ready(world, made)


async def ready(world: World, clock: Clock) -> Clock:
    found = await world.clocks.get_clock(world.tenant, clock.id)
    assert (found.status, found.time) == (ClockStatus.READY, found.target_time)
    return found


async def advance(world: World, clock: Clock, to: datetime) -> Clock:
    """Let it go on until it is READY again."""
    told = await world.clocks.advance_clock(world.tenant, clock.id, to)
    assert (told.status, told.target_time) == (ClockStatus.ADVANCING, to)
    await world.go_on()
    return await ready(world, clock)


async def test_a_year_is_twelve_invoices_each_at_its_time(world: World) -> None:
    clock = await on_clock(world)
    await world.subscribe(start=JANUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", MARCH, "12000")
    assert (await advance(world, clock, NEXT_YEAR)).time == NEXT_YEAR
    invoices = await world.all_invoices()
    assert [each.number for each in invoices] == [f"INV-{n:06d}" for n in range(1, 13)]
    assert [each.finalize_time for each in invoices] == [i.period.end + GRACE for i in invoices]
    assert [i.period.start for i in invoices[1:]] == [i.period.end for i in invoices[:-1]]
    assert invoices[2].period.start == MARCH
    assert [str(each.amount) for each in invoices] == ["100.00"] * 2 + ["120.00"] + ["100.00"] * 9
    told = [each for each in await events(world.database) if each.type == "invoice.created"]
    assert [each.create_time.ToDatetime(NOW.tzinfo) for each in told] == [
        each.finalize_time for each in invoices
    ]


async def test_what_others_do_goes_by_the_real_time(world: World) -> None:
    clock = await on_clock(world)
    await world.subscribe(start=JANUARY, plan=BASE)
    await world.subscribe("other", start=JANUARY, plan=BASE)
    await advance(world, clock, FEBRUARY + GRACE)
    assert [each.customer_id for each in await world.all_invoices()] == ["user_123"]
    # The real time is past the clock's, which stands still.
    world.at(MARCH + GRACE)
    await world.go_on()
    invoices = await world.all_invoices()
    assert [each.customer_id for each in invoices] == ["user_123", "other", "other"]


async def test_a_clock_of_all_customers_has_those_who_come_later_too(world: World) -> None:
    await world.subscribe(start=JANUARY, plan=BASE)
    clock = await on_clock(world, "")
    await world.subscribe("later", start=JANUARY, plan=BASE)
    elsewhere = new_tenant()
    await world.subscribe(start=JANUARY, plan=BASE, tenant=elsewhere)
    await advance(world, clock, MARCH + GRACE)
    invoices = await world.all_invoices()
    assert [each.period.end for each in invoices] == [FEBRUARY, FEBRUARY, MARCH, MARCH]
    assert {each.customer_id for each in invoices} == {"user_123", "later"}
    assert await world.all_invoices(elsewhere) == []


async def test_all_that_was_accepted_before_the_advance_is_waited_for(world: World) -> None:
    clock = await on_clock(world)
    await world.subscribe(start=JANUARY)
    world.clock.time = NOW + timedelta(minutes=1)
    await world.clocks.advance_clock(world.tenant, clock.id, MARCH + GRACE)
    world.aggregator.as_of = world.clock.time - timedelta(microseconds=1)
    await world.go_on()
    waiting = await world.clocks.get_clock(world.tenant, clock.id)
    assert (waiting.status, waiting.time) == (ClockStatus.ADVANCING, FEBRUARY + GRACE)
    assert await world.all_invoices() == []
    with pytest.raises(PreconditionError, match="wait until it is READY"):
        await world.clocks.advance_clock(world.tenant, clock.id, NEXT_YEAR)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10100")
    world.aggregator.as_of = world.clock.time
    await world.go_on()
    await ready(world, clock)
    assert [str(each.amount) for each in await world.all_invoices()] == ["101.00", "100.00"]


async def test_usage_that_comes_after_its_invoice_is_late(world: World) -> None:
    clock = await on_clock(world)
    await world.subscribe(start=JANUARY)
    clock = await advance(world, clock, FEBRUARY + GRACE)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10500")
    await advance(world, clock, MARCH + GRACE)
    assert [str(each.amount) for each in await world.all_invoices()] == ["100.00", "105.00"]


async def test_trials_openings_and_ends_come_at_their_time(world: World) -> None:
    clock = await on_clock(world)
    plan = await world.plans.create_plan(
        world.tenant, pro_plan(base_price="31", metrics=[], base_price_timing="IN_ADVANCE")
    )
    given = SubscriptionInput("user_123", plan.id, None, "ANNIVERSARY", trial_days=14)
    made, _ = await world.subscriptions.create_subscription(world.tenant, given)
    assert made.start_time == NOW
    trial_end = NOW + timedelta(days=14)
    clock = await advance(world, clock, trial_end + timedelta(days=10))
    (opening,) = await world.all_invoices()
    assert opening.period.start == trial_end
    assert opening.finalize_time == trial_end
    ended = await world.subscriptions.cancel_subscription(world.tenant, made.id, "NOW")
    assert ended.cancel_time == clock.time + timedelta(minutes=15)
    assert ended.status is SubscriptionStatus.CANCELLED
    # Its last invoice, and the look for late usage long after.
    await advance(world, clock, clock.time + timedelta(days=60))
    last = (await world.subscriptions.get_subscription(world.tenant, made.id)).late_check_time
    assert last is None
    kinds = [event.type for event in await events(world.database)]
    # Nothing is due of it: the base price that was paid for more stays credit.
    assert kinds[-3:] == ["subscription.cancelled", "invoice.created", "invoice.paid"]


async def test_what_is_told_to_a_subscription_happens_at_its_clocks_time(world: World) -> None:
    clock = await on_clock(world)
    subscription = await world.subscribe(start=JANUARY, plan=BASE)
    clock = await advance(world, clock, utc("2026-02-10T12:07"))
    (invoice,) = await world.all_invoices()
    await world.invoices.pay_invoice(world.tenant, invoice.id)
    paused = await world.subscriptions.pause_subscription(world.tenant, subscription.id)
    assert paused.phases[1].start_time == utc("2026-02-10T12:15")
    assert paused.status_at(paused.now(NOW)) is SubscriptionStatus.ACTIVE
    charge = ChargeInput("user_123", "Setup", "5.00", currency="USD", timing="NOW")
    made, _ = await world.charges.create_charge(world.tenant, charge)
    assert made.create_time == clock.time
    told = await events(world.database)
    assert {each.type for each in told} >= {"invoice.paid", "subscription.changed"}
    late = [each for each in told if each.type in ("invoice.paid", "subscription.changed")]
    assert {each.create_time.ToDatetime(NOW.tzinfo) for each in late} == {clock.time}


async def test_whoever_is_stopped_in_the_middle_another_goes_on(world: World) -> None:
    """Replicas that stop at any await, as kill -9 would stop them, bill nothing twice."""
    clock = await on_clock(world)
    await world.subscribe(start=JANUARY)
    await world.clocks.advance_clock(world.tenant, clock.id, NEXT_YEAR)
    for written in (2, 5, 9):
        replicas = [
            asyncio.create_task(
                Scheduler(world.new_closer(lease_s=0.05), 0.01, world.advancer).run()
            )
            for _ in range(2)
        ]
        async with asyncio.timeout(WAIT_S):
            while len(await world.all_invoices()) < written:
                world.committed.clear()
                await world.committed.wait()
        for replica in replicas:
            replica.cancel()
        await asyncio.gather(*replicas, return_exceptions=True)
    async with asyncio.timeout(WAIT_S):
        while (await world.clocks.get_clock(world.tenant, clock.id)).status != "READY":
            await world.go_on()
    invoices = await world.all_invoices()
    assert [each.finalize_time for each in invoices] == [i.period.end + GRACE for i in invoices]
    assert len(invoices) == 12


async def test_nobodys_time_goes_back_when_a_clock_ends(world: World) -> None:
    clock = await on_clock(world)
    subscription = await world.subscribe(start=JANUARY, plan=BASE)
    clock = await advance(world, clock, MARCH)
    ended = await world.clocks.end_clock(world.tenant, clock.id)
    assert (ended.status, ended.time) == (ClockStatus.ENDED, MARCH)
    assert await world.clocks.end_clock(world.tenant, clock.id) == ended
    with pytest.raises(PreconditionError, match="has ended"):
        await world.clocks.advance_clock(world.tenant, clock.id, NEXT_YEAR)
    found = await world.subscriptions.get_subscription(world.tenant, subscription.id)
    assert found.now(NOW) == MARCH
    assert found.now(NEXT_YEAR) == NEXT_YEAR
    await world.go_on()
    assert len(await world.all_invoices()) == 1
    # The real time catches up.
    world.at(MARCH + GRACE)
    await world.go_on()
    assert len(await world.all_invoices()) == 2
    # A new clock, of all, does not begin before what was reached.
    world.at(NOW)
    with pytest.raises(InvalidArgumentError, match="now: must be from 2026-03-01T00:00:00Z"):
        await world.clocks.create_clock(world.tenant, "", FEBRUARY)
    again = await world.clocks.create_clock(world.tenant, "", None)
    assert again.time == MARCH


@pytest.mark.parametrize(("first", "second"), [("", "a"), ("a", ""), ("", ""), ("a", "a")])
async def test_a_customer_is_on_one_clock(world: World, first: str, second: str) -> None:
    clock = await on_clock(world, first)
    with pytest.raises(ConflictError, match="on a test clock already"):
        await world.clocks.create_clock(world.tenant, second, None)
    await world.clocks.end_clock(world.tenant, clock.id)
    await world.clocks.create_clock(world.tenant, second, None)
    await world.clocks.create_clock(new_tenant(), first, None)


async def test_a_clock_goes_forward_and_not_too_far(world: World) -> None:
    clock = await on_clock(world)
    for to in (NOW, JANUARY, NOW + timedelta(days=733)):
        with pytest.raises(InvalidArgumentError, match="to: must be"):
            await world.clocks.advance_clock(world.tenant, clock.id, to)
    for now in (JANUARY, NOW + timedelta(days=733)):
        with pytest.raises(InvalidArgumentError, match="now: must be from"):
            await world.clocks.create_clock(world.tenant, "other", now)
    later = await world.clocks.create_clock(world.tenant, "other", NEXT_YEAR)
    await world.go_on()
    assert (await ready(world, later)).time == NEXT_YEAR


async def test_live_mode_has_no_clocks(world: World) -> None:
    live = TenantKey(world.tenant.organization_id, "live")
    await on_clock(world, "")
    with pytest.raises(PreconditionError, match="test mode"):
        await world.clocks.create_clock(live, "user_123", None)
    made = await world.subscribe(start=JANUARY, plan=BASE, tenant=live)
    assert made.clock is None
    (clock,), _ = await world.clocks.list_clocks(world.tenant, "", Page())
    with pytest.raises(NotFoundError):
        await world.clocks.get_clock(live, clock.id)
    for statement in (
        "INSERT INTO test_clocks SELECT organization_id, 'live', id, customer_id, now_time, "
        "target_time, ready, accept_time, create_time, end_time FROM test_clocks",
        f"UPDATE subscriptions SET clock_id = '{clock.id}' WHERE mode = 'live'",
        "UPDATE test_clocks SET now_time = now_time - interval '1 second'",
        "UPDATE test_clocks SET ready = true, target_time = target_time + interval '1 second'",
        "DELETE FROM test_clocks",
    ):
        with pytest.raises(DBAPIError):
            async with world.database.transaction() as connection:
                await connection.execute(text(statement))


async def test_a_clock_is_ready_when_those_who_take_events_know_of_it(world: World) -> None:
    clock = await on_clock(world)
    world.clock_times.away = True
    await world.clocks.advance_clock(world.tenant, clock.id, MARCH)
    await world.go_on()
    waiting = await world.clocks.get_clock(world.tenant, clock.id)
    assert (waiting.status, waiting.time) == (ClockStatus.ADVANCING, NOW)
    world.clock_times.away = False
    await world.go_on()
    await ready(world, clock)
    await world.clocks.end_clock(world.tenant, clock.id)
    await world.go_on()
    assert world.clock_times.told == [(clock.id, NOW), (clock.id, MARCH), (clock.id, None)]


async def test_prepaid_credit_pays_until_it_expires_by_the_clock(world: World) -> None:
    clock = await on_clock(world)
    await world.subscribe(start=JANUARY, plan=BASE)
    tenth = utc("2026-02-10")
    credit = GrantInput("user_123", "150", "USD", expire_time=tenth)
    await world.credits.grant_credits(world.tenant, credit)
    # The real time does not expire it, while the clock stands still.
    world.at(MARCH)
    assert await world.credit_expiry.expire() == 0
    world.at(NOW)
    await advance(world, clock, MARCH + GRACE)
    january, february = await world.all_invoices()
    assert (january.status, f"{january.amount_due:.2f}") == (InvoiceStatus.PAID, "0.00")
    assert (february.status, f"{february.amount_due:.2f}") == (InvoiceStatus.PENDING, "100.00")
    entries, _ = await world.credits.list_entries(world.tenant, "user_123", "", Page(9))
    assert [(each.kind, f"{each.amount:.2f}", each.create_time) for each in entries[::-1]] == [
        ("GRANT", "150.00", NOW),
        ("APPLY", "-100.00", FEBRUARY + GRACE),
        ("EXPIRE", "-50.00", tenth),
    ]
