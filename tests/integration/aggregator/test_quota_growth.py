"""A replica that adds what is counted to what it remembers tells what a fresh one reads."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.quotas import checking
from services.aggregator.quotas.change_repository import Changes, note_changes
from services.aggregator.quotas.checking import QuotaChecks
from services.aggregator.quotas.domain import Customer, Quota, Reservation
from services.aggregator.quotas.repository import Holder
from services.aggregator.quotas.states import CustomerStates
from services.aggregator.roller import Roller
from services.aggregator.watermark import WatermarkSource
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import PreconditionError
from tests.integration.aggregator.ledger import Ledger
from tests.integration.aggregator.quota_setting import (
    CountedChecks,
    QuotaReplica,
    SetClock,
    now_event,
    remembered,
)
from tests.integration.aggregator.sending import Event, batch, utc

USERS = [f"user_{number}" for number in range(1, 5)]


@pytest.fixture(autouse=True)
def folds_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every fold knew of every quota at once: here one is set before anything is folded."""
    monkeypatch.setattr(checking, "FOLD_MAX", timedelta(0))


@pytest.fixture
async def quotas(
    database: Database, watermark: WatermarkSource, metrics: Metrics, tenant: TenantKey
) -> QuotaReplica:
    """The replica on which everything is changed; A is a sum, COUNTED a count."""
    await metrics.create(tenant, NewMetric("A"))
    await metrics.create(tenant, NewMetric("COUNTED", aggregation="COUNT"))
    replica = QuotaReplica.on(database, watermark, tenant)
    for metric in ("A", "COUNTED"):
        await replica.set("1000", metric=metric)
        await replica.set("900", metric=metric, period="DAY", time_zone="Asia/Kathmandu")
    return replica


@pytest.fixture
def checks(database: Database, watermark: WatermarkSource) -> CountedChecks:
    """Another replica, on which it is asked."""
    return CountedChecks(database, watermark)


async def used(checks: QuotaChecks, customer: Customer) -> dict[str, Decimal]:
    """How much of each quota is used, by period."""
    states = (await checks.check(customer, "0")).states
    return {state.quota.settings.period: state.used for state in states}


@pytest.mark.usefixtures("quotas")
@pytest.mark.parametrize(("metric", "grown"), [("A", "7.25"), ("COUNTED", "2")])
async def test_who_has_used_more_is_not_read_again(
    checks: CountedChecks, folder: Folder, tenant: TenantKey, metric: str, grown: str
) -> None:
    customer = Customer(tenant, metric, "user_1")
    await remembered(checks, customer)
    reads = checks.reads
    for times in range(1, 4):
        events = [now_event(amount, metric=metric) for amount in ("7", "0.25")]
        # Of the month before: counted, but not in these periods.
        late = Event(metric, "100", "user_1", clock.now() - timedelta(days=32))
        await folder.apply([batch(tenant, *events, late)])
        amount = Decimal(grown) * times
        assert await used(checks, customer) == {"MONTH": amount, "DAY": amount}
    assert checks.reads == reads


@pytest.mark.usefixtures("quotas")
async def test_what_was_read_in_is_not_added_again(
    checks: CountedChecks, folder: Folder, tenant: TenantKey
) -> None:
    """The look that finds the fold has to find it after the read that saw it."""
    user, other = Customer(tenant, "A", "user_1"), Customer(tenant, "A", "user_2")
    await remembered(checks, other)
    await folder.apply([batch(tenant, now_event("5"))])
    assert (await used(checks, user))["MONTH"] == 5
    assert (await used(checks, user))["MONTH"] == 5
    assert (await used(checks, other))["MONTH"] == 0


class Interrupted(CountedChecks):
    """Something happens between a read and its end."""

    then: Callable[[], Awaitable[None]] | None = None

    async def _load(
        self, customers: Sequence[Customer], now: datetime, at: datetime | None = None
    ) -> tuple[Changes, dict[Customer, CustomerStates]]:
        read = await super()._load(customers, now, at)
        if self.then:
            then, self.then = self.then, None
            await then()
        return read


async def interrupted(
    database: Database, watermark: WatermarkSource, tenant: TenantKey, folder: Folder
) -> Interrupted:
    """5 are counted, and looked at, between the read of user_1 and its end."""
    checks = Interrupted(database, watermark)
    other = Customer(tenant, "A", "user_2")
    await remembered(checks, other)

    async def count() -> None:
        await folder.apply([batch(tenant, now_event("5"))])
        await checks.check(other, "0")

    checks.then = count
    return checks


@pytest.mark.usefixtures("quotas")
async def test_what_is_counted_during_a_read_is_added_after_it(
    database: Database, watermark: WatermarkSource, tenant: TenantKey, folder: Folder
) -> None:
    checks = await interrupted(database, watermark, tenant, folder)
    user = Customer(tenant, "A", "user_1")
    await checks.check(user, "0")
    reads = checks.reads
    assert (await used(checks, user))["MONTH"] == 5
    assert checks.reads == reads


