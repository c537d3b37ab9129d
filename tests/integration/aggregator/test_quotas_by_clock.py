"""Quotas, limits of plans and thresholds of customers on a test clock go by its time."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from usageflow.aggregator.v1 import quotas_pb2 as pb
from usageflow.events.v1.events_pb2 import BillingEvent

from services.aggregator.domain import NewMetric, quarter_of
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas.plan_limits import PlanLimit, PlanLimits, SubscriptionLimits
from services.aggregator.quotas.thresholds import Thresholds
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import PreconditionError
from services.kit.ids import new_id
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.quota_serving import Client, serving_quotas
from tests.integration.aggregator.quota_setting import QuotaReplica
from tests.integration.aggregator.sending import Event, batch, new_tenant

NOW = quarter_of(clock.now())
AHEAD = NOW.replace(hour=12, minute=0) + timedelta(days=200)
DAY = timedelta(days=1)


@pytest.fixture
def tenant() -> TenantKey:
    """An organization's test mode."""
    return new_tenant("test")


@pytest.fixture
def clocks() -> dict[str, datetime]:
    """What test clocks show, by customer: user_1's is ahead."""
    return {"user_1": AHEAD}


@pytest.fixture
async def replica(
    database: Database, watermark: SetWatermark, metrics: Metrics, tenant: TenantKey
) -> QuotaReplica:
    """One replica; the metric A is a sum."""
    await metrics.create(tenant, NewMetric("A"))
    return QuotaReplica.on(database, watermark, tenant)


@pytest.fixture
async def client(replica: QuotaReplica, clocks: dict[str, datetime]) -> AsyncIterator[Client]:
    """Its service."""
    async with serving_quotas(replica, clocks) as client:
        yield client


async def state(client: Client, customer_id: str = "user_1") -> tuple[str, str, datetime]:
    """What is used and left of the only quota, and when its period began."""
    asked = pb.CheckQuotaRequest(metric="A", customer_id=customer_id)
    [found] = (await client.call("track", "CheckQuota", asked)).quotas
    return found.used, found.remaining, found.period_start.ToDatetime(UTC)


async def set_quota(client: Client, customer_id: str | None = None) -> None:
    """At most 10 a day."""
    quota = pb.Quota(metric="A", customer_id=customer_id, period=pb.QUOTA_PERIOD_DAY, limit="10")
    await client.call("admin", "SetQuota", pb.SetQuotaRequest(quota=quota))


async def use(folder: Folder, tenant: TenantKey, amount: str, *times: datetime) -> None:
    """user_1 uses so much at each of these times."""
    await folder.apply([batch(tenant, *(Event("A", amount, "user_1", time) for time in times))])


async def reached(database: Database) -> list[tuple[str, str, datetime]]:
    """The thresholds that are told of, each with the beginning of its period and when it was."""
    thresholds = Thresholds(database, lambda: None)
    while await thresholds.round():
        pass
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT payload FROM billing_outbox"))
        events = [BillingEvent.FromString(payload) for payload in rows.scalars()]
    told = [(json.loads(each.data_json), each.create_time.ToDatetime(UTC)) for each in events]
    return sorted((data["threshold"], data["periodStart"], time) for data, time in told)


async def test_a_quota_is_that_of_the_period_which_the_clock_shows(
    client: Client,
    folder: Folder,
    tenant: TenantKey,
    clocks: dict[str, datetime],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No midnight in between.
    monkeypatch.setattr(clock, "now", lambda: NOW)
    await set_quota(client)
    await use(folder, tenant, "7", AHEAD)
    await use(folder, tenant, "2", NOW)
    day = AHEAD.replace(hour=0)
    assert await state(client) == ("7", "3", day)
    assert (await state(client, "user_2"))[2] <= clock.now()
    asked = pb.ReserveQuotaRequest(metric="A", customer_id="user_1", amount="3")
    await client.call("track", "ReserveQuota", asked)
    with pytest.raises(PreconditionError, match="leaves 0 until"):
        await client.call("track", "ReserveQuota", asked)
    await use(folder, tenant, "1", AHEAD)
    assert (await state(client))[0] == "8"
    # The clock is advanced: a new period, while units stay set aside by the real time.
    clocks["user_1"] = AHEAD + DAY
    assert await state(client) == ("0", "7", day + DAY)
    # It has ended.
    clocks.clear()
    used, _, start = await state(client)
    assert (used, start) == ("2", NOW.replace(hour=0, minute=0))


async def test_a_clock_of_all_customers_is_that_of_each(
    client: Client, folder: Folder, tenant: TenantKey, clocks: dict[str, datetime]
) -> None:
    clocks.clear()
    clocks[""] = AHEAD
    await use(folder, tenant, "5", AHEAD)
    await set_quota(client)
    assert await state(client) == ("5", "5", AHEAD.replace(hour=0))
    assert await state(client, "user_2") == ("0", "10", AHEAD.replace(hour=0))


@pytest.mark.parametrize("customer_id", ["user_1", None])
async def test_a_quota_that_is_set_looks_at_the_usage_by_the_clock(
    client: Client, folder: Folder, tenant: TenantKey, database: Database, customer_id: str | None
) -> None:
    await use(folder, tenant, "8", AHEAD)
    await set_quota(client, customer_id)
    day = f"{AHEAD:%Y-%m-%d}T00:00:00Z"
    assert await reached(database) == [("50%", day, AHEAD), ("80%", day, AHEAD)]
    # As time goes on by the clock thresholds are reached again, once in each period.
    await use(folder, tenant, "6", AHEAD + DAY)
    await use(folder, tenant, "1", AHEAD + DAY)
    following = f"{AHEAD + DAY:%Y-%m-%d}T00:00:00Z"
    assert (await reached(database))[:2] == [("50%", day, AHEAD), ("50%", following, AHEAD + DAY)]


async def test_a_plan_limits_the_period_which_the_clock_shows(
    client: Client, folder: Folder, tenant: TenantKey, database: Database, replica: QuotaReplica
) -> None:
    await use(folder, tenant, "9", AHEAD)
    boundaries = [AHEAD - DAY, AHEAD + DAY, AHEAD + 2 * DAY]
    limit = PlanLimit("A", Decimal(10), "HARD")
    told = SubscriptionLimits(tenant, "user_1", new_id("sub"), boundaries, [limit], AHEAD)
    assert await PlanLimits(database).set(told) == []
    assert await state(client) == ("9", "1", boundaries[0])
    start = f"{boundaries[0]:%Y-%m-%dT%H:%M:%SZ}"
    assert await reached(database) == [("50%", start, AHEAD), ("80%", start, AHEAD)]
