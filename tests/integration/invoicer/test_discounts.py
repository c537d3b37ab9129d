"""Discounts of plans and subscriptions, and what a plan costs at least and at most a period."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.checks import MetricPriceInput, QuoteInput
from services.invoicer.domain import Invoice
from services.invoicer.term_checks import DISCOUNTS_MAX, DiscountInput
from services.kit.errors import InvalidArgumentError, NotFoundError, PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

MONTHS = [utc(f"2026-{month:02}-01") for month in range(1, 7)]
JANUARY, FEBRUARY, MARCH, APRIL, MAY, JUNE = MONTHS
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"})
TEN_PERCENT = DiscountInput(percent="10")


def plan(**changes: Any) -> Any:
    """100.00 a month and 0.01 a call."""
    return pro_plan(**({"metrics": [CALLS]} | changes))


def told(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.kind.value, str(line.amount)) for line in invoice.lines if line.amount]


async def closed_at(world: World, month_end: datetime) -> Invoice:
    """The newest invoice after closing the period that ended then."""
    world.at(month_end + GRACE)
    assert await world.close_all() == 1
    return (await world.all_invoices())[-1]


def put(world: World, month: datetime, quantity: str) -> None:
    world.aggregator.put(world.tenant, "user_123", "API_CALL", month, quantity)


async def test_a_percentage_comes_off_each_price_of_the_first_periods(world: World) -> None:
    launch = DiscountInput("Launch", percent="10", periods=2)
    await world.subscribe(start=JANUARY, plan=plan(discounts=[launch]))
    put(world, JANUARY, "2550")
    first = await closed_at(world, FEBRUARY)
    # 100.00 x 90 / 100 = 90.00; 2,550 x 0.01 = 25.50, x 90 / 100 = 22.95
    assert [(line.description, str(line.amount)) for line in first.lines] == [
        ("Pro: base price, less 10 %", "90.00"),
        ("API_CALL: 2,550, 2,550 x 0.01, less 10 %", "22.95"),
    ]
    assert list(first.lines[1].steps) == [
        "2,550 x 0.01 = 25.5",
        "discount of 10 %: 25.5 x 90 / 100 = 22.95",
    ]
    assert str((await closed_at(world, MARCH)).amount) == "90.00"
    assert str((await closed_at(world, APRIL)).amount) == "100.00"


async def test_a_percentage_comes_before_the_maximum_and_the_minimum_of_a_price(
    world: World,
) -> None:
    # 1,000 x 1 = 1,000, less 10 % = 900, at most 950: 900. 950 first would be 855.
    most = MetricPriceInput("A", "PER_UNIT", "", {"unitPrice": "1"}, maximum="950")
    # 50 x 1 = 50, less 10 % = 45, at least 48: 48.
    least = MetricPriceInput("B", "PER_UNIT", "", {"unitPrice": "1"}, minimum="48")
    quoted = world.plans.quote_plan(
        QuoteInput(
            plan(metrics=[most, least], base_price="0", discounts=[TEN_PERCENT]),
            quantities={"A": "1000", "B": "50"},
        )
    )
    assert [str(line.amount) for line in quoted.lines] == ["0.00", "900.00", "48.00"]


async def test_usage_that_is_late_has_the_discount_of_its_period(world: World) -> None:
    once = DiscountInput(percent="10", periods=1)
    await world.subscribe(start=JANUARY, plan=plan(discounts=[once]))
    await closed_at(world, FEBRUARY)
    put(world, JANUARY, "1000")
    second = await closed_at(world, MARCH)
    # 1,000 x 0.01 = 10.00 of January, less 10 %
    assert told(second) == [("BASE", "100.00"), ("LATE_USAGE", "9.00")]


async def test_an_amount_comes_off_the_sum_and_never_more_than_there_is(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=plan(base_price="15"))
    made = await world.discounts.create_discount(
        world.tenant, subscription.id, DiscountInput("Thanks", amount="20", periods=2)
    )
    assert (made.start_time, made.end_time) == (JANUARY, MARCH)
    put(world, JANUARY, "1000")
    first = await closed_at(world, FEBRUARY)
    # 15.00 + 10.00 - 20.00
    assert told(first) == [("BASE", "15.00"), ("USAGE", "10.00"), ("DISCOUNT", "-20.00")]
    assert list(first.lines[-1].steps) == [
        "Thanks: 25.00 - 20.00 = 5.00",
        "to be billed: -20.00",
    ]
    second = await closed_at(world, MARCH)
    assert told(second) == [("BASE", "15.00"), ("DISCOUNT", "-15.00")]
    assert told(await closed_at(world, APRIL)) == [("BASE", "15.00")]


async def test_late_usage_uses_up_what_is_left_of_an_amount(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=plan(base_price="15"))
    await world.discounts.create_discount(
        world.tenant, subscription.id, DiscountInput(amount="20", periods=1)
    )
    assert (await closed_at(world, FEBRUARY)).amount == 0
    put(world, JANUARY, "800")
    second = await closed_at(world, MARCH)
    # January is 15.00 + 8.00 - 20.00 = 3.00, of which nothing was billed: 8.00 - 5.00.
    assert told(second) == [("BASE", "15.00"), ("LATE_USAGE", "8.00"), ("DISCOUNT", "-5.00")]
    assert second.lines[-1].description == "Discount (2026-01-01 to 2026-02-01)"
    assert second.lines[-1].period.start == JANUARY


async def test_an_amount_is_given_once_a_period_also_with_a_base_price_in_advance(
    world: World,
) -> None:
    world.at(JANUARY)
    in_advance = plan(base_price_timing="IN_ADVANCE", discounts=[DiscountInput(amount="120")])
    await world.subscribe(start=JANUARY, plan=in_advance)
    assert await world.close_all() == 1
    (opening,) = await world.all_invoices()
    assert told(opening) == [("BASE", "100.00"), ("DISCOUNT", "-100.00")]
    put(world, JANUARY, "5000")
    first = await closed_at(world, FEBRUARY)
    # January: 100.00 + 50.00 - 120.00 = 30.00; February's base price has its own 120.00.
    assert told(first) == [
        ("BASE", "100.00"),
        ("USAGE", "50.00"),
        ("DISCOUNT", "-20.00"),
        ("DISCOUNT", "-100.00"),
    ]
    assert str(first.amount) == "30.00"


async def test_a_maximum_comes_after_discounts_and_a_minimum_after_both(world: World) -> None:
    await world.subscribe(
        start=JANUARY,
        plan=plan(
            base_price="0", minimum="50", maximum="100", discounts=[DiscountInput(amount="20")]
        ),
    )
    put(world, JANUARY, "13000")
    # 130.00 - 20.00 = 110.00, at most 100.00
    assert told(await closed_at(world, FEBRUARY)) == [
        ("USAGE", "130.00"),
        ("DISCOUNT", "-20.00"),
        ("MAXIMUM", "-10.00"),
    ]
    put(world, FEBRUARY, "6000")
    # 60.00 - 20.00 = 40.00, at least 50.00
    second = await closed_at(world, MARCH)
    assert told(second) == [("USAGE", "60.00"), ("DISCOUNT", "-20.00"), ("MINIMUM", "10.00")]
    put(world, FEBRUARY, "8000")
    # February becomes 80.00 - 20.00 = 60.00, of which 50.00 was billed; March is 0 raised to 50.00.
    assert told(await closed_at(world, APRIL)) == [
        ("LATE_USAGE", "20.00"),
        ("MINIMUM", "50.00"),
        ("MINIMUM", "-10.00"),
    ]


async def test_a_minimum_of_a_part_of_a_period_is_its_share(world: World) -> None:
    start = utc("2026-01-17")
    await world.subscribe(start=start, plan=plan(base_price="0", minimum="62"))
    # 62 x 15 / 31 days
    assert told(await closed_at(world, FEBRUARY)) == [("MINIMUM", "30.00")]
    assert told(await closed_at(world, MARCH)) == [("MINIMUM", "62.00")]


async def test_a_discount_that_is_ended_is_not_in_what_is_billed_after(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=plan())
    made = await world.discounts.create_discount(world.tenant, subscription.id, TEN_PERCENT)
    assert str((await closed_at(world, FEBRUARY)).amount) == "90.00"
    put(world, JANUARY, "1000")
    ended = await world.discounts.end_discount(world.tenant, made.id)
    assert ended.end_time == FEBRUARY
    assert await world.discounts.end_discount(world.tenant, made.id) == ended
    assert await world.discounts.list_discounts(world.tenant, subscription.id) == [ended]
    # January keeps what it was promised: 10.00 less 10 %.
    assert told(await closed_at(world, MARCH)) == [("BASE", "100.00"), ("LATE_USAGE", "9.00")]


async def test_a_discount_of_which_a_base_price_was_charged_ends_with_its_period(
    world: World,
) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(
        start=JANUARY, plan=plan(base_price_timing="IN_ADVANCE", metrics=[])
    )
    amount = DiscountInput(amount="30")
    made = await world.discounts.create_discount(world.tenant, subscription.id, amount)
    assert await world.close_all() == 1
    ended = await world.discounts.end_discount(world.tenant, made.id)
    assert ended.end_time == FEBRUARY
    assert told(await closed_at(world, FEBRUARY)) == [("BASE", "100.00")]
    amounts = [str(invoice.amount) for invoice in await world.all_invoices()]
    assert amounts == ["70.00", "100.00"]


async def test_a_preview_and_an_invoice_that_is_being_computed_have_a_new_discount(
    world: World,
) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=plan())
    world.at(FEBRUARY + GRACE)
    world.aggregator.answering.clear()
    closing = asyncio.create_task(world.closer.close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), 20)
    await world.discounts.create_discount(world.tenant, subscription.id, TEN_PERCENT)
    world.aggregator.answering.set()
    assert await closing == 0
    preview = (await world.invoices.preview_invoice(world.tenant, subscription.id)).draft
    assert str(preview.amount) == "90.00"
    assert await world.close_all() == 1
    assert [str(each.amount) for each in await world.all_invoices()] == ["90.00"]


@pytest.mark.parametrize(
    ("currency", "base", "percent", "expected"),
    [
        ("JPY", "999", "12.5", "874"),  # 999 x 87.5 / 100 = 874.125
        ("JPY", "1000", "0.05", "1000"),  # 999.5, half up
        ("USD", "99.99", "33.333", "66.66"),  # 99.99 x 66.667 / 100 = 66.660...
        ("KWD", "10.005", "10", "9.005"),  # 9.0045, half up
        ("USD", "0.01", "50", "0.01"),  # 0.005, half up
        ("USD", "100", "100", "0.00"),
    ],
)
async def test_discounts_are_rounded_once_to_the_currencys_minor_units(
    world: World, currency: str, base: str, percent: str, expected: str
) -> None:
    given = plan(
        currency=currency, base_price=base, metrics=[], discounts=[DiscountInput(percent=percent)]
    )
    quoted = world.plans.quote_plan(QuoteInput(given))
    assert [str(line.amount) for line in quoted.lines] == [expected]


async def test_discounts_in_percent_come_one_after_the_other(world: World) -> None:
    given = plan(metrics=[], discounts=[TEN_PERCENT, DiscountInput(percent="20")])
    quoted = world.plans.quote_plan(QuoteInput(given))
    # 100 x 90 / 100 x 80 / 100
    assert quoted.amount == Decimal("72.00")
    assert quoted.lines[0].steps == (
        "discount of 10 %: 100 x 90 / 100 = 90",
        "discount of 20 %: 90 x 80 / 100 = 72",
    )


async def test_a_plan_comes_back_with_its_discounts_and_limits(world: World) -> None:
    discounts = [DiscountInput("A", percent="10", periods=3), DiscountInput("B", amount="5.5")]
    made = await world.plans.create_plan(
        world.tenant, plan(discounts=discounts, minimum="1", maximum="2.5")
    )
    assert await world.plans.get_plan(world.tenant, made.id, 0) == made
    assert made.content.discounts[1].amount == Decimal("5.5")


async def test_what_is_wrong_with_a_discount_is_named_all_at_once(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    wrong = DiscountInput("x\x00", percent="101", amount="-1", periods=625)
    with pytest.raises(InvalidArgumentError) as caught:
        await world.discounts.create_discount(world.tenant, subscription.id, wrong)
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["name", "percent", "percent", "amount", "amount", "periods"]
    with pytest.raises(InvalidArgumentError, match="give either percent or amount"):
        await world.discounts.create_discount(world.tenant, subscription.id, DiscountInput())
    with pytest.raises(InvalidArgumentError) as caught:
        await world.plans.create_plan(
            world.tenant, plan(discounts=[TEN_PERCENT, wrong], minimum="2", maximum="1")
        )
    fields = [problem.field for problem in caught.value.problems]
    assert fields[0] == "discounts[1].name"
    assert fields[-1] == "maximum"
    too_many = [TEN_PERCENT] * (DISCOUNTS_MAX + 1)
    with pytest.raises(InvalidArgumentError, match="discounts: must be at most"):
        await world.plans.create_plan(world.tenant, plan(discounts=too_many))


async def test_a_subscription_has_so_many_discounts_at_a_time(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    for _ in range(DISCOUNTS_MAX):
        await world.discounts.create_discount(
            world.tenant, subscription.id, DiscountInput(percent="1", periods=1)
        )
    with pytest.raises(PreconditionError, match="at most 20 discounts"):
        await world.discounts.create_discount(world.tenant, subscription.id, TEN_PERCENT)
    await closed_at(world, FEBRUARY)
    await world.discounts.create_discount(world.tenant, subscription.id, TEN_PERCENT)


async def test_a_subscription_that_has_ended_gets_no_discount(world: World) -> None:
    subscription = await world.subscribe(start=FEBRUARY)
    made = await world.discounts.create_discount(world.tenant, subscription.id, TEN_PERCENT)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    with pytest.raises(PreconditionError, match="has ended"):
        await world.discounts.create_discount(world.tenant, subscription.id, TEN_PERCENT)
    assert await world.discounts.end_discount(world.tenant, made.id) == made


async def test_discounts_of_another_tenant_are_not_found(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    made = await world.discounts.create_discount(world.tenant, subscription.id, TEN_PERCENT)
    stranger = new_tenant()
    for call in (
        world.discounts.create_discount(stranger, subscription.id, TEN_PERCENT),
        world.discounts.list_discounts(stranger, subscription.id),
        world.discounts.end_discount(stranger, made.id),
        world.discounts.end_discount(world.tenant, "disc_1"),
    ):
        with pytest.raises(NotFoundError):
            await call
    assert await world.discounts.list_discounts(world.tenant, subscription.id) == [made]


COLUMNS = "organization_id, mode, id, subscription_id, name, percent, amount, periods"
COPY = f"INSERT INTO discounts ({COLUMNS}, start_time, end_time, create_time) SELECT "


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE discounts SET percent = 50", "nothing of a discount changes but its end"),
        ("UPDATE discounts SET start_time = '2026-03-01Z'", "nothing of a discount changes"),
        ("UPDATE discounts SET end_time = '2026-01-15Z'", "for periods that are invoiced"),
        ("UPDATE discounts SET end_time = '2026-09-01Z'", "only ends earlier"),
        ("UPDATE discounts SET end_time = NULL", "only ends earlier"),
        ("DELETE FROM discounts", "DELETE of discounts is refused"),
        ("TRUNCATE discounts", "TRUNCATE of discounts is refused"),
        (
            COPY + "organization_id, mode, 'x', subscription_id, '', 5, NULL, NULL, start_time, "
            "NULL, create_time FROM discounts",
            "for periods that are invoiced",
        ),
        (
            COPY + "organization_id, mode, 'x', subscription_id, '', 5, 5, NULL, '2026-02-01Z', "
            "NULL, create_time FROM discounts",
            "ck_discounts_kind",
        ),
        (
            COPY + "organization_id, mode, 'x', subscription_id, '', 101, NULL, NULL, "
            "'2026-02-01Z', NULL, create_time FROM discounts",
            "ck_discounts_percent",
        ),
        (
            COPY + "organization_id, 'live', 'x', subscription_id, '', 5, NULL, NULL, "
            "'2026-02-01Z', NULL, create_time FROM discounts",
            "fk_discounts_subscriptions|for periods that are invoiced",
        ),
        ("UPDATE plan_versions SET discounts = '[]'", "UPDATE of plan_versions is refused"),
        (
            "INSERT INTO plan_versions SELECT (jsonb_populate_record(v, "
            '\'{"version": 2, "minimum": 5, "maximum": 4}\')).* FROM plan_versions v',
            "ck_plan_versions_maximum",
        ),
    ],
)
async def test_the_database_keeps_discounts_as_they_were_billed(
    world: World, statement: str, why: str
) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await world.discounts.create_discount(
        world.tenant, subscription.id, DiscountInput(percent="10", periods=6)
    )
    await closed_at(world, FEBRUARY)
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            await connection.execute(text(statement))
