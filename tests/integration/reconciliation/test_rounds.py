"""What is looked at when, by whom, and what is told of it."""

import time
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy.exc import DBAPIError

from services.aggregator.reconciliation import reconciler as module
from services.aggregator.reconciliation import repository
from services.aggregator.reconciliation.domain import hour_of
from services.aggregator.reconciliation.reconciler import Reconciler
from services.kit import clock
from services.kit.database import TenantKey
from tests.integration.model.naive import Sent
from tests.integration.reconciliation.conftest import HOUR, Setting

DAYS_AGO = HOUR - timedelta(days=30)
ROUNDS_MAX = 400


@pytest.fixture
async def tenant(setting: Setting) -> TenantKey:
    """With a metric of each kind."""
    return await setting.world.new_tenant()


async def lose(setting: Setting, tenant: TenantKey, event: Sent) -> None:
    """An event that is never counted."""
    await setting.send(tenant, event)
    await setting.forget_pending()


async def rounds_until_counted(setting: Setting, tenant: TenantKey, reconciler: Reconciler) -> int:
    for number in range(ROUNDS_MAX):
        if await setting.totals(tenant) == (1, "1"):
            return number
        await reconciler.round()
    raise AssertionError(f"not repaired in {ROUNDS_MAX} rounds")


def gauge(name: str) -> float:
    value = REGISTRY.get_sample_value(name)
    assert value is not None
    return value


async def test_the_running_hour_is_looked_at_first(setting: Setting, tenant: TenantKey) -> None:
    now = clock.now()
    if now - hour_of(now) > timedelta(minutes=59):
        now = hour_of(now)
    await lose(setting, tenant, Sent("", "SUM", "1", "user_1", now))
    assert await rounds_until_counted(setting, tenant, setting.reconciler()) <= 2


@pytest.mark.parametrize(("minute", "found"), [(1, True), (3, False)])
async def test_the_hour_before_is_looked_at_with_it_until_it_is_settled(
    setting: Setting,
    tenant: TenantKey,
    monkeypatch: pytest.MonkeyPatch,
    minute: int,
    found: bool,
) -> None:
    this = hour_of(clock.now()) + timedelta(hours=1)
    monkeypatch.setattr(clock, "now", lambda: this + timedelta(minutes=minute))
    before = this - timedelta(seconds=1)
    await lose(setting, tenant, Sent("", "SUM", "1", "user_1", before))
    await setting.reconciler().round()
    assert (await setting.totals(tenant) == (1, "1")) == found


