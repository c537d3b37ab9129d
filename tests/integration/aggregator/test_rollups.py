"""Rollups are what the buckets come to, whatever is counted, taken out and rolled up meanwhile."""

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import Selection, UsageQuestion
from services.aggregator.recounter import Recounter
from services.aggregator.roller import Roller, series_at_once
from services.aggregator.rollup_repository import RollupState, keep_until, roll_up_next
from services.aggregator.usage_service import UsageAnswers
from services.aggregator.windows import boundaries
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.ledger import Ledger, exactly, micros
from tests.integration.aggregator.rolled import rollup_differences
from tests.integration.aggregator.sending import (
    Event,
    batch,
    new_tenant,
    question,
    somebody_waits,
    total,
    utc,
)

KINDS = ("SUM", "COUNT", "MAX", "MIN", "AVG", "LATEST")
START, END = utc("2026-03-01"), utc("2026-04-01")
ZONES = ["UTC", "Asia/Kolkata", "America/New_York"]
CUSTOMERS = ("user_1", "user_2", "user_3")


@pytest.fixture
def ledger(tenant: TenantKey) -> Ledger:
    """What ingest has."""
    return Ledger(tenant)


@pytest.fixture
def recounter(database: Database, ledger: Ledger) -> Recounter:
    """One replica's recounts."""
    return Recounter(database, ledger)


@pytest.fixture
def roller(database: Database) -> Roller:
    """One replica's roller."""
    return Roller(database)


async def define_all(metrics: Metrics, tenant: TenantKey) -> None:
    """A metric of each aggregation, called as it, with a dimension."""
    for kind in KINDS:
        await metrics.create(tenant, NewMetric(kind, aggregation=kind, dimensions=("model",)))


def some_events(chance: random.Random, count: int) -> list[Event]:
    """Events of March, many of them at the edges of days and of spans of four hours."""
    edges = [START + timedelta(hours=4 * number) for number in range(31 * 6)]
    shifts = [timedelta(0), timedelta(microseconds=-1), timedelta(minutes=20), timedelta(hours=2)]
    events = []
    for _ in range(count):
        at = chance.choice(edges) + chance.choice(shifts)
        events.append(
            Event(
                chance.choice(KINDS),
                chance.choice(["1", "2.5", "0", "7", "0.000000000001", "9" * 20]),
                customer_id=chance.choice(CUSTOMERS),
                time=max(at, START),
                metadata={"model": chance.choice(["a", "b"])},
            )
        )
    return events


async def settle_recounts(database: Database, recounter: Recounter) -> None:
    """Count anew until nothing is marked."""
    for _ in range(50):
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE bucket_recounts SET attempt_time = '-infinity'"))
        if not await recounter.round():
            return
    raise AssertionError("recounts do not end")


