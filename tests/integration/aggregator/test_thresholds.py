"""usage.threshold_reached goes out exactly once a period, whatever happens."""

import asyncio
import json
import random
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from usageflow.common.v1 import common_pb2
from usageflow.events.v1.events_pb2 import BillingEvent

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.maintenance import Maintenance
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas.thresholds import Thresholds
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.quota_setting import QuotaReplica
from tests.integration.aggregator.sending import Event, batch, new_tenant

NOTHING = timedelta(0)


@pytest.fixture
async def quotas(
    database: Database, watermark: SetWatermark, metrics: Metrics, tenant: TenantKey
) -> QuotaReplica:
    """One replica; the metric A is defined."""
    await metrics.create(tenant, NewMetric("A"))
    return QuotaReplica.on(database, watermark, tenant)


@pytest.fixture
def thresholds(database: Database) -> Thresholds:
    """One replica's loop, which a test takes through its rounds."""
    return Thresholds(database, lambda: None)


async def told(database: Database, thresholds: Thresholds) -> list[dict[str, Any]]:
    """The data of all messages so far, after everything that is due was looked at."""
    while await thresholds.round():
        pass
    async with database.transaction() as connection:
        query = text("SELECT message_id, subject, payload FROM billing_outbox ORDER BY message_id")
        rows = (await connection.execute(query)).all()
    found = []
    for row in rows:
        event = BillingEvent.FromString(row.payload)
        assert (event.id, row.subject) == (row.message_id, "usageflow.billing.event")
        assert event.type == "usage.threshold_reached"
        found.append(json.loads(event.data_json))
    return found


