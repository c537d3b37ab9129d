"""Closing periods: the right amount, once, when its usage is complete, and never before."""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal

from sqlalchemy import text
from usageflow.events.v1 import events_pb2

from services.invoicer.checks import CustomerInput
from services.invoicer.domain import InvoiceStatus, LineKind, SubscriptionStatus
from services.invoicer.scheduler import Scheduler
from services.kit.database import Database
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
WAIT_S = 20


async def events(database: Database) -> list[events_pb2.BillingEvent]:
    """The billing events in the outbox, oldest first."""
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT message_id, subject, payload FROM outbox ORDER BY message_id")
        )
        found = []
        for message_id, subject, payload in rows:
            event = events_pb2.BillingEvent.FromString(payload)
            assert (subject, event.id) == ("usageflow.billing.event", message_id)
            found.append(event)
    return found


async def test_a_period_that_is_over_becomes_the_invoice_of_the_example(world: World) -> None:
    world.aggregator.units = {"API_CALL": "calls", "AI_TOKEN": "tokens"}
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12000")
    world.aggregator.put(world.tenant, "user_123", "AI_TOKEN", JANUARY, "1500")
    subscription = await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    (invoice,) = await world.all_invoices()
    assert (invoice.number, invoice.status) == ("INV-000001", InvoiceStatus.PENDING)
    assert (invoice.period.start, invoice.period.end) == (JANUARY, FEBRUARY)
    assert [(line.description, str(line.amount)) for line in invoice.lines] == [
        ("Pro: base price", "100.00"),
        ("API_CALL: 12,000 calls, 10,000 included, 2,000 x 0.01", "20.00"),
        ("AI_TOKEN: 1,500 tokens, 1,500 x 0.00002", "0.03"),
    ]
    assert invoice.amount == Decimal("120.03")
    assert invoice.finalize_time == FEBRUARY + GRACE
    assert invoice.lines[1].steps[0] == "12,000 - 10,000 included = 2,000"
    after = await world.subscriptions.get_subscription(world.tenant, subscription.id)
    assert after.period is not None
    assert (after.period.start, after.period.end) == (FEBRUARY, MARCH)


