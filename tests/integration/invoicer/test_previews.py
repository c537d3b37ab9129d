"""Previews: what an invoice would be now, what it will be at its period's end, nothing written."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from services.invoicer.checks import MetricPriceInput
from services.invoicer.domain import InvoiceDraft
from tests.integration.invoicer.stand_ins import GRACE, World, pro_plan, utc

JANUARY, FEBRUARY = utc("2026-01-01"), utc("2026-02-01")
# Ten of January's 31 days.
ELEVENTH = utc("2026-01-11")


def amounts(draft: InvoiceDraft) -> list[tuple[str, str, str]]:
    return [(line.metric, f"{line.quantity:f}", str(line.amount)) for line in draft.lines]


async def test_a_preview_projects_usage_by_the_time_that_is_left(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.at(ELEVENTH)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "5000")
    world.aggregator.put(world.tenant, "user_123", "AI_TOKEN", JANUARY, "100000.5")
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert preview.as_of == ELEVENTH
    assert amounts(preview.draft) == [
        ("", "1", "100.00"),
        ("API_CALL", "5000", "0.00"),
        ("AI_TOKEN", "100000.5", "2.00"),
    ]
    assert amounts(preview.projected) == [
        ("", "1", "100.00"),
        # 5,000 x 31 / 10 = 15,500; less 10,000 included: 5,500 x 0.01 = 55.00
        ("API_CALL", "15500", "55.00"),
        # 100,000.5 x 31 / 10 = 310,001.55, with one digit 310,001.6; x 0.00002 = 6.200032
        ("AI_TOKEN", "310001.6", "6.20"),
    ]
    assert str(preview.projected.amount) == "161.20"


async def test_a_preview_writes_nothing(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.at(ELEVENTH)

    async def state() -> list[object]:
        async with world.database.transaction() as connection:
            found: list[object] = []
            for table in ("invoices", "invoice_lines", "invoice_counters", "subscriptions"):
                found += (await connection.execute(text(f"SELECT * FROM {table}"))).all()
            return found

    before = await state()
    await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert await state() == before


async def test_what_does_not_add_up_over_time_stays_as_it_is(world: World) -> None:
    world.aggregator.peaks = {"API_CALL"}
    subscription = await world.subscribe(start=JANUARY)
    world.at(ELEVENTH)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10100")
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert preview.projected.lines[1] == preview.draft.lines[1]
    assert str(preview.projected.lines[1].amount) == "1.00"


async def test_events_and_parts_are_projected_with_the_quantity(world: World) -> None:
    metrics = [
        MetricPriceInput("PAYOUT", "PERCENTAGE", "", {"rate": "1", "fixedPerEvent": "0.10"}),
        MetricPriceInput(
            "TOKEN",
            "DIMENSIONAL",
            "",
            {"prices": [{"match": {"model": "big"}, "unitPrice": "2"}], "unitPrice": "1"},
        ),
    ]
    plan = pro_plan(base_price="0", metrics=metrics)
    subscription = await world.subscribe(start=JANUARY, plan=plan)
    world.at(ELEVENTH)
    world.aggregator.put_events(world.tenant, "user_123", "PAYOUT", JANUARY, "10", "20")
    groups = (({"model": "big"}, "10"), ({"model": "small"}, "20"))
    world.aggregator.put_groups(world.tenant, "user_123", "TOKEN", JANUARY, *groups)
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert amounts(preview.projected) == [
        ("", "1", "0.00"),
        # 30 x 3.1 = 93 at 1 % = 0.93; 2 events x 3.1 = 6.2, so 6 x 0.10 = 0.60
        ("PAYOUT", "93", "1.53"),
        # 31 x 2 + 62 x 1
        ("TOKEN", "93", "124.00"),
    ]


@pytest.mark.parametrize(
    "time", [JANUARY - timedelta(days=3), JANUARY, JANUARY + timedelta(minutes=14), FEBRUARY]
)
async def test_without_a_quarter_of_an_hour_known_or_with_all_of_it_nothing_is_projected(
    world: World, time: object
) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10100")
    world.at(time)  # type: ignore[arg-type]
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert preview.projected == preview.draft


async def test_the_projection_at_the_end_is_the_invoice(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10100")
    world.at(FEBRUARY + GRACE)
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    await world.close_all()
    (invoice,) = await world.all_invoices()
    assert invoice.lines == preview.projected.lines


async def test_late_usage_of_an_earlier_period_is_not_projected(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10100")
    world.at(utc("2026-02-15"))
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert preview.projected.lines[-1] == preview.draft.lines[-1]
    assert str(preview.draft.lines[-1].amount) == "1.00"


async def test_a_plan_without_metrics_is_as_recent_as_the_clock(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    world.at(ELEVENTH)
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert (preview.as_of, str(preview.projected.amount)) == (ELEVENTH, "100.00")
