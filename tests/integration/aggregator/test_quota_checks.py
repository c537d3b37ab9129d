"""A check sees all that was counted, reserved and set before it was asked, on any replica."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.maintenance import Maintenance
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas import change_repository, checking
from services.aggregator.quotas.checking import QuotaChecks
from services.aggregator.quotas.domain import Customer, QuotaState
from services.aggregator.watermark import WatermarkSource
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.ledger import Ledger
from tests.integration.aggregator.quota_setting import (
    CountedChecks,
    QuotaReplica,
    SetClock,
    now_event,
    remembered,
)
from tests.integration.aggregator.sending import batch, new_tenant


@pytest.fixture(autouse=True)
def folds_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every fold knew of every quota at once: here one is set before anything is folded."""
    monkeypatch.setattr(checking, "FOLD_MAX", timedelta(0))


@pytest.fixture
async def quotas(
    database: Database, watermark: WatermarkSource, metrics: Metrics, tenant: TenantKey
) -> QuotaReplica:
    """The replica on which everything is changed; the metric A has a quota of 100."""
    await metrics.create(tenant, NewMetric("A"))
    replica = QuotaReplica.on(database, watermark, tenant)
    await replica.set("100")
    return replica


@pytest.fixture
def checks(database: Database, watermark: WatermarkSource) -> CountedChecks:
    """Another replica, on which it is asked."""
    return CountedChecks(database, watermark)


@pytest.fixture
def user(tenant: TenantKey) -> Customer:
    """Who is asked about."""
    return Customer(tenant, "A", "user_1")


async def state(checks: QuotaChecks, customer: Customer) -> QuotaState:
    """Of the one quota."""
    [found] = (await checks.check(customer, "0")).states
    return found


async def used(checks: QuotaChecks, customer: Customer) -> Decimal:
    """How much is used."""
    return (await state(checks, customer)).used


@pytest.mark.usefixtures("quotas")
async def test_who_did_not_change_is_not_read_again(
    checks: CountedChecks, folder: Folder, tenant: TenantKey, user: Customer
) -> None:
    await remembered(checks, user)
    reads = checks.reads
    await folder.apply([batch(tenant, now_event("5", "user_2"))])
    await asyncio.gather(*(checks.check(user, "1") for _ in range(100)))
    assert checks.reads == reads


async def test_what_others_have_changed_is_seen_at_once(
    checks: CountedChecks, quotas: QuotaReplica, folder: Folder, tenant: TenantKey, user: Customer
) -> None:
    ledger = Ledger(tenant)
    await remembered(checks, user)
    await folder.apply([ledger.accept(now_event("5"), now_event("7"))])
    assert await used(checks, user) == 12
    await remembered(checks, user)
    await folder.apply([ledger.take_back(ledger.events[0])])
    assert await used(checks, user) == 7
    await remembered(checks, user)
    made = await quotas.reserve("20")
    assert (await state(checks, user)).reserved == 20
    await quotas.release(made.reservation)
    assert (await state(checks, user)).reserved == 0
    await remembered(checks, user)
    own = await quotas.set("50", "user_1")
    assert (await state(checks, user)).remaining == 43
    await remembered(checks, user)
    await quotas.quotas.delete(tenant, own.quota_id)
    assert (await state(checks, user)).remaining == 93
    await remembered(checks, user)
    await quotas.set("60")
    assert (await state(checks, user)).remaining == 53


async def test_whoever_has_no_quota_is_remembered_until_one_is_set(
    checks: CountedChecks, quotas: QuotaReplica, metrics: Metrics, tenant: TenantKey
) -> None:
    await metrics.create(tenant, NewMetric("B"))
    customer = Customer(tenant, "B", "user_1")
    await remembered(checks, customer)
    await quotas.set("10", metric="B")
    assert (await state(checks, customer)).remaining == 10