async def test_the_event_of_an_invoice_has_the_contracts_content(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    (invoice,) = await world.all_invoices()
    created, invoiced = await events(world.database)
    assert created.type == "subscription.created"
    assert invoiced.type == "invoice.created"
    assert invoiced.id.startswith("whevt_")
    assert invoiced.organization_id == world.tenant.organization_id
    assert json.loads(invoiced.data_json) == {
        "invoiceId": invoice.id,
        "number": "INV-000001",
        "customerId": "user_123",
        "amount": "100.00",
        "creditsApplied": "0.00",
        "amountDue": "100.00",
        "currency": "USD",
        "periodStart": "2026-01-01T00:00:00Z",
        "periodEnd": "2026-02-01T00:00:00Z",
        "status": "PENDING",
        "sequence": 1,
    }


async def test_nothing_is_invoiced_before_the_grace_is_over(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE - timedelta(microseconds=1))
    assert await world.close_all() == 0
    assert world.aggregator.requests == []
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1


async def test_nothing_is_invoiced_while_an_accepted_event_may_be_missing(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + timedelta(days=3))
    world.aggregator.as_of = FEBRUARY + GRACE - timedelta(microseconds=1)
    assert await world.close_all() == 0
    assert len(world.aggregator.requests) == 1
    assert await world.all_invoices() == []
    # What was missing arrives.
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10100")
    world.aggregator.as_of = FEBRUARY + GRACE
    assert await world.close_all() == 1
    (invoice,) = await world.all_invoices()
    assert str(invoice.amount) == "101.00"


async def test_an_aggregator_that_is_away_delays_an_invoice_and_nothing_else(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    world.aggregator.away = True
    assert await world.close_all() == 0
    assert await world.all_invoices() == []
    world.aggregator.away = False
    assert await world.close_all() == 1


async def test_several_periods_that_are_over_are_invoiced_one_after_another(world: World) -> None:
    world.at(utc("2026-04-10T12:00"))
    world.aggregator.put(world.tenant, "user_123", "API_CALL", FEBRUARY, "10001")
    await world.subscribe(start=utc("2026-01-16"))
    assert await world.close_all() == 3
    assert [(i.number, i.period.start, str(i.amount)) for i in await world.all_invoices()] == [
        # 100.00 x 16 / 31 days = 51.61
        ("INV-000001", utc("2026-01-16"), "51.61"),
        ("INV-000002", FEBRUARY, "100.01"),
        ("INV-000003", MARCH, "100.00"),
    ]


async def test_several_subscriptions_of_a_customer_are_invoiced_each_by_itself(
    world: World,
) -> None:
    world.at(FEBRUARY + GRACE)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10001")
    monthly = await world.subscribe(start=JANUARY)
    weekly = await world.subscribe(
        start=utc("2026-01-19"),
        plan=pro_plan(base_price="7", billing_period="WEEKLY", metrics=[]),
    )
    assert await world.close_all() == 2
    first, second = sorted(await world.all_invoices(), key=lambda each: each.period.start)
    assert (first.subscription_id, str(first.amount)) == (monthly.id, "100.01")
    assert (second.subscription_id, str(second.amount)) == (weekly.id, "7.00")
    await world.subscriptions.cancel_subscription(world.tenant, weekly.id, "NOW")
    found = await world.subscriptions.get_subscription(world.tenant, monthly.id)
    assert (found.status, found.cancel_time) == (SubscriptionStatus.ACTIVE, None)


async def test_many_customers_are_asked_for_in_one_call(world: World) -> None:
    for number in range(30):
        await world.subscribe(f"user_{number}", start=JANUARY)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 30
    assert [len(request.selections) for request in world.aggregator.requests] == [30]


async def test_each_tenant_is_asked_for_and_numbered_by_itself(world: World) -> None:
    other = new_tenant("live")
    same_organization = world.tenant._replace(mode="live")
    for tenant, quantity in ((world.tenant, "10100"), (other, "10200"), (same_organization, "0")):
        world.aggregator.put(tenant, "user_123", "API_CALL", JANUARY, quantity)
        await world.subscribe(start=JANUARY, tenant=tenant)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 3
    found = [
        (invoice.number, str(invoice.amount))
        for tenant in (world.tenant, other, same_organization)
        for invoice in await world.all_invoices(tenant)
    ]
    assert found == [
        ("INV-000001", "101.00"),
        ("INV-000001", "102.00"),
        ("INV-000001", "100.00"),
    ]


async def test_two_schedulers_at_once_write_one_invoice_a_period(world: World) -> None:
    world.at(utc("2026-04-10T12:00"))
    for number in range(25):
        await world.subscribe(f"user_{number}", start=JANUARY)
    replicas = [world.new_closer(chunk_max=4, batch_max=2) for _ in range(2)]
    schedulers = [asyncio.create_task(Scheduler(each, 0.01).run()) for each in replicas]
    try:
        async with asyncio.timeout(WAIT_S):
            world.committed.clear()
            while len(await world.all_invoices()) < 75:
                await world.committed.wait()
                world.committed.clear()
    finally:
        for task in schedulers:
            task.cancel()
        await asyncio.gather(*schedulers, return_exceptions=True)
    invoices = await world.all_invoices()
    assert len(invoices) == 75
    assert len({(i.subscription_id, i.period.start) for i in invoices}) == 75
    assert sorted(i.number for i in invoices) == [f"INV-{n:06d}" for n in range(1, 76)]
    created = [e for e in await events(world.database) if e.type == "invoice.created"]
    assert len(created) == 75


async def test_a_replica_that_comes_back_too_late_writes_nothing(world: World) -> None:
    """Its lease expired while aggregator kept it waiting; another has closed the period."""
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    world.aggregator.answering.clear()
    slow = asyncio.create_task(world.new_closer(lease_s=0).close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), WAIT_S)
    world.aggregator.asked.clear()
    other = asyncio.create_task(world.closer.close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), WAIT_S)
    world.aggregator.answering.set()
    assert sorted(await asyncio.gather(slow, other)) == [0, 1]
    assert len(await world.all_invoices()) == 1


async def test_a_claimed_period_is_left_to_its_replica_until_its_lease_expires(
    world: World,
) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    world.aggregator.answering.clear()
    slow = asyncio.create_task(world.closer.close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), WAIT_S)
    assert await world.new_closer().close_chunk() == 0
    assert len(world.aggregator.requests) == 1
    world.aggregator.answering.set()
    assert await slow == 1


async def test_a_replica_that_is_stopped_lets_others_go_on_at_once(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    world.aggregator.answering.clear()
    stopped = asyncio.create_task(world.closer.close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), WAIT_S)
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    world.aggregator.answering.set()
    assert await world.new_closer().close_chunk() == 1