def names(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Who reached what."""
    return [(message["customerId"], message["threshold"]) for message in messages]


def used(amount: str, customer_id: str = "user_1", ago: timedelta = NOTHING) -> Event:
    """An event that happened a while ago."""
    return Event("A", amount, customer_id, clock.now() - ago)


async def test_each_threshold_is_told_of_once(
    quotas: QuotaReplica, folder: Folder, database: Database, thresholds: Thresholds
) -> None:
    await quotas.set("1000")
    await folder.apply([batch(quotas.tenant, used("499"))])
    assert await told(database, thresholds) == []
    await folder.apply([batch(quotas.tenant, used("1"))])
    assert names(await told(database, thresholds)) == [("user_1", "50%")]
    await folder.apply([batch(quotas.tenant, used("550"))])
    await folder.apply([batch(quotas.tenant, used("1"), used("1", "user_2"))])
    messages = await told(database, thresholds)
    assert sorted(names(messages)) == [("user_1", "100%"), ("user_1", "50%"), ("user_1", "80%")]


async def test_a_message_says_what_was_reached(
    quotas: QuotaReplica, folder: Folder, database: Database, thresholds: Thresholds
) -> None:
    made = await quotas.set("10.5", period="DAY", thresholds=("100%",), time_zone="Asia/Kathmandu")
    now = clock.now()
    await folder.apply([batch(quotas.tenant, Event("A", "11", "user_1", now))])
    [message] = await told(database, thresholds)
    period = made.period_at(now)
    assert period is not None
    start, end = period
    assert message == {
        "quotaId": made.quota_id,
        "metric": "A",
        "customerId": "user_1",
        "threshold": "100%",
        "thresholdAmount": "10.5",
        "used": "11",
        "limit": "10.5",
        "enforcement": "HARD",
        "period": "DAY",
        "periodStart": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "periodEnd": f"{end:%Y-%m-%dT%H:%M:%SZ}",
    }
    async with database.transaction() as connection:
        payload = (
            await connection.execute(text("SELECT payload FROM billing_outbox"))
        ).scalar_one()
    event = BillingEvent.FromString(payload)
    assert event.organization_id == quotas.tenant.organization_id
    assert event.mode == common_pb2.MODE_LIVE


async def test_every_period_has_its_own_also_one_that_is_over(
    quotas: QuotaReplica, folder: Folder, database: Database, thresholds: Thresholds
) -> None:
    await quotas.set("10", period="DAY", thresholds=("100%",))
    for _ in range(2):
        late = used("10", ago=timedelta(days=3))
        await folder.apply([batch(quotas.tenant, late, used("10"))])
    messages = await told(database, thresholds)
    assert len({message["periodStart"] for message in messages}) == len(messages) == 2


async def test_amounts_need_no_limit_and_for_ever_has_no_end(
    quotas: QuotaReplica, folder: Folder, database: Database, thresholds: Thresholds
) -> None:
    await quotas.set(None, period="TOTAL", thresholds=("100.5", "90%"))
    await folder.apply([batch(quotas.tenant, used("101"))])
    [message] = await told(database, thresholds)
    assert (message["threshold"], message["limit"], message["periodEnd"]) == ("100.5", None, None)


async def test_a_quota_that_is_set_below_what_was_used_is_told_of(
    quotas: QuotaReplica, folder: Folder, database: Database, thresholds: Thresholds
) -> None:
    await folder.apply([batch(quotas.tenant, used("60"), used("95", "user_2"))])
    assert await told(database, thresholds) == []
    await quotas.set("100")
    expected = [("user_1", "50%"), ("user_2", "50%"), ("user_2", "80%")]
    assert sorted(names(await told(database, thresholds))) == expected
    await quotas.set("60", "user_1", thresholds=("100%",))
    assert ("user_1", "100%") in names(await told(database, thresholds))


async def test_usage_of_a_fold_that_knew_of_no_quota_is_looked_at_later(
    quotas: QuotaReplica, folder: Folder, database: Database, thresholds: Thresholds
) -> None:
    await quotas.set("100", "user_1", thresholds=("50%",))
    await told(database, thresholds)
    await folder.apply([batch(quotas.tenant, used("60"))])
    async with database.transaction() as connection:
        # As if the fold had begun before the quota was there.
        await connection.execute(text("DELETE FROM quota_touches WHERE due_time <= now()"))
        left = "UPDATE quota_touches SET due_time = now() RETURNING customer_id"
        assert (await connection.execute(text(left))).scalars().all() == ["user_1"]
    assert names(await told(database, thresholds)) == [("user_1", "50%")]


async def test_metrics_without_quotas_cost_the_fold_nothing(
    quotas: QuotaReplica, folder: Folder, metrics: Metrics, database: Database
) -> None:
    await metrics.create(quotas.tenant, NewMetric("B"))
    query = text("SELECT count(*) FROM quota_touches")
    await folder.apply([batch(quotas.tenant, used("1"), Event("B", "1", "user_1", clock.now()))])
    async with database.transaction() as connection:
        assert (await connection.execute(query)).scalar_one() == 0
    await quotas.set("10", "user_9")
    await folder.apply([batch(quotas.tenant, used("1"), used("1", ""), Event("B"))])
    query = text("SELECT customer_id FROM quota_touches WHERE due_time <= now() ORDER BY 1")
    async with database.transaction() as connection:
        assert (await connection.execute(query)).scalars().all() == ["user_1", "user_9"]


async def test_the_same_customers_of_other_organizations_and_modes_reach_nothing(
    quotas: QuotaReplica,
    folder: Folder,
    database: Database,
    thresholds: Thresholds,
    metrics: Metrics,
) -> None:
    await quotas.set("10", thresholds=("100%",))
    for stranger in (new_tenant(), TenantKey(quotas.tenant.organization_id, "test")):
        await metrics.create(stranger, NewMetric("A"))
        await folder.apply([batch(stranger, used("10"))])
    assert await told(database, thresholds) == []


@pytest.mark.parametrize(
    "wrong", [("0%",), ("1001%",), ("-5",), ("0",), ("5 %",), ("50%", "50%"), ("1",) * 11]
)
async def test_wrong_thresholds_are_refused(quotas: QuotaReplica, wrong: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await quotas.set("10", thresholds=wrong)
    assert {problem.field for problem in caught.value.problems} == {"thresholds"}


@pytest.mark.parametrize("seed", range(2))
async def test_replicas_tell_each_once_however_folds_and_rounds_interleave(
    quotas: QuotaReplica, database: Database, seed: int
) -> None:
    dice = random.Random(seed)
    limits = tuple(f"{number}" for number in range(10, 101, 10))
    await quotas.set("100", thresholds=limits)
    folders = [Folder(database, lambda: None) for _ in range(3)]
    loops = [Thresholds(database, lambda: None) for _ in range(3)]

    async def folding(folder: Folder) -> None:
        for _ in range(12):
            sent = [used(f"{dice.randint(1, 4)}", f"user_{n}") for n in range(3)]
            await folder.apply([batch(quotas.tenant, *sent)])

    async def looking(loop: Thresholds, folds: asyncio.Future[Any]) -> None:
        while not folds.done():
            await loop.round()
            await asyncio.sleep(dice.random() / 100)

    folds = asyncio.gather(*(folding(folder) for folder in folders))
    await asyncio.gather(folds, *(looking(loop, folds) for loop in loops))
    messages = await told(database, loops[0])
    expected = []
    for number in range(3):
        name = f"user_{number}"
        left = await quotas.left(name)
        reached = 100 - int(left or "0") if left != "0" else 100
        expected += [(name, limit) for limit in limits if int(limit) <= reached]
    assert sorted(names(messages)) == sorted(expected)


async def test_what_was_told_of_periods_long_over_is_forgotten(
    quotas: QuotaReplica,
    folder: Folder,
    database: Database,
    thresholds: Thresholds,
    watermark: SetWatermark,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await quotas.set("10", period="DAY", thresholds=("100%",))
    await folder.apply([batch(quotas.tenant, used("10"))])
    await told(database, thresholds)
    query = text("SELECT count(*) FROM quota_thresholds_reached")
    now = clock.now()

    async def left_after(days: int) -> int:
        watermark.now = now + timedelta(days=days)
        monkeypatch.setattr(clock, "now", lambda: now + timedelta(days=days))
        await Maintenance(database, watermark).round()
        async with database.transaction() as connection:
            count: int = (await connection.execute(query)).scalar_one()
        return count

    assert await left_after(400) == 1
    assert await left_after(403) == 0


async def test_the_loop_looks_when_it_is_woken(quotas: QuotaReplica, database: Database) -> None:
    told_of = asyncio.Event()
    loop = Thresholds(database, told_of.set)
    await quotas.set("10")
    running = asyncio.create_task(loop.run())
    folder = Folder(database, lambda: None, quotas_touched=loop.wake)
    await folder.apply([batch(quotas.tenant, used("10"))])
    await asyncio.wait_for(told_of.wait(), 10)
    running.cancel()