async def test_the_running_hour_is_left_alone_while_anything_waits_to_be_counted(
    setting: Setting, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[None] = []

    async def note(*_: object) -> None:
        running.append(None)

    monkeypatch.setattr(Reconciler, "_check_running", note)
    await setting.send(tenant, Sent("", "SUM", "1", "user_1", HOUR))
    reconciler = setting.reconciler()
    await reconciler.round()
    assert not running
    await setting.forget_pending()
    await reconciler.round()
    assert running


async def test_a_sweep_finds_what_is_old(setting: Setting, tenant: TenantKey) -> None:
    await lose(setting, tenant, Sent("", "SUM", "1", "user_1", DAYS_AGO))
    await rounds_until_counted(setting, tenant, setting.reconciler())
    assert await setting.differences() == [("SUM", 1, 0, True)]


async def test_a_sweep_goes_on_where_another_replica_stopped(
    setting: Setting, tenant: TenantKey
) -> None:
    first = setting.reconciler()
    for _ in range(10):
        await first.round()
    [(before,)] = await setting.sql("SELECT sweep_hour FROM reconciliation_state")
    await setting.sql("UPDATE reconciliation_state SET lease_until = now() - interval '1 second'")
    second = setting.reconciler()
    for _ in range(3):
        await second.round()
    [(after,)] = await setting.sql("SELECT sweep_hour FROM reconciliation_state")
    assert before < after


async def test_one_replica_at_a_time_is_at_it(setting: Setting, tenant: TenantKey) -> None:
    first, second = setting.reconciler(), setting.reconciler()
    await first.round()
    now = clock.now()
    await lose(setting, tenant, Sent("", "SUM", "1", "user_1", hour_of(now)))
    await second.round()
    assert await setting.totals(tenant) == (0, "0")


async def test_an_hour_is_looked_at_after_its_end(
    setting: Setting, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only by the next sweep."""
    reconciler = setting.reconciler()
    await reconciler.round()
    await setting.sql(
        "UPDATE reconciliation_state SET closed_hour = :hour, sweep_hour = NULL, "
        "sweep_start_time = now()",
        hour=HOUR,
    )
    await lose(setting, tenant, Sent("", "SUM", "1", "user_1", HOUR))
    assert await rounds_until_counted(setting, tenant, reconciler) <= 2
    [(closed,)] = await setting.sql("SELECT closed_hour FROM reconciliation_state")
    assert closed == HOUR + timedelta(hours=1)


async def test_what_moved_is_looked_at_again(
    setting: Setting, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_AFTER_S", 0.0)
    reconciler = setting.reconciler()
    await reconciler.round()
    await setting.sql("UPDATE reconciliation_state SET sweep_start_time = now()")
    await setting.send(tenant, Sent("", "SUM", "1", "user_1", HOUR))
    await reconciler.check(HOUR, HOUR + timedelta(hours=1))
    assert await setting.totals(tenant) == (0, "0")
    await setting.forget_pending()
    await reconciler.round()
    assert await setting.totals(tenant) == (1, "1")


async def test_what_could_not_be_repaired_is_told_until_it_is(
    setting: Setting, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> bool:
        return False

    reconciler = setting.reconciler()
    repair = reconciler._repair
    monkeypatch.setattr(repair, "fetch_missing", fails)
    monkeypatch.setattr(repair, "recount", fails)
    await lose(setting, tenant, Sent("", "SUM", "1", "user_1", HOUR))
    await reconciler.check(HOUR, HOUR + timedelta(hours=1))
    await reconciler.round()
    assert gauge("usageflow_reconciliation_difference") == 1
    monkeypatch.undo()
    healed = setting.reconciler()
    await setting.sql("UPDATE reconciliation_state SET lease_until = now() - interval '1 second'")
    await rounds_until_counted(setting, tenant, healed)
    await healed.round()
    assert gauge("usageflow_reconciliation_difference") == 0


async def test_the_age_of_the_oldest_event_that_is_not_aggregated_is_told(
    setting: Setting, tenant: TenantKey
) -> None:
    reconciler = setting.reconciler()
    await reconciler.round()
    assert gauge("usageflow_oldest_unaggregated_event_age_seconds") < 5
    accepted_s = time.time()
    await setting.send(tenant, Sent("", "SUM", "1", "user_1", HOUR))
    while time.time() - accepted_s < 0.5:
        await reconciler.round()
    told_s = gauge("usageflow_oldest_unaggregated_event_age_seconds")
    assert 0.2 < told_s <= time.time() - accepted_s + 0.1


async def test_the_database_keeps_the_state_to_hours(setting: Setting) -> None:
    for column in ("closed_hour", "sweep_hour"):
        with pytest.raises(DBAPIError, match="ck_reconciliation_state_hours"):
            await setting.sql(f"UPDATE reconciliation_state SET {column} = '2026-01-01 00:30+00'")
    with pytest.raises(DBAPIError, match="pk_reconciliation_state"):
        await setting.sql(
            "INSERT INTO reconciliation_state (only_row, holder, lease_until) "
            "VALUES (true, '', now())"
        )


async def test_repaired_differences_are_forgotten_after_a_while(setting: Setting) -> None:
    await setting.sql(
        "INSERT INTO reconciliation_differences (organization_id, mode, metric, hour, "
        "accepted_count, accepted_sum, counted_count, counted_sum, find_time, check_time, "
        "repair_time) SELECT 'org', 'live', 'A', '2026-01-01 00:00+00', 1, 1, 2, 2, at, at, at "
        "FROM unnest(ARRAY[now() - interval '91 days', now()]) AS at"
    )
    async with setting.database.transaction() as connection:
        before = clock.now() - module.KEEP_REPAIRED
        assert await repository.prune_differences(connection, before, 10) == 1
        assert await repository.prune_differences(connection, before, 10) == 0
