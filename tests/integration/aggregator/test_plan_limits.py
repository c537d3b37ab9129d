"""Limits that come from plans hold in a subscription's periods, unless others are set directly."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from services.aggregator.domain import NewMetric, quarter_of
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas import checking
from services.aggregator.quotas.domain import Customer, QuotaState
from services.aggregator.quotas.plan_limits import PlanLimit, PlanLimits, SubscriptionLimits
from services.aggregator.quotas.thresholds import Thresholds
from services.aggregator.rebuilds.domain import MetricChange
from services.aggregator.watermark import WatermarkSource
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, InvalidArgumentError, PreconditionError
from services.kit.ids import new_id
from tests.integration.aggregator.quota_setting import QuotaReplica
from tests.integration.aggregator.sending import Event, batch, new_tenant

NOW = quarter_of(clock.now())
WEEK = timedelta(days=7)
PERIODS = [NOW - WEEK, NOW - timedelta(days=1), NOW + WEEK]


@pytest.fixture(autouse=True)
def folds_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every fold knew of every limit at once, so that checks remember."""
    monkeypatch.setattr(checking, "FOLD_MAX", timedelta(0))


@pytest.fixture
async def replica(
    database: Database, watermark: WatermarkSource, metrics: Metrics, tenant: TenantKey
) -> QuotaReplica:
    """The replica that is asked; the metric A is a sum."""
    await metrics.create(tenant, NewMetric("A"))
    return QuotaReplica.on(database, watermark, tenant)


@pytest.fixture
def limits(database: Database) -> PlanLimits:
    """Another replica, which invoicer tells."""
    return PlanLimits(database)


def told(
    tenant: TenantKey,
    *limits: PlanLimit,
    subscription_id: str = "",
    boundaries: Sequence[datetime] = PERIODS,
    time: datetime = NOW,
) -> SubscriptionLimits:
    """What invoicer tells of a subscription of user_1."""
    return SubscriptionLimits(
        tenant, "user_1", subscription_id or new_id("sub"), boundaries, limits, time
    )


def hard(limit: str, metric: str = "A") -> PlanLimit:
    """No more than so much."""
    return PlanLimit(metric, Decimal(limit), "HARD")


async def states(replica: QuotaReplica, customer_id: str = "user_1") -> Sequence[QuotaState]:
    """The quotas that apply, tightest first."""
    customer = Customer(replica.tenant, "A", customer_id)
    return (await replica.checks.check(customer, "0")).states


async def test_a_plans_limit_counts_the_usage_of_the_running_period(
    replica: QuotaReplica, limits: PlanLimits, folder: Folder, tenant: TenantKey
) -> None:
    before = Event("A", "50", "user_1", NOW - timedelta(days=2))
    await folder.apply([batch(tenant, before, Event("A", "7", "user_1", clock.now()))])
    assert await states(replica) == []
    assert await limits.set(told(tenant, hard("10"))) == []
    [state] = await states(replica)
    assert (state.used, state.remaining) == (Decimal(7), Decimal(3))
    assert (state.start, state.resets_at) == (PERIODS[1], PERIODS[2])
    assert state.quota.settings.period == "BILLING_PERIOD"
    assert await states(replica, "user_2") == []
    await replica.reserve("3")
    with pytest.raises(PreconditionError, match="leaves 0"):
        await replica.reserve("1")


async def test_what_is_told_takes_the_place_of_what_was_told_and_checks_see_it_at_once(
    replica: QuotaReplica, limits: PlanLimits, tenant: TenantKey
) -> None:
    subscription_id = new_id("sub")
    for limit in ("10", "20"):
        await limits.set(told(tenant, hard(limit), subscription_id=subscription_id))
        [state] = await states(replica)
        assert state.remaining == Decimal(limit)
    await limits.set(told(tenant, subscription_id=subscription_id, boundaries=()))
    assert await states(replica) == []


async def test_a_limit_that_is_set_directly_goes_before_the_plans(
    replica: QuotaReplica, limits: PlanLimits, tenant: TenantKey
) -> None:
    await limits.set(told(tenant, hard("10")))
    default = await replica.set("1000")
    assert [state.remaining for state in await states(replica)] == [10, 1000]
    await replica.quotas.delete(tenant, default.quota_id)
    own = await replica.set("500", "user_1", period="DAY")
    assert [state.remaining for state in await states(replica)] == [500]
    await replica.quotas.delete(tenant, own.quota_id)
    assert [state.remaining for state in await states(replica)] == [10]


