"""What a plan would have cost: the same as its invoices, and nothing is written."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event, text

from services.invoicer.checks import CustomerInput, MetricPriceInput, PlanInput
from services.invoicer.service import simulations as service
from services.invoicer.service.simulations import SimulatedPart, Simulations
from services.invoicer.service.subscriptions import SubscriptionInput
from services.invoicer.simulation import CustomerCost, Totals
from services.invoicer.simulation_checks import SimulationInput
from services.invoicer.simulation_servicer import SimulationServicer
from services.invoicer.term_checks import DiscountInput
from services.kit.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from tests.integration.invoicer.serving import Api, serving
from tests.integration.invoicer.stand_ins import GRACE, World, pro_plan, utc
from tests.integration.invoicer.test_invoicer_grpc import pro

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
# 50.00 and 0.02 a call: more for whoever calls much, less for whoever does not.
CHEAP = pro_plan(
    name="",
    base_price="50.00",
    metrics=[MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.02"})],
)


@pytest.fixture
def simulations(world: World) -> Simulations:
    return Simulations(world.database, world.usage, world.clock, world.metrics)


def asked(plan: PlanInput = CHEAP, months: str = "2026-01 2026-01", **more: Any) -> SimulationInput:
    first, last = months.split()
    return SimulationInput(plan, first, last, **more)


async def parts_of(
    simulations: Simulations, world: World, given: SimulationInput
) -> list[SimulatedPart]:
    return [part async for part in simulations.simulate(world.tenant, given)]


async def run(
    simulations: Simulations, world: World, given: SimulationInput
) -> tuple[dict[str, CustomerCost], Totals]:
    parts = await parts_of(simulations, world, given)
    assert all(part.totals is None for part in parts[:-1])
    assert parts[-1].totals is not None
    return {cost.customer_id: cost for part in parts for cost in part.costs}, parts[-1].totals


def shown(cost: CustomerCost) -> tuple[str, str, str]:
    return f"{cost.old_amount}", f"{cost.new_amount}", f"{cost.difference}"


async def test_old_is_what_was_invoiced_and_new_what_the_plan_invoices(
    world: World, simulations: Simulations
) -> None:
    """In the middle of a month, with seats, a pause, a discount: like the invoices of each plan."""
    world.at(JANUARY)
    cheap = await world.plans.create_plan(
        world.tenant,
        pro_plan(
            base_price="50.00",
            metrics=[MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.02"})],
            discounts=[DiscountInput("Launch", percent="10", periods=1), DiscountInput(amount="3")],
            minimum="60",
        ),
    )
    dear = await world.plans.create_plan(world.tenant, pro_plan())
    for customer_id, plan in (("now", dear), ("then", cheap)):
        given = SubscriptionInput(
            customer_id, plan.id, utc("2026-01-11"), "CALENDAR", trial_days=5, quantity=3
        )
        made, _ = await world.subscriptions.create_subscription(world.tenant, given)
        world.at(utc("2026-02-10"))
        await world.subscriptions.pause_subscription(
            world.tenant, made.id, "NOW", utc("2026-02-20")
        )
        for start, quantity in (
            (utc("2026-01-16"), "12345"),
            (FEBRUARY, "20000"),
            (utc("2026-02-20"), "777"),
        ):
            world.aggregator.put(world.tenant, customer_id, "API_CALL", start, quantity)
            world.aggregator.put(world.tenant, customer_id, "AI_TOKEN", start, "1000001")
        world.at(JANUARY)
    world.at(MARCH + GRACE)
    await world.close_all()
    billed = {
        customer_id: sum(
            (
                invoice.amount
                for invoice in await world.all_invoices()
                if invoice.customer_id == customer_id
            ),
            Decimal(0),
        )
        for customer_id in ("now", "then")
    }
    found, totals = await run(
        simulations,
        world,
        asked(
            pro_plan(
                name="",
                base_price="50.00",
                base_price_timing="IN_ADVANCE",
                setup_fee="500",
                metrics=[MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.02"})],
                discounts=[
                    DiscountInput("Launch", percent="10", periods=1),
                    DiscountInput(amount="3"),
                ],
                minimum="60",
            ),
            "2026-01 2026-02",
        ),
    )
    assert found["now"].old_amount == billed["now"]
    assert found["now"].new_amount == billed["then"]
    assert found["then"].old_amount == found["then"].new_amount == billed["then"]
    assert (totals.customers, totals.more + totals.less) == (2, 1)
    assert totals.old_amount == billed["now"] + billed["then"]
    assert totals.as_of == MARCH + GRACE


async def test_an_amount_is_told_for_whoever_is_asked_for(
    world: World, simulations: Simulations
) -> None:
    world.at(FEBRUARY + GRACE)
    ours = await world.subscribe("ours", start=JANUARY)
    await world.subscribe("other", start=JANUARY)
    await world.customers.put_customer(world.tenant, CustomerInput("nobody yet"))
    for customer_id, quantity in (("ours", "15000"), ("other", "100"), ("nobody yet", "10")):
        world.aggregator.put(world.tenant, customer_id, "API_CALL", JANUARY, quantity)
    found, totals = await run(simulations, world, asked())
    # 100 + 5,000 x 0.01 = 150 and 50 + 15,000 x 0.02 = 350; 100 and 50 + 100 x 0.02 = 52
    assert {name: shown(cost) for name, cost in found.items()} == {
        "ours": ("150.00", "350.00", "200.00"),
        "other": ("100.00", "52.00", "-48.00"),
    }
    assert (totals.customers, totals.more, totals.less) == (2, 1, 1)
    assert (str(totals.old_amount), str(totals.new_amount)) == ("250.00", "402.00")
    found, _ = await run(simulations, world, asked(plan_id=ours.plan_id))
    assert list(found) == ["ours"]
    found, _ = await run(simulations, world, asked(customer_ids=("nobody yet", "other")))
    # 50 + 10 x 0.02
    assert shown(found["nobody yet"]) == ("0", "50.20", "50.20")
    assert found["nobody yet"].subscriptions == 0
    assert list(found) == ["nobody yet", "other"]


async def test_months_before_a_subscription_began_count_as_if_it_had(
    world: World, simulations: Simulations
) -> None:
    """Who has just begun, with usage from before, asks what that would have cost."""
    world.at(FEBRUARY + GRACE)
    await world.subscribe(start=FEBRUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "15000")
    found, _ = await run(simulations, world, asked())
    assert shown(found["user_123"]) == ("150.00", "350.00", "200.00")


async def test_a_plan_of_quarters_is_charged_for_its_share_and_one_of_weeks_for_each(
    world: World, simulations: Simulations
) -> None:
    world.at(FEBRUARY + GRACE)
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    quarterly = pro_plan(name="", base_price="90", billing_period="QUARTERLY", metrics=[])
    found, _ = await run(simulations, world, asked(quarterly))
    # 90 x 31 / 90 days
    assert shown(found["user_123"]) == ("100.00", "31.00", "-69.00")
    weekly = pro_plan(name="", base_price="7", billing_period="WEEKLY", metrics=[])
    found, _ = await run(simulations, world, asked(weekly))
    # From Thursday 1 January: 4 days, three weeks, 6 days: 4 + 21 + 6
    assert str(found["user_123"].new_amount) == "31.00"


async def test_other_currencies_are_told_and_are_in_no_sum(
    world: World, simulations: Simulations
) -> None:
    world.at(FEBRUARY + GRACE)
    await world.subscribe("yen", start=JANUARY, plan=pro_plan(currency="JPY", metrics=[]))
    found, totals = await run(simulations, world, asked())
    assert (found["yen"].old_currency, shown(found["yen"])) == ("JPY", ("100", "50.00", "None"))
    assert (totals.customers, totals.other_currency, totals.new_amount) == (0, 1, Decimal(0))


async def test_nothing_is_written_and_nothing_could_be(
    world: World, simulations: Simulations
) -> None:
    """Each transaction begins by giving up the right to write."""
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    statements: list[str] = []
    begun: list[int] = []
    engine = world.database.engine.sync_engine

    def on_begin(_connection: Any) -> None:
        begun.append(len(statements))

    def on_statement(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    async def state() -> list[object]:
        found: list[object] = []
        async with world.database.transaction() as connection:
            tables = "SELECT relname FROM pg_stat_user_tables ORDER BY 1"
            for name in (await connection.execute(text(tables))).scalars().all():
                found += (await connection.execute(text(f'SELECT * FROM "{name}"'))).all()
        return found

    before = await state()
    event.listen(engine, "begin", on_begin)
    event.listen(engine, "before_cursor_execute", on_statement)
    try:
        await run(simulations, world, asked())
    finally:
        event.remove(engine, "begin", on_begin)
        event.remove(engine, "before_cursor_execute", on_statement)
    assert begun
    assert all("READ ONLY" in statements[index] for index in begun)
    assert await state() == before


async def test_usage_that_both_plans_need_is_asked_for_once_for_many_customers(
    world: World, simulations: Simulations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CUSTOMERS_A_PART", 3)
    world.at(MARCH + GRACE)
    for number in range(7):
        await world.subscribe(f"customer_{number}", start=JANUARY)
    dimensions = {
        "prices": [{"match": {"model": "big"}, "unitPrice": "2"}],
        "unitPrice": "1",
    }
    plan = pro_plan(
        base_price="0",
        metrics=[
            MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.02"}),
            MetricPriceInput("AI_TOKEN", "DIMENSIONAL", "", dimensions),
        ],
    )
    key = (world.tenant, "customer_0", "AI_TOKEN", JANUARY)
    world.aggregator.put_groups(*key, ({"model": "big"}, "3"), ({"model": "small"}, "4"))
    parts = await parts_of(simulations, world, asked(plan, "2026-01 2026-02"))
    assert [(part.done, part.customers) for part in parts] == [(0, 7), (3, 7), (6, 7), (7, 7)]
    # 3 x 2 + 4 x 1
    assert str(parts[1].costs[0].new_amount) == "10.00"
    requests = world.aggregator.requests
    # A customer's month: what both ask for, and the tokens by dimension.
    assert [len(each.selections) for each in requests] == [3 * 2 * 2, 3 * 2 * 2, 2 * 2]
    assert [list(each.metrics) for each in requests[0].selections[:2]] == [
        ["API_CALL", "AI_TOKEN"],
        ["AI_TOKEN"],
    ]


async def test_no_more_run_at_a_time_than_may(world: World, simulations: Simulations) -> None:
    running = [simulations.simulate(world.tenant, asked()) for _ in range(2)]
    for each in running:
        await anext(each)
    with pytest.raises(UnavailableError, match="try again later"):
        await parts_of(simulations, world, asked())
    for each in running:
        await each.aclose()
    assert await parts_of(simulations, world, asked())


async def test_aggregator_that_is_away_ends_it(world: World, simulations: Simulations) -> None:
    await world.subscribe(start=JANUARY)
    world.aggregator.away = True
    with pytest.raises(UnavailableError):
        await parts_of(simulations, world, asked())


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (asked(months="2026-01 2025-12"), "from"),
        (asked(months="2025-01 2026-01"), "to"),
        (asked(months="2026-01 2026-02"), "to"),
        (asked(months="26-01 2026-01"), "from"),
        (asked(pro_plan(currency="XYZ")), "currency"),
        (asked(customer_ids=("",)), "customerIds[0]"),
        (asked(customer_ids=("unknown",)), "customerIds"),
        (asked(plan_id="pro"), "planId"),
    ],
)
async def test_what_is_wrong_is_named(
    world: World, simulations: Simulations, given: SimulationInput, field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await parts_of(simulations, world, given)
    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.fixture
async def api(world: World, simulations: Simulations) -> AsyncIterator[Api]:
    """The service of `world` on a port of its own."""
    async with serving(world, SimulationServicer(simulations)) as api:
        yield api


async def simulate(api: Api, key: str = "ours-read", **request: Any) -> list[Any]:
    """All parts of the answer."""
    given = {"plan": pro(), "from_month": "2026-01", "to_month": "2026-01", **request}
    parts: list[Any] = await api.call("SimulatePlan", key, **given)
    return parts


async def test_over_grpc_with_nothing_of_another_tenant(world: World, api: Api) -> None:
    world.at(FEBRUARY + GRACE)
    subscription = await world.subscribe(start=JANUARY)
    begun, last = await simulate(api)
    assert (begun.customers_done, begun.customers_total) == (0, 1)
    (cost,) = last.customers
    assert (cost.old_amount, cost.new_amount, cost.difference) == ("100.00", "100.00", "0.00")
    assert (last.total.customers, last.total.currency) == (1, "USD")
    for stranger in ("theirs-read", "ours-read-live"):
        assert (await simulate(api, stranger))[-1].customers_total == 0
        with pytest.raises(NotFoundError):
            await simulate(api, stranger, plan_id=subscription.plan_id)
        with pytest.raises(InvalidArgumentError, match='no customer "user_123"'):
            await simulate(api, stranger, customer_ids=["user_123"])
