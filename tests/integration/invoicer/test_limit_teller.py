"""aggregator is told how much a plan lets its subscriber use, and in which periods."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from services.invoicer.checks import MetricPriceInput, PlanInput
from services.invoicer.domain import Subscription, UsageLimit
from services.invoicer.limit_teller import RETRY, UNKNOWN_RETRY, LimitTeller
from services.invoicer.service.subscription_changes import ChangeInput
from services.invoicer.usage_limits import ToldLimits
from services.kit.errors import InvalidArgumentError, UnavailableError
from tests.integration.invoicer.stand_ins import World, pro_plan, utc

JANUARY = utc("2026-01-01")


@dataclass
class Sink:
    """A LimitSink that notes what it is told."""

    told: list[tuple[str, dict[str, str], tuple[datetime, ...]]] = field(default_factory=list)
    times: list[datetime] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    away: bool = False

    async def set(self, subscription: Subscription, told: ToldLimits, now: datetime) -> list[str]:
        """Note it. UnavailableError."""
        if self.away:
            raise UnavailableError("aggregator is away")
        limits = {
            metric: f"{limit.enforcement} {limit.units}" for metric, limit in told.limits.items()
        }
        self.told.append((subscription.customer_id, limits, told.boundaries))
        self.times.append(now)
        return self.unknown


@pytest.fixture
def sink() -> Sink:
    """aggregator."""
    return Sink()


@pytest.fixture
def teller(world: World, sink: Sink) -> LimitTeller:
    """One replica's loop, whose rounds a test runs."""
    world.at(JANUARY)
    return LimitTeller(world.database, sink, world.clock)


def limited(units: str, enforcement: str = "HARD") -> PlanInput:
    """A plan that limits API_CALL, and does not limit AI_TOKEN."""
    call = MetricPriceInput(
        "API_CALL",
        "PER_UNIT",
        "",
        {"unitPrice": "1"},
        usage_limit=units,
        usage_limit_enforcement=enforcement,
    )
    token = MetricPriceInput("AI_TOKEN", "PER_UNIT", "", {"unitPrice": "1"})
    return pro_plan(metrics=[call, token])


async def test_limits_are_told_once_with_the_periods_they_hold_in(
    world: World, teller: LimitTeller, sink: Sink
) -> None:
    await world.subscribe(start=JANUARY, plan=limited("500"))
    await world.subscribe("other", start=JANUARY)
    assert [await teller.round() for _ in range(3)] == [1, 0, 0]
    [(customer_id, limits, boundaries)] = sink.told
    assert (customer_id, limits) == ("user_123", {"API_CALL": "HARD 500"})
    assert boundaries[:3] == (JANUARY, utc("2026-02-01"), utc("2026-03-01"))
    # The periods move on: some are always told ahead.
    world.at(utc("2026-02-01"))
    assert [await teller.round() for _ in range(2)] == [1, 0]
    assert sink.told[-1][2][0] == utc("2026-02-01")


async def test_another_plan_is_told_when_it_begins_and_the_end_when_it_is_there(
    world: World, teller: LimitTeller, sink: Sink
) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=limited("500"))
    await teller.round()
    larger = await world.plans.create_plan(world.tenant, limited("900", "SOFT"))
    change = ChangeInput(subscription.id, larger.id, timing="PERIOD_END")
    await world.changes.change_subscription(world.tenant, change)
    await teller.round()
    assert sink.told[-1][1] == {"API_CALL": "HARD 500"}
    assert sink.told[-1][2] == (JANUARY, utc("2026-02-01"))
    world.at(utc("2026-02-01"))
    await teller.round()
    assert sink.told[-1][1] == {"API_CALL": "SOFT 900"}
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    await teller.round()
    assert sink.told[-1][2] == (utc("2026-02-01"), utc("2026-03-01"))
    world.at(utc("2026-03-01"))
    assert [await teller.round() for _ in range(2)] == [1, 0]
    assert sink.told[-1][1:] == ({}, ())


async def test_a_plan_without_limits_in_the_place_of_one_with_some_is_told(
    world: World, teller: LimitTeller, sink: Sink
) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=limited("500"))
    free = await world.plans.create_plan(world.tenant, pro_plan())
    await world.changes.change_subscription(world.tenant, ChangeInput(subscription.id, free.id))
    assert await teller.round() == 1
    assert sink.told[-1][1:] == ({}, ())


async def test_what_could_not_be_told_is_told_later(
    world: World, teller: LimitTeller, sink: Sink
) -> None:
    await world.subscribe(start=JANUARY, plan=limited("500"))
    sink.away = True
    assert [await teller.round() for _ in range(2)] == [1, 0]
    sink.away = False
    world.clock.time += RETRY
    sink.unknown = ["API_CALL"]
    assert [await teller.round() for _ in range(2)] == [1, 0]
    world.clock.time += UNKNOWN_RETRY
    sink.unknown = []
    assert [await teller.round() for _ in range(2)] == [1, 0]
    world.clock.time += timedelta(days=1)
    assert await teller.round() == 0
    assert len(sink.told) == 2


async def test_who_is_on_a_test_clock_is_told_by_it(
    world: World, teller: LimitTeller, sink: Sink
) -> None:
    await world.subscribe(start=JANUARY, plan=limited("500"))
    clock = await world.clocks.create_clock(world.tenant, "user_123", None)
    await world.go_on()
    assert [await teller.round() for _ in range(2)] == [1, 0]
    tenth = utc("2026-03-10")
    await world.clocks.advance_clock(world.tenant, clock.id, tenth)
    await world.go_on()
    # Periods have ended by the clock, which stands there; the real time is that of before.
    sink.away = True
    assert [await teller.round() for _ in range(3)] == [1, 0, 0]
    sink.away = False
    world.clock.time += RETRY
    assert [await teller.round() for _ in range(2)] == [1, 0]
    assert sink.times == [JANUARY, tenth]
    assert sink.told[-1][2][:2] == (utc("2026-03-01"), utc("2026-04-01"))
    # The real time goes on, and changes nothing while the clock stands.
    world.at(utc("2026-04-02"))
    assert await teller.round() == 0


async def test_what_changes_while_it_is_told_is_told_again(
    world: World, teller: LimitTeller, sink: Sink
) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=limited("500"))
    changed = await world.plans.create_plan(world.tenant, limited("700"))

    class Slow(Sink):
        """While it is told, the subscription changes."""

        async def set(self, of: Subscription, told: ToldLimits, now: datetime) -> list[str]:
            given = ChangeInput(subscription.id, changed.id)
            await world.changes.change_subscription(world.tenant, given)
            return await sink.set(of, told, now)

    assert await LimitTeller(world.database, Slow(), world.clock).round() == 1
    assert await teller.round() == 1
    assert [limits for _, limits, _ in sink.told] == [
        {"API_CALL": "HARD 500"},
        {"API_CALL": "HARD 700"},
    ]


async def test_a_plan_keeps_its_limits_and_refuses_wrong_ones(world: World) -> None:
    made = await world.plans.create_plan(world.tenant, limited("0.5", "SOFT"))
    found = await world.plans.get_plan(world.tenant, made.id, 0)
    assert found.content.metrics[0].usage_limit == UsageLimit(Decimal("0.5"), "SOFT")
    assert found.content.metrics[1].usage_limit is None
    for units, enforcement, name in (("-1", "HARD", "usageLimit"), ("1", "FIRM", "Enforcement")):
        with pytest.raises(InvalidArgumentError, match=name):
            await world.plans.create_plan(world.tenant, limited(units, enforcement))
