"""What a month has brought: invoiced, credited, and what accrues on running periods."""

from datetime import timedelta
from decimal import Decimal

import pytest

from services.invoicer.service import revenue
from services.invoicer.service.revenue import Revenues
from services.invoicer.settings import LATE
from services.kit.errors import InvalidArgumentError, UnavailableError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")


def fresh(world: World) -> Revenues:
    """One that remembers nothing."""
    return Revenues(world.database, world.usage, world.clock, LATE)


async def test_revenue_is_what_was_invoiced_less_credits_and_what_accrues(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12000")
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    world.aggregator.put(world.tenant, "user_123", "API_CALL", FEBRUARY, "10300")
    world.at(utc("2026-02-10"))
    found = await fresh(world).get(world.tenant, None, None)
    assert (found.start, found.end) == (FEBRUARY, utc("2026-02-10"))
    # 100 + 2,000 x 0.01 of January; 100 + 300 x 0.01 so far
    assert found.invoiced == {"USD": Decimal("120.00")}
    assert found.credited == {}
    assert found.accrued.amounts == {"USD": Decimal("103.00")}
    assert found.accrued.complete
    # Nothing was invoiced in January, whose invoice is February's.
    before = await fresh(world).get(world.tenant, JANUARY, FEBRUARY)
    assert before.invoiced == {}
    (invoice,) = await world.all_invoices()
    await world.invoices.void_invoice(world.tenant, invoice.id)
    assert (await fresh(world).get(world.tenant, None, None)).invoiced == {}
    stranger = await fresh(world).get(new_tenant(), None, None)
    assert (stranger.invoiced, stranger.accrued.amounts) == ({}, {})


async def test_what_accrues_is_asked_for_once_a_minute_and_again_after_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.subscribe(start=JANUARY, plan=pro_plan(name="Other"))
    world.at(utc("2026-01-10"))
    revenues, billable = fresh(world), world.usage.billable
    asked = 0

    async def counted(*arguments: object, **named: object) -> object:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise UnavailableError("away")
        return await billable(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(world.usage, "billable", counted)
    with pytest.raises(UnavailableError):
        await revenues.get(world.tenant, None, None)
    for _ in range(3):
        assert (await revenues.get(world.tenant, None, None)).accrued.amounts
    assert asked == 2
    monkeypatch.setattr(revenue, "ACCRUED_KEPT_S", 0)
    late = fresh(world)
    await late.get(world.tenant, None, None)
    await late.get(world.tenant, None, None)
    assert asked == 4


async def test_beyond_the_bound_the_answer_says_that_it_is_not_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revenue, "SUBSCRIPTIONS_MAX", 1)
    await world.subscribe(start=JANUARY)
    await world.subscribe(start=JANUARY)
    world.at(utc("2026-01-10"))
    assert not (await fresh(world).get(world.tenant, None, None)).accrued.complete


async def test_a_range_is_one_year_at_most_and_ends_after_its_start(world: World) -> None:
    for start, end in ((FEBRUARY, JANUARY), (JANUARY, JANUARY + timedelta(days=367))):
        with pytest.raises(InvalidArgumentError) as refused:
            await fresh(world).get(world.tenant, start, end)
        assert [each.field for each in refused.value.problems] == ["to"]
