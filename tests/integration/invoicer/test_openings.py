"""What is due when a subscription starts: setup fees, and base prices in advance."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.checks import MetricPriceInput, QuoteInput
from services.invoicer.domain import Invoice
from services.kit.errors import InvalidArgumentError
from tests.integration.invoicer.stand_ins import GRACE, World, pro_plan, utc

JANUARY, MIDDLE, FEBRUARY, MARCH = map(
    utc, ("2026-01-01", "2026-01-16", "2026-02-01", "2026-03-01")
)
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"})
ADVANCE = pro_plan(base_price_timing="IN_ADVANCE", metrics=[CALLS])


def told(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.description, str(line.amount)) for line in invoice.lines]


async def test_a_base_price_in_advance_is_charged_at_the_start_and_then_before_each_period(
    world: World,
) -> None:
    world.at(MIDDLE)
    subscription = await world.subscribe(start=MIDDLE, plan=ADVANCE)
    assert await world.close_all() == 1
    (opening,) = await world.all_invoices()
    # 100.00 x 16 / 31 days
    assert told(opening) == [
        ("Pro: base price, 16 of 31 days, 2026-01-16 to 2026-02-01 in advance", "51.61")
    ]
    assert opening.period == subscription.period
    assert await world.close_all() == 0
    world.aggregator.put(world.tenant, "user_123", "API_CALL", MIDDLE, "250")
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    assert told((await world.all_invoices())[1]) == [
        ("Pro: base price, 2026-02-01 to 2026-03-01 in advance", "100.00"),
        ("API_CALL: 250, 250 x 0.01", "2.50"),
    ]


async def test_usage_that_is_late_for_the_first_period_is_found_once(world: World) -> None:
    world.at(JANUARY)
    await world.subscribe(start=JANUARY, plan=ADVANCE)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 2
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "100")
    world.at(MARCH + GRACE)
    assert await world.close_all() == 1
    late = [line for line in (await world.all_invoices())[2].lines if line.period.start == JANUARY]
    assert [str(line.amount) for line in late] == ["1.00"]


async def test_the_invoice_of_a_last_period_has_no_base_price_in_advance(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=ADVANCE)
    assert await world.close_all() == 1
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    assert told((await world.all_invoices())[1]) == [("API_CALL: 0, 0 x 0.01", "0.00")]
    world.at(MARCH + GRACE)
    assert await world.close_all() == 0


async def test_a_setup_fee_is_charged_once(world: World) -> None:
    world.at(JANUARY)
    await world.subscribe(start=JANUARY, plan=pro_plan(setup_fee="49.9", metrics=[]))
    assert await world.close_all() == 1
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    assert [told(invoice) for invoice in await world.all_invoices()] == [
        [("Pro: setup fee, once", "49.90")],
        [("Pro: base price", "100.00")],
    ]


async def test_a_setup_fee_and_a_base_price_in_advance_are_one_invoice(world: World) -> None:
    world.at(JANUARY)
    plan = pro_plan(setup_fee="50", base_price_timing="IN_ADVANCE", metrics=[])
    await world.subscribe(start=JANUARY, plan=plan)
    assert await world.close_all() == 1
    (opening,) = await world.all_invoices()
    assert str(opening.amount) == "150.00"


async def test_a_start_in_the_future_is_invoiced_when_it_comes(world: World) -> None:
    await world.subscribe(start=FEBRUARY, plan=ADVANCE)
    world.at(FEBRUARY - timedelta(seconds=1))
    assert await world.close_all() == 0
    world.at(FEBRUARY)
    assert await world.close_all() == 1


async def test_a_subscription_that_never_begins_has_no_opening(world: World) -> None:
    subscription = await world.subscribe(start=FEBRUARY, plan=ADVANCE)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    world.at(MARCH + GRACE)
    assert await world.close_all() == 0


async def test_a_start_in_the_past_has_its_opening_before_its_periods(world: World) -> None:
    world.at(MARCH + GRACE)
    await world.subscribe(start=JANUARY, plan=ADVANCE)
    assert await world.close_all() == 3
    found = await world.all_invoices()
    assert [len(invoice.lines) for invoice in found] == [1, 2, 2]
    assert [invoice.number for invoice in found] == ["INV-000001", "INV-000002", "INV-000003"]


async def test_replicas_write_each_opening_once(world: World) -> None:
    world.at(JANUARY)
    for number in range(20):
        await world.subscribe(f"user_{number}", start=JANUARY, plan=ADVANCE)
    closers = [world.new_closer(chunk_max=3, batch_max=2) for _ in range(3)]

    async def work(index: int) -> None:
        while await closers[index].close_chunk():
            pass

    await asyncio.gather(*(work(index) for index in range(3)))
    await world.close_all()
    found = await world.all_invoices()
    assert len(found) == len({invoice.subscription_id for invoice in found}) == 20


async def test_the_database_refuses_a_second_opening_and_one_after_the_first_period(
    world: World,
) -> None:
    world.at(JANUARY)
    await world.subscribe(start=JANUARY, plan=ADVANCE)
    assert await world.close_all() == 1
    with pytest.raises(DBAPIError, match="uq_invoices_period"):
        async with world.database.transaction() as connection:
            await connection.execute(
                text(
                    "INSERT INTO invoices (organization_id, mode, id, customer_id, subscription_id,"
                    " plan_id, plan_version, period_start, period_end, currency, amount, kind,"
                    " create_time) SELECT organization_id, mode, id || 'x', customer_id,"
                    " subscription_id, plan_id, plan_version, period_start, period_end, currency,"
                    " amount, kind, create_time FROM invoices"
                )
            )
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    with pytest.raises(DBAPIError, match="comes with the period that it opens"):
        async with world.database.transaction() as connection:
            await connection.execute(text("UPDATE subscriptions SET opening = true"))


async def test_a_quote_shows_the_setup_fee(world: World) -> None:
    plan = pro_plan(setup_fee="50", base_price_timing="IN_ADVANCE", metrics=[])
    quoted = world.plans.quote_plan(QuoteInput(plan))
    assert [(line.description, str(line.amount)) for line in quoted.lines] == [
        ("Pro: setup fee, once", "50.00"),
        ("Pro: base price", "100.00"),
    ]


async def test_wrong_timing_and_fee_are_named(world: World) -> None:
    plan = pro_plan(setup_fee="-1", base_price_timing="SOMETIMES")
    with pytest.raises(InvalidArgumentError) as caught:
        await world.plans.create_plan(world.tenant, plan)
    assert [problem.field for problem in caught.value.problems] == ["basePriceTiming", "setupFee"]