async def test_one_period_that_fails_does_not_hold_up_the_others(world: World) -> None:
    broken = await world.subscribe("broken", start=JANUARY)
    world.aggregator.put(world.tenant, "broken", "API_CALL", JANUARY, "9" * 70)
    await world.subscribe("right", start=JANUARY)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    (invoice,) = await world.all_invoices()
    assert invoice.customer_id == "right"
    unchanged = await world.subscriptions.get_subscription(world.tenant, broken.id)
    assert unchanged == broken


async def test_late_usage_is_billed_with_the_next_invoice(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12000")
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    # 500 calls of January come after its invoice.
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12500")
    world.at(MARCH + GRACE)
    assert await world.close_all() == 1
    first, second = await world.all_invoices()
    assert str(first.amount) == "120.00"
    (late,) = [line for line in second.lines if line.kind is LineKind.LATE_USAGE]
    assert (late.metric, late.period) == ("API_CALL", first.period)
    # 2,500 x 0.01 = 25.00; 20.00 was billed
    assert (str(late.quantity), str(late.amount)) == ("500", "5.00")
    assert "2026-01-01 to 2026-02-01" in late.description
    assert str(second.amount) == "105.00"
    # It is billed once.
    world.at(utc("2026-04-01") + GRACE)
    assert await world.close_all() == 1
    third = (await world.all_invoices())[-1]
    assert [line.kind for line in third.lines] == [LineKind.BASE, LineKind.USAGE, LineKind.USAGE]
    assert third.subscription_id == subscription.id


async def test_late_usage_is_billed_with_the_plan_of_its_time(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    dear = pro_plan(metrics=[pro_plan().metrics[1]], base_price="500")
    version = await world.plans.create_plan_version(world.tenant, subscription.plan_id, dear)
    assert version.version == 2
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10500")
    world.at(MARCH + GRACE)
    await world.close_all()
    second = (await world.all_invoices())[-1]
    # The subscription stays on version 1: 100.00 + 500 x 0.01 = 105.00
    assert str(second.amount) == "105.00"


async def test_usage_of_300_days_ago_is_billed_with_the_next_invoice(world: World) -> None:
    """An import: the period was invoiced long ago, and so were all after it."""
    world.at(utc("2026-12-15"))
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12000")
    await world.subscribe(start=JANUARY)
    assert await world.close_all() == 11
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12500")
    world.aggregator.put(world.tenant, "user_123", "API_CALL", FEBRUARY, "10100")
    world.at(utc("2027-01-01") + GRACE)
    assert await world.close_all() == 1
    last = (await world.all_invoices())[-1]
    late = [line for line in last.lines if line.kind is LineKind.LATE_USAGE]
    # Each line names its period: 2,500 x 0.01 - 20.00 billed before, and 100 x 0.01.
    assert [(line.period.start, str(line.quantity), str(line.amount)) for line in late] == [
        (JANUARY, "500", "5.00"),
        (FEBRUARY, "10100", "1.00"),
    ]
    assert "2026-01-01 to 2026-02-01" in late[0].description
    assert "2026-02-01 to 2026-03-01" in late[1].description
    assert str(last.amount) == "106.00"


async def test_every_period_that_may_get_late_events_is_looked_at_again(world: World) -> None:
    world.at(utc("2024-12-10"))
    await world.subscribe(start=utc("2024-12-01"), anchor="ANNIVERSARY")
    world.at(utc("2026-03-10"))
    await world.close_all()
    asked = [
        getattr(selection, "from").ToDatetime().strftime("%Y-%m")
        for selection in world.aggregator.requests[-1].selections
    ]
    # An event may be 400 days late: at the start of February, which is closed here, it was of
    # 28 December 2024 at the earliest. Billing asks for that month, and all that follow.
    earlier = ["2024-12", *(f"2025-{month:02}" for month in range(1, 13)), "2026-01"]
    assert asked == ["2026-02", *earlier]
    world.at(utc("2026-04-10"))
    await world.close_all()
    asked = [
        getattr(selection, "from").ToDatetime().strftime("%Y-%m")
        for selection in world.aggregator.requests[-1].selections
    ]
    assert asked == ["2026-03", *earlier[1:], "2026-02"]


async def test_a_void_invoice_is_not_billed_again_and_gets_no_late_usage(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    (first,) = await world.all_invoices()
    await world.invoices.void_invoice(world.tenant, first.id)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "20000")
    world.at(MARCH + GRACE)
    await world.close_all()
    second = (await world.all_invoices())[-1]
    assert (second.number, str(second.amount)) == ("INV-000002", "100.00")


async def test_late_usage_on_a_void_invoice_is_billed_again(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10100")
    world.at(MARCH + GRACE)
    await world.close_all()
    second = (await world.all_invoices())[-1]
    assert str(second.amount) == "101.00"
    await world.invoices.void_invoice(world.tenant, second.id)
    world.at(utc("2026-04-01") + GRACE)
    await world.close_all()
    third = (await world.all_invoices())[-1]
    assert str(third.amount) == "101.00"


async def test_voiding_while_the_next_period_is_closed_is_not_overlooked(world: World) -> None:
    """What was computed before the void is not written; it is computed anew."""
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    (first,) = await world.all_invoices()
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "20000")
    world.at(MARCH + GRACE)
    world.aggregator.answering.clear()
    world.aggregator.asked.clear()
    closing = asyncio.create_task(world.closer.close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), WAIT_S)
    await world.invoices.void_invoice(world.tenant, first.id)
    world.aggregator.answering.set()
    assert await closing == 0
    assert await world.close_all() == 1
    second = (await world.all_invoices())[-1]
    assert str(second.amount) == "100.00"


async def test_a_cancelled_subscription_ends_with_its_running_period(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.clock.time = utc("2026-02-10")
    cancelled = await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    assert cancelled.status is SubscriptionStatus.CANCELLED
    assert cancelled.cancel_time == MARCH
    world.at(utc("2026-06-01"))
    # Two periods, and a look for usage that came late.
    assert await world.close_all() == 3
    assert len(await world.all_invoices()) == 2
    after = await world.subscriptions.get_subscription(world.tenant, subscription.id)
    assert after.period is None
    assert [invoice.period.end for invoice in await world.all_invoices()] == [FEBRUARY, MARCH]


async def test_a_subscription_cancelled_before_its_start_is_never_billed(world: World) -> None:
    subscription = await world.subscribe(start=utc("2026-02-10"))
    cancelled = await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    assert (cancelled.cancel_time, cancelled.period) == (utc("2026-02-10"), None)
    world.at(utc("2026-06-01"))
    assert await world.close_all() == 0


async def test_a_suspended_subscription_is_still_billed(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    (first,) = await world.all_invoices()
    for _ in range(3):
        await world.invoices.fail_invoice(world.tenant, first.id)
    world.at(MARCH + GRACE)
    assert await world.close_all() == 1


async def test_a_customers_zone_decides_when_a_month_ends_and_stays_with_the_subscription(
    world: World,
) -> None:
    kathmandu = CustomerInput("user_123", time_zone="Asia/Kathmandu")
    await world.customers.put_customer(world.tenant, kathmandu)
    subscription = await world.subscribe(start=utc("2025-12-31T18:15"))
    await world.customers.put_customer(world.tenant, CustomerInput("user_123", time_zone="UTC"))
    world.at(utc("2026-01-31T18:15") + GRACE)
    assert await world.close_all() == 1
    (invoice,) = await world.all_invoices()
    assert invoice.period.end == utc("2026-01-31T18:15")
    assert str(invoice.amount) == "100.00"
    after = await world.subscriptions.get_subscription(world.tenant, subscription.id)
    assert after.period is not None
    assert after.period.end == utc("2026-02-28T18:15")


async def test_a_new_subscription_whose_period_is_over_is_invoiced_without_waiting(
    world: World,
) -> None:
    world.at(utc("2026-02-10"))
    scheduler = Scheduler(world.closer, poll_s=WAIT_S)
    running = asyncio.create_task(scheduler.run())
    try:
        await world.subscribe(start=JANUARY)
        assert world.wakes == ["relay", "scheduler"]
        scheduler.wake()
        await asyncio.wait_for(world.committed.wait(), WAIT_S / 2)
        assert len(await world.all_invoices()) == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_an_answer_that_leaves_a_metric_out_is_not_billed(world: World) -> None:
    """No answer is told apart from no usage."""
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    world.aggregator.forgets = {"AI_TOKEN"}
    assert await world.close_all() == 0
    world.aggregator.forgets = set()
    assert await world.close_all() == 1