async def test_of_two_subscriptions_both_limit_each_in_its_own_periods(
    replica: QuotaReplica, limits: PlanLimits, tenant: TenantKey
) -> None:
    await limits.set(told(tenant, hard("10")))
    await limits.set(told(tenant, PlanLimit("A", Decimal(5), "SOFT")))
    later = (NOW + WEEK, NOW + 2 * WEEK)
    await limits.set(told(tenant, hard("1"), boundaries=later))
    found = [(state.quota.settings.enforcement, state.remaining) for state in await states(replica)]
    assert found == [("HARD", Decimal(10)), ("SOFT", Decimal(5))]


async def test_a_limit_of_later_holds_from_its_start_on_whatever_is_remembered(
    replica: QuotaReplica,
    limits: PlanLimits,
    tenant: TenantKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = NOW + timedelta(hours=1)
    await limits.set(told(tenant, hard("10"), boundaries=(begin, begin + WEEK)))
    for _ in range(3):
        assert await states(replica) == []
    monkeypatch.setattr(clock, "now", lambda: begin)
    assert [state.remaining for state in await states(replica)] == [10]


async def test_metrics_that_cannot_be_limited_are_named_and_limited_once_they_can(
    replica: QuotaReplica, limits: PlanLimits, metrics: Metrics, tenant: TenantKey
) -> None:
    await metrics.create(tenant, NewMetric("PEAK", aggregation="MAX"))
    subscription_id = new_id("sub")
    given = told(
        tenant,
        hard("1", "PEAK"),
        hard("2", "LATER"),
        hard("3"),
        subscription_id=subscription_id,
    )
    assert await limits.set(given) == ["PEAK", "LATER"]
    assert [state.remaining for state in await states(replica)] == [3]
    await metrics.create(tenant, NewMetric("LATER"))
    assert await limits.set(given) == ["PEAK"]
    with pytest.raises(ConflictError, match="has quotas"):
        await metrics.update(tenant, "LATER", MetricChange(aggregation="MAX"))


async def test_nobody_elses_limits_are_touched(
    replica: QuotaReplica, limits: PlanLimits, metrics: Metrics, tenant: TenantKey
) -> None:
    """Whatever the stranger calls its subscription."""
    subscription_id = new_id("sub")
    await limits.set(told(tenant, hard("10"), subscription_id=subscription_id))
    await limits.set(told(new_tenant(), subscription_id=subscription_id, boundaries=()))
    [state] = await states(replica)
    assert state.remaining == 10


async def test_thresholds_of_a_plans_limit_are_told(
    database: Database, limits: PlanLimits, folder: Folder, tenant: TenantKey, metrics: Metrics
) -> None:
    await metrics.create(tenant, NewMetric("A"))
    await limits.set(told(tenant, hard("10")))
    await folder.apply([batch(tenant, Event("A", "9", "user_1", clock.now()))])
    while await Thresholds(database, lambda: None).round():
        pass
    async with database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT threshold, period_end FROM quota_thresholds_reached ORDER BY threshold")
        )
        assert [tuple(row) for row in rows] == [("50%", PERIODS[2]), ("80%", PERIODS[2])]


async def test_wrong_limits_are_refused_by_name(limits: PlanLimits, tenant: TenantKey) -> None:
    for field, given in (
        ("boundaries", told(tenant, hard("1"), boundaries=())),
        ("boundaries", told(tenant, hard("1"), boundaries=PERIODS[::-1])),
        ("boundaries", told(tenant, hard("1"), boundaries=[NOW, NOW + timedelta(minutes=1)])),
        ("limits", told(tenant, hard("1"), hard("2"))),
        ("limits", told(tenant, PlanLimit("A", Decimal(1), "UNSPECIFIED"))),
        ("subscriptionId", told(tenant, hard("1"), subscription_id="nothing")),
    ):
        with pytest.raises(InvalidArgumentError, match=field):
            await limits.set(given)
