"""The largest of a range whose edges are in buckets: as if all were told and sorted."""

import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import event

from services.aggregator import largest, spans, usage_source
from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.largest import find_candidates
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import UsageQuestion, check_question
from services.aggregator.roller import Roller
from services.aggregator.usage_service import UsageAnswers
from services.aggregator.window_repository import group_column
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.sending import Event, batch, new_tenant, utc

START, END = utc("2026-03-01"), utc("2026-04-01")
KOLKATA = timedelta(hours=5, minutes=30)
HOUR = timedelta(hours=1)
Told = list[tuple[tuple[str, ...], Decimal]]


def usage(chance: random.Random, customers: int) -> list[Event]:
    """Of each customer a little within the month, and more around its edges, in it or not."""
    events = []
    for number in range(customers):
        for edge in (START - KOLKATA, END - KOLKATA, START + timedelta(days=9)):
            for _ in range(chance.choice([0, 1, 3])):
                time = edge + chance.choice([-3, -1, 0, 1, 3]) * HOUR
                events += [
                    Event(
                        metric,
                        chance.choice(["0", "1", "2.5", "40"]),
                        customer_id=f"user_{number:02}",
                        time=time,
                        metadata={"model": chance.choice(["a", "b"])},
                    )
                    for metric in ("SUM", "COUNT", "MAX")
                ]
    return events


def asked(metric: str, **more: object) -> UsageQuestion:
    """About March in Kolkata, or with an edge that is not rolled up."""
    given = {"start": START - KOLKATA, "end": END - KOLKATA, "time_zone": "Asia/Kolkata"}
    return UsageQuestion(metric, **{**given, **more})  # type: ignore[arg-type]


async def told(answers: UsageAnswers, tenant: TenantKey, question: UsageQuestion) -> Told:
    rows = (await answers.query(tenant, question)).rows
    return [(tuple(row.group.values()), row.value) for row in rows]


@pytest.fixture
async def filled(
    database: Database, folder: Folder, metrics: Metrics, tenant: TenantKey
) -> TenantKey:
    """Somebody with usage of 30 customers that is rolled up, and a stranger with the same names."""
    for owner in (tenant, new_tenant()):
        for kind in ("SUM", "COUNT", "MAX"):
            new = NewMetric(kind, aggregation=kind, dimensions=("model",))
            await metrics.create(owner, new)
        await folder.apply([batch(owner, *usage(random.Random(3), 30))])
    await Roller(database).roll_up(utc("2026-04-02"))
    return tenant


@pytest.mark.parametrize("candidates_max", [0, 2_000])
@pytest.mark.parametrize("top", [1, 5, 29, 100])
@pytest.mark.parametrize("metric", ["SUM", "COUNT", "MAX"])
async def test_the_largest_are_those_of_all(
    answers: UsageAnswers,
    filled: TenantKey,
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    top: int,
    candidates_max: int,
) -> None:
    monkeypatch.setattr(largest, "CANDIDATES_MAX", candidates_max)
    for more in (
        {"group_by": ("customerId",)},
        {"group_by": ("customerId", "model")},
        {"group_by": ("customerId",), "filters": {"model": "a"}},
        {"group_by": ("customerId",), "end": utc("2026-04-02") + HOUR},
        {"group_by": ("customerId",), "start": START + HOUR, "end": START + 3 * HOUR},
    ):
        every = await told(answers, filled, asked(metric, **more))
        expected = sorted(every, key=lambda row: (-row[1], row[0]))[:top]
        assert await told(answers, filled, asked(metric, **more, top=top)) == expected


async def test_of_most_customers_no_bucket_is_read(
    database: Database, metrics: Metrics, filled: TenantKey
) -> None:
    metric = await metrics.get(filled, "SUM")
    query = check_question(asked("SUM", group_by=("customerId",), top=3), metric, END)
    async with database.transaction() as connection:
        rolled_until = await usage_source.read_rolled_until(connection)
        read = spans.pieces([(query.start, query.end)], rolled_until)
        keys = [group_column("customerId")]
        found = await find_candidates(connection, query, read, rolled_until, keys, [])
    assert found is not None
    assert 3 <= len(found) < 40  # of 60 series, two of each customer


@pytest.mark.parametrize("metric", ["SUM", "COUNT"])
async def test_days_of_all_customers_are_read_from_their_index_alone(
    database: Database, answers: UsageAnswers, filled: TenantKey, metric: str
) -> None:
    """Left to itself PostgreSQL reads so little as a whole, so it has to do without."""
    statements: list[tuple[str, Sequence[object]]] = []
    event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cu, statement, values, *_rest: statements.append((statement, values)),
    )
    month = {"start": START, "end": END, "group_by": ("customerId",), "top": 3}
    assert len(await told(answers, filled, UsageQuestion(metric, **month))) == 3  # type: ignore[arg-type]
    statement, values = statements[-1]
    async with database.driving() as driver:
        await driver.execute("VACUUM ANALYZE usage_rollups")
        await driver.execute("SET enable_seqscan = off")
        await driver.execute("SET enable_bitmapscan = off")
        plan = "\n".join(row[0] for row in await driver.fetch(f"EXPLAIN {statement}", *values))
        await driver.execute("RESET ALL")
    assert "Index Only Scan using ix_usage_rollups_days" in plan