class Part:
    """The events of a ledger in a window and a group, counted plainly."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def figures(
        self, kind: str, windows: Sequence[tuple[datetime, datetime]], customer_id: str | None
    ) -> dict[datetime, Fraction]:
        """The figure of each window in which anything happened."""
        found = {}
        for start, end in windows:
            inside = Ledger(self.ledger.tenant)
            inside.events = [
                event
                for event in self.ledger.left
                if event.metric == kind
                and customer_id in (None, event.customer_id)
                and micros(start) <= event.time_unix_micros < micros(end)
            ]
            if inside.events:
                found[start] = inside.figure(kind, kind)
        return found


async def assert_all_figures(answers: UsageAnswers, ledger: Ledger, chance: random.Random) -> None:
    """Questions of all kinds, windows and zones, compared with a plain count."""
    for kind in KINDS:
        for window in ("TOTAL", "DAY", "WEEK", "MONTH", "HOUR"):
            zone, customer_id = chance.choice(ZONES), chance.choice([None, *CUSTOMERS])
            start = START + timedelta(minutes=15) * chance.choice([0, 1, 18, 96, 500])
            end = END - timedelta(minutes=15) * chance.choice([0, 1, 18, 96, 500])
            starts = list(boundaries(start, end, window, ZoneInfo(zone)))
            windows = list(zip(starts, [*starts[1:], end], strict=True))
            expected = Part(ledger).figures(kind, windows, customer_id)
            asked = UsageQuestion(kind, customer_id, start, end, window=window, time_zone=zone)
            usage = await answers.query(ledger.tenant, asked)
            told = {row.start: exactly(row.value) for row in usage.rows}
            if not expected and window == "TOTAL":
                expected = {start: Fraction(0)}
            assert told == expected, (kind, window, zone, customer_id)
            selection = Selection(customer_id or CUSTOMERS[0], (kind,), start, end)
            [[billed]] = (await answers.billable(ledger.tenant, [selection]))[1]
            whole = Part(ledger).figures(kind, [(start, end)], selection.customer_id)
            assert exactly(billed.quantity) == whole.get(start, Fraction(0))


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_counting_voiding_and_rolling_up_gives_the_plain_figures(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
    roller: Roller,
    seed: int,
) -> None:
    chance = random.Random(seed)
    await define_all(metrics, ledger.tenant)
    due = utc("2026-03-04T00:00")
    for _ in range(12):
        await folder.apply([ledger.accept(*some_events(chance, 40))])
        voided = chance.sample(ledger.left, min(5, len(ledger.left)))
        await folder.apply([ledger.take_back(*voided)])
        if chance.random() < 0.6:
            due += timedelta(hours=4) * chance.choice([1, 2, 6, 20])
            await roller.roll_up(due)
        assert await rollup_differences(database) == []
        if chance.random() < 0.4:
            await settle_recounts(database, recounter)
    await settle_recounts(database, recounter)
    assert await rollup_differences(database) == []
    await assert_all_figures(answers, ledger, chance)
    # Until nothing is left.
    await folder.apply([ledger.take_back(*ledger.left)])
    assert await rollup_differences(database) == []
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT count(*) FROM usage_rollups"))
        assert rows.scalar_one() == 0


async def test_replicas_that_count_void_and_roll_up_at_once_lose_nothing(
    database: Database,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
) -> None:
    chance = random.Random(7)
    await define_all(metrics, ledger.tenant)
    folders = [Folder(database, lambda: None) for _ in range(3)]
    rollers = [Roller(database) for _ in range(2)]
    first = [ledger.accept(*some_events(chance, 30)) for _ in range(20)]
    await folders[0].apply(first)
    voids = [ledger.take_back(event) for event in chance.sample(ledger.left, 60)]
    later = [ledger.accept(*some_events(chance, 30)) for _ in range(40)]

    async def count(folder: Folder, seed: int) -> None:
        work = random.Random(seed).sample([*voids, *later], len(voids) + len(later))
        for each in work:
            await folder.apply([each])

    async def roll(roller: Roller) -> None:
        for day in range(2, 32):
            await roller.roll_up(utc(f"2026-03-{day:02}T08:00"))

    await asyncio.gather(
        *(count(folder, seed) for seed, folder in enumerate(folders)),
        *(roll(roller) for roller in rollers),
    )
    assert await rollup_differences(database) == []
    await settle_recounts(database, recounter)
    assert await rollup_differences(database) == []
    await assert_all_figures(answers, ledger, chance)


async def test_keeping_waits_for_a_fold_that_did_not_know_of_it(
    database: Database, tenant: TenantKey, folder: Folder, answers: UsageAnswers
) -> None:
    """It has written its bucket and not committed when a pass begins."""
    await folder.apply([batch(tenant, Event("A", "1"))])
    add = (
        "UPDATE usage_buckets SET event_count = event_count + 1, amount_sum = amount_sum + 5, "
        "amount_max = 5"
    )
    async with database.engine.connect() as connection:
        await connection.execute(text(add))
        rolling = asyncio.create_task(Roller(database).roll_up(utc("2026-03-03T00:00")))
        await somebody_waits(database)
        await connection.commit()
    assert await rolling
    assert await rollup_differences(database) == []
    assert await total(answers, tenant, "A") == 6


async def test_a_fold_and_the_making_of_rollups_do_not_miss_each_other(
    database: Database, tenant: TenantKey, folder: Folder, answers: UsageAnswers
) -> None:
    """A late event is counted while its span is being made, and is in once."""
    await folder.apply([batch(tenant, Event("A", "1"))])
    async with database.transaction() as connection:
        await keep_until(connection, utc("2026-03-03T00:00"))
    async with database.engine.connect() as connection:
        assert await roll_up_next(connection, 10)
        counting = asyncio.create_task(folder.apply([batch(tenant, Event("A", "2"))]))
        await somebody_waits(database)
        await connection.commit()
    await counting
    await Roller(database).roll_up(utc("2026-03-03T00:00"))
    assert await rollup_differences(database) == []
    assert await total(answers, tenant, "A") == 3


async def test_a_pass_that_was_killed_is_ended_by_another_replica(
    database: Database, tenant: TenantKey, folder: Folder, roller: Roller, answers: UsageAnswers
) -> None:
    await folder.apply([batch(tenant, *(Event("A", customer_id=f"u{n}") for n in range(9)))])
    async with database.transaction() as connection:
        await keep_until(connection, utc("2026-03-04T00:00"))
    async with database.transaction() as connection:
        assert await roll_up_next(connection, 4)
    # A customer who is new, before the place where it stopped or behind.
    await folder.apply([batch(tenant, Event("A", "4", customer_id="new"))])
    assert await total(answers, tenant, "A") == 13
    await roller.roll_up(utc("2026-03-05T00:00"))
    assert await rollup_differences(database) == []
    assert await total(answers, tenant, "A") == 13


async def test_usage_of_now_takes_no_lock_that_others_wait_for(
    database: Database, tenant: TenantKey, folder: Folder, roller: Roller, answers: UsageAnswers
) -> None:
    await folder.apply([batch(tenant, Event("A", time="2026-03-02T10:00"))])
    await roller.roll_up(utc("2026-03-02T12:00"))
    async with database.engine.connect() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(5, 2)"))
        async with asyncio.timeout(10):
            await folder.apply([batch(tenant, Event("A", time="2026-03-02T12:00"))])
    assert await total(answers, tenant, "A") == 2


async def test_questions_read_rollups_and_not_the_buckets_below(
    database: Database, tenant: TenantKey, folder: Folder, roller: Roller, answers: UsageAnswers
) -> None:
    """Told apart by buckets that were made wrong behind the back of the triggers."""
    await folder.apply([batch(tenant, Event("A", "1", time="2026-03-02T10:00"))])
    await roller.roll_up(utc("2026-03-10T00:00"))
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE usage_buckets DISABLE TRIGGER USER"))
        await connection.execute(text("UPDATE usage_buckets SET amount_sum = 100"))
        await connection.execute(text("ALTER TABLE usage_buckets ENABLE TRIGGER USER"))
    assert len(await rollup_differences(database)) == 4
    for more in ({}, {"customer_id": "user_1"}, {"window": "DAY"}, {"window": "MONTH"}):
        assert await total(answers, tenant, "A", **more) == 1
    assert await total(answers, tenant, "A", window="HOUR") == 100
    selection = Selection("user_1", ("A",), START, END)
    [[billed]] = (await answers.billable(tenant, [selection]))[1]
    assert billed.quantity == 1


async def test_rollups_of_tenants_with_the_same_customers_stay_apart(
    database: Database, folder: Folder, roller: Roller, answers: UsageAnswers
) -> None:
    organization = new_tenant()
    tenants = [organization, TenantKey(organization.organization_id, "test"), new_tenant()]
    for amount, tenant in enumerate(tenants, start=1):
        await folder.apply([batch(tenant, Event("A", str(amount)))])
    await roller.roll_up(utc("2026-03-10T00:00"))
    await folder.apply([batch(tenants[1], Event("A", "10"))])
    assert [await total(answers, tenant, "A") for tenant in tenants] == [1, 12, 3]
    asked = question("A", group_by=("customerId",), top=10)
    for tenant, figure in zip(tenants, (1, 12, 3), strict=True):
        usage = await answers.query(tenant, asked)
        [row] = usage.rows
        assert row.group == {"customerId": "user_1"}
        assert row.value == figure


REFUSED = [
    ("UPDATE usage_rollups SET event_count = 7", "made of buckets only"),
    ("DELETE FROM usage_rollups", "made of buckets only"),
    ("INSERT INTO usage_rollups SELECT * FROM usage_rollups", "made of buckets only"),
    ("DELETE FROM rollup_state", "never deleted"),
    ("UPDATE rollup_state SET kept_until = '2026-01-01Z'", "never goes back"),
    ("UPDATE rollup_state SET rolled_until = '2026-01-01Z'", "never goes back"),
    ("UPDATE rollup_state SET rolled_until = '2026-06-01Z'", "ck_rollup_state_rolled_until"),
    ("UPDATE rollup_state SET kept_until = '2026-06-01 01:00Z'", "ck_rollup_state_spans"),
    ("INSERT INTO rollup_state VALUES (true, now(), now(), 0)", "ck_rollup_state_spans"),
    ("UPDATE usage_buckets SET series_id = series_id + 1", "identifies a bucket never changes"),
    (
        "UPDATE usage_buckets SET bucket_start = bucket_start + interval '1 day'",
        "identifies a bucket never changes",
    ),
]


@pytest.mark.parametrize(("statement", "why"), REFUSED)
async def test_the_database_refuses_what_would_make_rollups_wrong(
    database: Database, tenant: TenantKey, folder: Folder, roller: Roller, statement: str, why: str
) -> None:
    await folder.apply([batch(tenant, Event("A", "1"))])
    await roller.roll_up(utc("2026-03-10T00:00"))
    with pytest.raises(DBAPIError, match=why):
        async with database.transaction() as connection:
            await connection.execute(text(statement))


async def test_whoever_writes_buckets_by_hand_writes_rollups_too(
    database: Database, tenant: TenantKey, folder: Folder, roller: Roller, answers: UsageAnswers
) -> None:
    await folder.apply([batch(tenant, Event("A", "3"), Event("A", "4", customer_id="user_2"))])
    await roller.roll_up(utc("2026-03-10T00:00"))
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE usage_buckets SET amount_sum = amount_sum - 1"))
    assert await rollup_differences(database) == []
    assert await total(answers, tenant, "A") == 5
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM usage_buckets WHERE amount_sum = 2"))
    assert await rollup_differences(database) == []
    assert await total(answers, tenant, "A") == 3


async def test_buckets_are_not_written_from_an_old_snapshot(
    database: Database, tenant: TenantKey, folder: Folder
) -> None:
    await folder.apply([batch(tenant, Event("A", "3"))])
    with pytest.raises(DBAPIError, match="READ COMMITTED only"):
        async with database.transaction() as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            await connection.execute(text("DELETE FROM usage_buckets"))


async def test_a_round_rolls_up_what_has_ended_an_hour_ago_and_nothing_again(
    database: Database, tenant: TenantKey, folder: Folder, roller: Roller
) -> None:
    await folder.apply([batch(tenant, Event("A", "3"))])
    assert await roller.round()
    assert await rollup_differences(database) == []
    assert not await roller.round()


def test_of_long_passes_few_series_are_rolled_up_at_once() -> None:
    now = utc("2026-03-10T00:00")
    usual = RollupState(now, now - timedelta(hours=4), 0)
    first = RollupState(now, utc("2000-01-01"), 0)
    assert (series_at_once(usual), series_at_once(first)) == (500, 10)
