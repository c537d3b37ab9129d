"""Subscriptions that are billed by the week, the quarter and the year."""

from datetime import datetime

import pytest

from tests.integration.invoicer.stand_ins import GRACE, World, pro_plan, utc


@pytest.mark.parametrize(
    ("length", "start", "ends", "amounts"),
    [
        # 2026-01-01 is a Thursday: 4 of 7 days of 100.00, then whole weeks
        ("WEEKLY", "2026-01-01", ["2026-01-05", "2026-01-12"], ["57.14", "100.00"]),
        # 31 of the 90 days of January to March: 34.444..
        ("QUARTERLY", "2026-03-01", ["2026-04-01", "2026-07-01"], ["34.44", "100.00"]),
        # 31 of 365 days: 8.493..
        ("YEARLY", "2025-12-01", ["2026-01-01", "2027-01-01"], ["8.49", "100.00"]),
    ],
)
async def test_each_period_has_its_invoice(
    world: World, length: str, start: str, ends: list[str], amounts: list[str]
) -> None:
    plan = pro_plan(billing_period=length, metrics=[])
    world.at(utc(start))
    made = await world.subscribe(start=utc(start), plan=plan)
    assert made.billing_period == length
    for end in map(utc, ends):
        await _close_at(world, end)
    found = await world.all_invoices()
    assert [str(invoice.amount) for invoice in found] == amounts
    assert [invoice.period.start for invoice in found] == [utc(start), utc(ends[0])]
    assert [invoice.period.end for invoice in found] == [utc(end) for end in ends]


async def test_late_usage_of_each_of_many_weeks_is_found(world: World) -> None:
    plan = pro_plan(billing_period="WEEKLY", base_price="")
    starts = [utc(f"2026-01-{day:02}") for day in (5, 12, 19, 26)]
    world.at(starts[0])
    await world.subscribe(start=starts[0], plan=plan)
    for end in starts[1:]:
        await _close_at(world, end)
    for number, start in enumerate(starts, start=1):
        world.aggregator.put(world.tenant, "user_123", "API_CALL", start, f"1000{number}")
    await _close_at(world, utc("2026-02-02"))
    lines = (await world.all_invoices())[-1].lines
    billed = {line.period.start: str(line.amount) for line in lines if line.metric == "API_CALL"}
    # (10,000 + n - 10,000 included) x 0.01, each week by itself
    assert billed == dict(zip(starts, ["0.01", "0.02", "0.03", "0.04"], strict=True))


async def _close_at(world: World, end: datetime) -> None:
    world.at(end + GRACE)
    assert await world.close_all() == 1
