"""Payments of customers on a test clock: due, tried again and given up by it."""

from datetime import UTC, datetime, timedelta

from services.invoicer.advancer import Advancer
from services.invoicer.clocks import Clock, ClockStatus
from services.invoicer.domain import InvoiceStatus, SubscriptionStatus
from services.invoicer.payments.domain import AttemptState, PaymentMethod, ProviderName
from tests.integration.invoicer.paying import DAY, FEBRUARY, LATER, Paying
from tests.integration.invoicer.stand_in_stripe import Does
from tests.integration.invoicer.stand_ins import GRACE, utc
from tests.integration.invoicer.test_closing import events

MARCH = utc("2026-03-01")
# When January was invoiced, and what the real time stays at.
DUE = FEBRUARY + GRACE


async def on_clock(paying: Paying, customer_id: str = "user_123") -> Clock:
    """A clock at the present; what is due by it is collected wherever it stops."""
    world = paying.world
    others = [world.credit_expiry.expire, paying.new_collector().collect_batch]
    world.advancer = Advancer(world.database, world.clock_times, GRACE, others)
    return await world.clocks.create_clock(world.tenant, customer_id, None)


async def advance(paying: Paying, clock: Clock, to: datetime, *script: Does) -> Clock:
    """Let it go on as far as it goes."""
    world = paying.world
    paying.stripe.script.extend(script)
    await world.go_on()
    await world.clocks.advance_clock(world.tenant, clock.id, to)
    await world.go_on()
    return await world.clocks.get_clock(world.tenant, clock.id)


async def test_a_clock_goes_over_the_days_on_which_it_is_tried_again(paying: Paying) -> None:
    clock = await on_clock(paying)
    declined = [Does.DECLINE] * 3
    clock = await advance(paying, clock, DUE + 10 * DAY, *declined)
    assert (clock.status, paying.world.clock.time) == (ClockStatus.READY, DUE)
    failures = [DUE, DUE + DAY, DUE + 3 * DAY]
    attempts = await paying.attempts()
    assert [(each.state, each.start_time, each.end_time) for each in attempts] == [
        (AttemptState.FAILED, time, time) for time in failures
    ]
    assert {each.real_start_time for each in attempts} == {DUE}
    assert await paying.status() is SubscriptionStatus.SUSPENDED
    found = [
        (each.type, each.create_time.ToDatetime(UTC))
        for each in await events(paying.world.database)
        if each.type in ("invoice.failed", "payment.failed", "subscription.suspended")
    ]
    told = [(kind, time) for time in failures for kind in ("invoice.failed", "payment.failed")]
    assert sorted(found) == sorted([*told, ("subscription.suspended", failures[-1])])
    retries = [data["nextAttemptAt"] for _, data in await paying.told("payment.retry_scheduled")]
    assert retries == ["2026-02-02T01:00:00Z", "2026-02-04T01:00:00Z"]

    asked = await paying.world.payments.collect_invoice(paying.world.tenant, paying.invoice.id)
    assert asked == DUE + 10 * DAY
    assert (await paying.collect()).status is InvoiceStatus.PAID
    assert (await paying.attempts())[-1].start_time == DUE + 10 * DAY
    assert await paying.status() is SubscriptionStatus.ACTIVE


async def test_each_month_is_charged_at_its_time(paying: Paying) -> None:
    clock = await on_clock(paying, "")
    await advance(paying, clock, utc("2026-06-01") + GRACE)
    world = paying.world
    for invoice in await world.all_invoices():
        assert invoice.status is InvoiceStatus.PAID
        (attempt,), _ = await world.payments.list_attempts(world.tenant, invoice.id)
        assert attempt.start_time == attempt.end_time == invoice.finalize_time
    assert len(paying.stripe.charges) == 5


async def test_a_clock_waits_until_it_is_known_what_came_of_an_attempt(paying: Paying) -> None:
    """However far it is ahead, the payment is looked for where the provider made it."""
    clock = await on_clock(paying)
    there = MARCH + GRACE
    clock = await advance(paying, clock, there, Does.SUCCEED, Does.SUCCEED_AND_BREAK)
    assert (clock.status, clock.time, clock.target_time) == (ClockStatus.ADVANCING, there, there)
    _, second = await paying.world.all_invoices()
    assert second.status is InvoiceStatus.PENDING
    await paying.world.go_on()
    assert len(paying.stripe.requests) == 2
    paying.world.at(DUE + LATER)
    await paying.world.go_on()
    clock = await paying.world.clocks.get_clock(paying.world.tenant, clock.id)
    assert (clock.status, clock.time) == (ClockStatus.READY, there)
    assert {each.status for each in await paying.world.all_invoices()} == {InvoiceStatus.PAID}
    assert len(paying.stripe.charges) == len(paying.stripe.requests) == 2
    assert paying.stripe.looked_since == [int((DUE - timedelta(hours=1)).timestamp())]


async def test_a_debit_that_takes_days_does_not_hold_a_clock(paying: Paying) -> None:
    clock = await on_clock(paying)
    clock = await advance(paying, clock, DUE + 9 * DAY, Does.PROCESS)
    assert clock.status is ClockStatus.READY
    assert [each.state for each in await paying.attempts()] == [AttemptState.PENDING]
    paying.stripe.intents["pi_1"]["status"] = "succeeded"
    assert (await paying.collect()).status is InvoiceStatus.PAID
    (attempt,) = await paying.attempts()
    assert (attempt.start_time, attempt.end_time) == (DUE, DUE + 9 * DAY)


async def test_who_is_on_no_clock_pays_by_the_real_time(paying: Paying) -> None:
    world = paying.world
    await world.subscribe("other", start=FEBRUARY)
    method = PaymentMethod(ProviderName.STRIPE, "cus_2", "pm_1")
    await world.payments.set_method(world.tenant, "other", method, by_key="")
    clock = await on_clock(paying, "other")
    clock = await advance(paying, clock, MARCH + GRACE, Does.DECLINE, Does.DECLINE)
    first, other = await world.all_invoices()
    assert (first.status, other.status) == (InvoiceStatus.FAILED, InvoiceStatus.FAILED)
    # The clock goes on over its retry; the real time stands still, and so does the other's.
    await advance(paying, clock, MARCH + 2 * DAY)
    first, other = await world.all_invoices()
    assert (first.status, other.status) == (InvoiceStatus.FAILED, InvoiceStatus.PAID)
    assert (await paying.collect(after=DAY)).status is InvoiceStatus.PAID