async def test_what_is_reserved_is_remembered_until_the_first_of_it_expires(
    checks: CountedChecks, quotas: QuotaReplica, user: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = SetClock(clock.now())
    monkeypatch.setattr(clock, "now", time.now)
    await quotas.reserve("20", ttl_s=60)
    await quotas.reserve("30", ttl_s=30)
    await remembered(checks, user)
    reads, begun = checks.reads, time.time
    for seconds, reserved in ((0, 50), (29, 50), (30, 20), (59, 20), (60, 0)):
        time.time = begun + timedelta(seconds=seconds)
        assert (await state(checks, user)).reserved == reserved
    assert checks.reads == reads + 2


async def test_what_is_committed_is_read_each_time_as_the_watermark_may_pass_it(
    checks: CountedChecks, quotas: QuotaReplica, user: Customer, watermark: SetWatermark
) -> None:
    made = await quotas.reserve("20")
    await quotas.commit(made.reservation)
    for reads in range(1, 4):
        assert (await state(checks, user)).reserved == 20
        assert checks.reads == reads
    watermark.now = clock.now() + timedelta(seconds=3)
    assert (await state(checks, user)).reserved == 0


@pytest.mark.usefixtures("quotas")
async def test_a_metric_without_an_old_quota_is_read_each_time(
    checks: CountedChecks, user: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold that began before does not know that it has to note what it changes."""
    monkeypatch.setattr(checking, "FOLD_MAX", timedelta(minutes=2))
    for reads in range(1, 4):
        await checks.check(user, "0")
        assert checks.reads == reads


async def test_nothing_is_remembered_past_the_end_of_its_period(
    checks: CountedChecks,
    quotas: QuotaReplica,
    folder: Folder,
    tenant: TenantKey,
    user: Customer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await folder.apply([batch(tenant, now_event("5"))])
    await remembered(checks, user)
    later = (await state(checks, user)).end
    monkeypatch.setattr(clock, "now", lambda: later)
    assert await used(checks, user) == 0


async def test_strangers_with_the_same_customer_are_told_apart(
    checks: CountedChecks,
    quotas: QuotaReplica,
    database: Database,
    watermark: WatermarkSource,
    metrics: Metrics,
    folder: Folder,
    user: Customer,
) -> None:
    stranger = new_tenant()
    await metrics.create(stranger, NewMetric("A"))
    await QuotaReplica.on(database, watermark, stranger).set("100")
    theirs = Customer(stranger, "A", "user_1")
    for customer in (user, theirs):
        await remembered(checks, customer)
    await folder.apply([batch(stranger, now_event("5"))])
    assert [await used(checks, customer) for customer in (user, theirs)] == [0, 5]


async def test_a_look_that_fails_fails_for_all_who_wait_and_for_nobody_after(
    checks: CountedChecks,
    quotas: QuotaReplica,
    folder: Folder,
    tenant: TenantKey,
    user: Customer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_args: object) -> None:
        raise RuntimeError("broken")

    await remembered(checks, user)
    with monkeypatch.context() as patched:
        patched.setattr(change_repository, "find_changes", broken)
        results = await asyncio.gather(
            *(checks.check(user, "1") for _ in range(3)), return_exceptions=True
        )
    assert [type(result) for result in results] == [RuntimeError] * 3
    await folder.apply([batch(tenant, now_event("5"))])
    assert await used(checks, user) == 5


async def test_after_a_long_pause_everything_is_read_again(
    checks: CountedChecks,
    quotas: QuotaReplica,
    folder: Folder,
    database: Database,
    tenant: TenantKey,
    user: Customer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By then changes may have been forgotten."""
    await remembered(checks, user)
    await folder.apply([batch(tenant, now_event("5"))])
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM quota_changes"))
    monkeypatch.setattr(checking, "LOOK_PAUSE_MAX_S", 0.0)
    assert await used(checks, user) == 5


async def test_old_changes_are_forgotten(
    quotas: QuotaReplica, database: Database, watermark: SetWatermark
) -> None:
    await quotas.set("5")
    async with database.transaction() as connection:
        await connection.execute(
            text("UPDATE quota_changes SET create_time = now() - interval '11 minutes'")
        )
    await quotas.set("6")
    await Maintenance(database, watermark).round()
    async with database.transaction() as connection:
        left = await connection.execute(text("SELECT count(*) FROM quota_changes"))
        assert left.scalar_one() == 1


async def test_an_unknown_metric_is_never_remembered(
    checks: CountedChecks, metrics: Metrics, tenant: TenantKey
) -> None:
    customer = Customer(tenant, "LATER", "user_1")
    with pytest.raises(InvalidArgumentError):
        await checks.check(customer, "1")
    await metrics.create(tenant, NewMetric("LATER"))
    assert (await checks.check(customer, "1")).allowed


@pytest.mark.usefixtures("quotas")
async def test_checks_while_others_count_see_all_that_was_counted_before(
    checks: CountedChecks, database: Database, tenant: TenantKey
) -> None:
    """Each answer lies between what was committed before it was asked and after it came."""
    folders = [Folder(database, lambda: None) for _ in range(2)]
    begun = {f"user_{number}": Decimal(0) for number in range(5)}
    ended = dict(begun)
    going = True

    async def count(folder: Folder, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            grown = {name: Decimal(chance.randrange(1, 5)) for name in chance.sample([*begun], 2)}
            for name, amount in grown.items():
                begun[name] += amount
            sent = [now_event(str(amount), name) for name, amount in grown.items()]
            await folder.apply([batch(tenant, *sent)])
            for name, amount in grown.items():
                ended[name] += amount

    async def ask(seed: int) -> int:
        chance = random.Random(seed)
        answers = 0
        while going:
            name = chance.choice([*begun])
            least = ended[name]
            told = await used(checks, Customer(tenant, "A", name))
            assert least <= told <= begun[name]
            answers += 1
        return answers

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(ask(seed)) for seed in range(8)]
        async with asyncio.TaskGroup() as counting:
            for seed, folder in enumerate(folders):
                counting.create_task(count(folder, seed))
        going = False
    answers = sum(task.result() for task in asking)
    assert checks.reads < answers
