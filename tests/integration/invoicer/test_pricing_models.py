"""Every pricing model, from the plan over gRPC to the invoice in the database."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from services.invoicer import messages
from services.invoicer.checks import MetricPriceInput
from services.invoicer.domain import Invoice, LineKind
from services.invoicer.readings import Counted
from services.invoicer.service.paging import Page
from tests.integration.invoicer.stand_ins import GRACE, World, pro_plan, utc
from tests.unit.invoicer.calculator import follow

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
TIERS = [
    {"upTo": "100", "unitPrice": "0.10", "flatPrice": "1"},
    {"upTo": None, "unitPrice": "0.05", "flatPrice": "2"},
]
DIMENSIONS = {
    "prices": [
        {"match": {"model": "gpt-4"}, "unitPrice": "0.03"},
        {"match": {"model": "gpt-4", "region": "eu"}, "unitPrice": "0.04"},
    ],
    "unitPrice": "0.01",
}


def price(model: str, parameters: dict[str, Any], **more: str) -> MetricPriceInput:
    return MetricPriceInput("M", model, parameters=parameters, **{"included_units": "", **more})


async def subscribe(world: World, given: MetricPriceInput) -> None:
    await world.subscribe(start=JANUARY, plan=pro_plan(base_price="", metrics=[given]))


async def close(world: World) -> Invoice:
    """The newest invoice, when the next period has been closed."""
    month = MARCH if world.clock() >= FEBRUARY else FEBRUARY
    world.at(month + GRACE)
    assert await world.close_all() == 1
    return (await world.all_invoices())[-1]


@pytest.mark.parametrize(
    ("given", "amount"),
    [
        # 150 - 20 = 130: 100 x 0.10 + 1 + 30 x 0.05 + 2
        (price("GRADUATED", {"tiers": TIERS}, included_units="20"), "14.50"),
        # 150 x 0.05 + 2
        (price("VOLUME", {"tiers": TIERS}), "9.50"),
        (price("VOLUME", {"tiers": TIERS}, minimum="12"), "12.00"),
        (price("VOLUME", {"tiers": TIERS}, maximum="9"), "9.00"),
        (
            price("STAIRSTEP", {"tiers": [{"upTo": "9", "flatPrice": "5"}, {"flatPrice": "7"}]}),
            "7.00",
        ),
        # 150 / 40 -> 4 x 2.5
        (price("PACKAGE", {"packageSize": "40", "packagePrice": "2.5"}), "10.00"),
    ],
)
async def test_a_model_of_quantities_is_billed(
    world: World, given: MetricPriceInput, amount: str
) -> None:
    await subscribe(world, given)
    world.aggregator.put(world.tenant, "user_123", "M", JANUARY, "150")
    line = (await close(world)).lines[1]
    assert (line.metric, str(line.amount)) == ("M", amount)
    assert follow(line.steps) == line.amount


async def test_a_percentage_is_billed_by_the_sum_and_the_number_of_events(world: World) -> None:
    await subscribe(world, price("PERCENTAGE", {"rate": "1.5", "fixedPerEvent": "0.25"}))
    world.aggregator.put_events(world.tenant, "user_123", "M", JANUARY, "10", "250")
    line = (await close(world)).lines[1]
    # 260 x 1.5 / 100 + 2 x 0.25 = 3.90 + 0.50
    assert (str(line.quantity), str(line.amount), line.unit_price) == ("260", "4.40", None)
    assert follow(line.steps) == line.amount


async def test_a_late_event_of_nothing_has_its_fixed_price(world: World) -> None:
    """The quantity is what was billed, the amount is not."""
    await subscribe(world, price("PERCENTAGE", {"rate": "1.5", "fixedPerEvent": "0.25"}))
    world.aggregator.put_events(world.tenant, "user_123", "M", JANUARY, "10")
    await close(world)
    world.aggregator.put_events(world.tenant, "user_123", "M", JANUARY, "10", "0")
    late = (await close(world)).lines[-1]
    assert late.kind is LineKind.LATE_USAGE
    assert (late.quantity, str(late.amount)) == (Decimal(0), "0.25")


async def test_dimensions_have_each_their_price(world: World) -> None:
    await subscribe(world, price("DIMENSIONAL", DIMENSIONS, included_units="5"))
    world.aggregator.put_groups(
        world.tenant,
        "user_123",
        "M",
        JANUARY,
        ({"model": "gpt-4", "region": "us"}, "100"),
        ({"model": "gpt-4", "region": "eu"}, "10"),
        ({"model": "small"}, "50"),
    )
    line = (await close(world)).lines[1]
    # (10 - 5) x 0.04 + 100 x 0.03 + 50 x 0.01 = 0.20 + 3 + 0.50
    assert (str(line.quantity), str(line.amount)) == ("160", "3.70")
    assert line.steps == (
        "160 - 5 included = 155",
        "model=gpt-4, region=eu: 10 - 5 included = 5",
        "model=gpt-4, region=eu: 5 x 0.04 = 0.2",
        "model=gpt-4: 100 x 0.03 = 3",
        "other: 50 x 0.01 = 0.5",
        "0.2 + 3 + 0.5 = 3.7",
    )


async def test_late_usage_of_another_dimension_changes_the_bill(world: World) -> None:
    await subscribe(world, price("DIMENSIONAL", DIMENSIONS))
    key = (world.tenant, "user_123", "M", JANUARY)
    world.aggregator.put_groups(*key, ({"model": "gpt-4"}, "100"))
    assert str((await close(world)).lines[1].amount) == "3.00"
    world.aggregator.put_groups(*key, ({"model": "small"}, "100"))
    lines = (await close(world)).lines
    # 100 x 0.01 - 3.00, of which nothing fits on an invoice of 0.00
    assert [(line.kind.value, str(line.amount)) for line in lines[2:]] == [
        ("LATE_USAGE", "-2.00"),
        ("CREDIT_CARRIED", "2.00"),
    ]


async def test_a_minimum_is_due_without_usage_and_by_its_share_in_a_part_of_a_period(
    world: World,
) -> None:
    given = price("PER_UNIT", {"unitPrice": "1"}, minimum="31")
    plan = pro_plan(base_price="", metrics=[given])
    await world.subscribe(start=utc("2026-01-16"), plan=plan)
    line = (await close(world)).lines[1]
    # 31 x 16 / 31 days
    assert str(line.amount) == "16.00"
    assert line.steps == (
        "minimum: 31.00 USD x 1,382,400 s / 2,678,400 s = 16.00 USD, rounded half up",
        "0 x 1 = 0",
        "less than the minimum: 16",
    )
    world.aggregator.put(world.tenant, "user_123", "M", utc("2026-01-16"), "15")
    february = await close(world)
    # January: 15 x 1 is still less than its minimum
    amounts = [(line.kind.value, str(line.amount)) for line in february.lines]
    assert amounts == [("BASE", "0.00"), ("USAGE", "31.00"), ("LATE_USAGE", "0.00")]


EACH = price(
    "PERCENTAGE", {"rate": "10", "freeEvents": "1", "minPerEvent": "2", "maxPerEvent": "5"}
)


async def test_events_that_have_each_their_price_are_billed_as_they_happened(world: World) -> None:
    """One that comes late changes which are free: the whole less what was billed."""
    await subscribe(world, EACH)
    world.aggregator.counted_batch_ids = b"\1" * 16
    world.aggregator.put_events(world.tenant, "user_123", "M", JANUARY, "100", "10", "30", "80")
    subscription = (await world.subscriptions.list_subscriptions(world.tenant, "", Page()))[0][0]
    world.at(utc("2026-01-16T12:00"))
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    # 100 is free; 10 x 10 % = 1 -> 2; 30 x 10 % = 3; 80 x 10 % = 8 -> 5
    assert str(preview.draft.lines[1].amount) == "10.00"
    # Twice as many of each.
    assert str(preview.projected.lines[1].amount) == "20.00"
    line = (await close(world)).lines[1]
    assert (str(line.quantity), str(line.amount)) == ("220", "10.00")
    assert follow(line.steps) == line.amount
    asked = world.aggregator.amounts_asked[-1]
    assert asked.until == Counted(FEBRUARY + GRACE, b"\1" * 16)
    # An event of 20 that happened before all others: it is free now, and 100 x 10 % = 10 -> 5
    world.aggregator.put_events(
        world.tenant, "user_123", "M", JANUARY, "20", "100", "10", "30", "80"
    )
    late = (await close(world)).lines[-1]
    assert late.kind is LineKind.LATE_USAGE
    assert (str(late.quantity), str(late.amount)) == ("20", "5.00")
    assert follow(late.steps) == late.amount


async def test_without_all_of_the_events_nothing_is_guessed(world: World) -> None:
    """Retention may have dropped some: what was billed stays, what is not billed yet waits."""
    await subscribe(world, EACH)
    key = (world.tenant, "user_123", "M", JANUARY)
    world.aggregator.put_events(*key, "100", "10")
    kept = world.aggregator.amounts_of[key]
    world.aggregator.amounts_of[key] = kept[1:]
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 0
    world.aggregator.amounts_of[key] = kept
    # It is tried again after a pause, by the database's clock.
    async with world.database.transaction() as connection:
        await connection.execute(text("UPDATE subscriptions SET attempt_time = '-infinity'"))
    assert await world.close_all() == 1
    assert str((await world.all_invoices())[-1].lines[1].amount) == "2.00"
    world.aggregator.put(*key, "150")
    kinds = [line.kind for line in (await close(world)).lines]
    assert kinds == [LineKind.BASE, LineKind.USAGE]


PLAN = pb.Plan(
    name="All",
    currency="USD",
    metrics=[
        pb.MetricPrice(
            metric="G",
            model=pb.PRICING_MODEL_GRADUATED,
            included_units="5",
            tiers=[
                pb.PriceTier(up_to="100", unit_price="0.1", flat_price="1"),
                pb.PriceTier(unit_price="0.05", flat_price="0"),
            ],
            minimum="1.5",
            maximum="20",
        ),
        pb.MetricPrice(
            metric="S",
            model=pb.PRICING_MODEL_STAIRSTEP,
            included_units="0",
            tiers=[pb.PriceTier(up_to="1", flat_price="0"), pb.PriceTier(flat_price="9")],
        ),
        pb.MetricPrice(
            metric="P",
            model=pb.PRICING_MODEL_PACKAGE,
            included_units="0",
            package_size="40",
            package_price="2.5",
        ),
        pb.MetricPrice(
            metric="F",
            model=pb.PRICING_MODEL_PERCENTAGE,
            included_units="0",
            rate="1.5",
            fixed_per_event="0.25",
            free_amount="100",
        ),
        pb.MetricPrice(
            metric="D",
            model=pb.PRICING_MODEL_DIMENSIONAL,
            included_units="0",
            unit_price="0.01",
            prices=[pb.DimensionPrice(match={"model": "gpt-4"}, unit_price="0.03")],
        ),
    ],
)


async def test_a_plan_comes_back_as_it_was_made(world: World) -> None:
    made = await world.plans.create_plan(world.tenant, messages.plan_input(PLAN))
    found = await world.plans.get_plan(world.tenant, made.id, 0)
    assert list(messages.plan(found).metrics) == list(PLAN.metrics)
    again = messages.plan_input(messages.plan(found))
    assert (await world.plans.create_plan(world.tenant, again)).content == found.content