@pytest.mark.usefixtures("quotas")
async def test_a_read_during_which_too_much_changes_is_not_remembered(
    database: Database,
    watermark: WatermarkSource,
    tenant: TenantKey,
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checking, "MEANWHILE_MAX", 0)
    checks = await interrupted(database, watermark, tenant, folder)
    user = Customer(tenant, "A", "user_1")
    await checks.check(user, "0")
    reads = checks.reads
    assert (await used(checks, user))["MONTH"] == 5
    assert checks.reads == reads + 1


async def test_a_change_that_does_not_say_how_much_is_read_again(
    checks: CountedChecks, quotas: QuotaReplica, folder: Folder, database: Database
) -> None:
    """As folds of the version before write it, and reconciliation of all customers."""
    tenant = quotas.tenant
    users = [Customer(tenant, "A", name) for name in USERS]
    await folder.apply([batch(tenant, *(now_event("5", name) for name in USERS))])
    for holder in ("user_1", ""):
        for user in users:
            await remembered(checks, user)
        reads = checks.reads
        async with database.transaction() as connection:
            query = text("UPDATE usage_buckets SET amount_sum = amount_sum + 1")
            await connection.execute(query)
            found = await connection.execute(text("SELECT metric_id FROM metrics WHERE key = 'A'"))
            await note_changes(connection, [Holder(found.scalar_one(), holder)])
        [first, *_] = [(await used(checks, user))["MONTH"] for user in users]
        assert first == (6 if holder else 7)
        assert checks.reads - reads == (1 if holder else len(users))


class World:
    """Does at random what may change what is left, while a clock goes on."""

    def __init__(self, quotas: QuotaReplica, folder: Folder, seed: int, time: SetClock) -> None:
        self.quotas = quotas
        self.folder = folder
        self.chance = random.Random(seed)
        self.clock = time
        self.ledger = Ledger(quotas.tenant)
        self.own: list[Quota] = []
        self.reserved: list[Reservation] = []

    def event(self) -> Event:
        """Of now, of the last days, or a little ahead."""
        hours = self.chance.choice([0, 0, 0, 1, 5, 26, 50, -0.2])
        return Event(
            self.chance.choice(["A", "COUNTED"]),
            str(self.chance.choice(["1", "2.5", "0.000000000001"])),
            self.chance.choice([*USERS, ""]),
            clock.now() - timedelta(hours=hours),
        )

    async def count(self) -> None:
        """New events."""
        events = [self.event() for _ in range(self.chance.randrange(1, 6))]
        await self.folder.apply([self.ledger.accept(*events)])

    async def void(self) -> None:
        """Take an event back."""
        if self.ledger.left:
            event = self.chance.choice(self.ledger.left)
            await self.folder.apply([self.ledger.take_back(event)])

    async def set(self) -> None:
        """A quota for one customer."""
        period = self.chance.choice(["HOUR", "DAY", "WEEK", "MONTH", "TOTAL"])
        limit = str(self.chance.randrange(1, 2_000))
        self.own.append(await self.quotas.set(limit, self.chance.choice(USERS), period=period))

    async def delete(self) -> None:
        """Take such a quota away."""
        if self.own:
            quota = self.own.pop()
            self.own = [each for each in self.own if each.quota_id != quota.quota_id]
            await self.quotas.quotas.delete(self.quotas.tenant, quota.quota_id)

    async def reserve(self) -> None:
        """Units set aside, or back."""
        if self.reserved and self.chance.random() < 0.5:
            made = self.reserved.pop()
            with suppress(PreconditionError):  # it may have expired
                if self.chance.random() < 0.5:
                    await self.quotas.commit(made)
                else:
                    await self.quotas.release(made)
            return
        with suppress(PreconditionError):  # nothing may be left
            ttl_s = self.chance.choice([30, 3_000])
            reserved = await self.quotas.reserve("1", self.chance.choice(USERS), ttl_s=ttl_s)
            self.reserved.append(reserved.reservation)

    async def later(self) -> None:
        """Periods end."""
        self.clock.time += timedelta(minutes=self.chance.choice([1, 20, 60, 600]))

    async def step(self) -> None:
        """One of these; mostly usage."""
        doing = [*[self.count] * 6, self.void, self.set, self.delete, self.reserve, self.later]
        await self.chance.choice(doing)()


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_remembered_is_what_is_read_whatever_happens(
    checks: CountedChecks,
    quotas: QuotaReplica,
    folder: Folder,
    database: Database,
    watermark: WatermarkSource,
    tenant: TenantKey,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    time = SetClock(utc("2027-01-30T20:00"))
    monkeypatch.setattr(clock, "now", time.now)
    world = World(quotas, folder, seed, time)
    asked = [Customer(tenant, metric, name) for metric in ("A", "COUNTED") for name in USERS]
    answers = 0
    for number in range(40):
        await world.step()
        if number % 10 == 5:
            await Roller(database).round()
        fresh = QuotaChecks(database, watermark)
        told = await asyncio.gather(*(checks.check(each, "1") for each in asked))
        read = await asyncio.gather(*(fresh.check(each, "1") for each in asked))
        assert [answer.states for answer in told] == [answer.states for answer in read]
        answers += len(told)
    assert checks.reads < answers / 2
