"""How many values a dimension knows, and what becomes of all others."""

import asyncio
import importlib
import random
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.aggregator.aggregations import KINDS
from services.aggregator.details import value_key
from services.aggregator.dimensions import OVERFLOW
from services.aggregator.domain import UNIQUE_COUNT, NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import Selection
from services.aggregator.recounter import Recounter
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import Database, TenantKey
from services.kit.errors import NotYetError, UnavailableError
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.ledger import Ledger
from tests.integration.aggregator.sending import (
    Event,
    batch,
    new_tenant,
    question,
    rows,
    total,
    utc,
)

MOST = 3
PATHS = NewMetric("PATHS", dimensions=("path", "region"))


@pytest.fixture
def metrics(database: Database) -> Metrics:
    """Each dimension of a new metric knows three values."""
    return Metrics(database, MOST)


def path(name: object, amount: str = "1", metric: str = "PATHS", **more: object) -> Event:
    """An event of PATHS."""
    return Event(metric, amount, metadata={"path": name, **more})


async def by_path(
    answers: UsageAnswers, tenant: TenantKey, metric: str = "PATHS"
) -> dict[str, str]:
    """The figure of each path."""
    found = await rows(answers, tenant, question(metric, group_by=("path",)))
    return {group: figure for _, (group,), figure in found}


async def test_the_first_values_are_known_and_the_others_are_counted_together(
    folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await metrics.create(tenant, PATHS)
    await folder.apply([batch(tenant, path("/a"), path("/b"), path(""), path("/a"))])
    await folder.apply([batch(tenant, path("/e", "10"), path("/c"), path("/d", "100"))])
    await folder.apply([batch(tenant, path("/a"), path("/e"), path(OVERFLOW), Event("PATHS"))])
    told = {"": "2", OVERFLOW: "112", "/a": "3", "/b": "1", "/c": "1"}
    assert await by_path(answers, tenant) == told
    assert await total(answers, tenant, "PATHS", filters={"path": OVERFLOW}) == 112
    assert await total(answers, tenant, "PATHS", filters={"path": "/d"}) == 0
    assert await total(answers, tenant, "PATHS") == 119


async def test_each_dimension_metric_and_tenant_has_its_own_room(
    folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    other, organization = NewMetric("OTHER", dimensions=("path",)), new_tenant()
    await metrics.create(tenant, PATHS)
    await metrics.create(tenant, other)
    await metrics.create(organization, PATHS)
    full = [path(f"/{n}", region="eu") for n in range(MOST + 1)]
    await folder.apply([batch(tenant, *full)])
    await folder.apply([batch(tenant, path("/x", metric="OTHER"), path("/x", region="us"))])
    await folder.apply([batch(organization, path("/x"))])
    assert await by_path(answers, tenant, "OTHER") == {"/x": "1"}
    assert await by_path(answers, organization) == {"/x": "1"}
    found = await rows(answers, tenant, question("PATHS", group_by=("region",)))
    assert [(group, figure) for _, group, figure in found] == [(("eu",), "4"), (("us",), "1")]


async def test_replicas_agree_on_what_is_known(
    database: Database, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await metrics.create(tenant, PATHS)
    replicas = [Folder(database, lambda: None) for _ in range(4)]
    batches = [
        batch(tenant, *(path(f"/{random.Random(n).randrange(12)}") for _ in range(3)))
        for n in range(60)
    ]
    orders = [random.Random(seed).sample(batches, len(batches)) for seed in range(4)]
    await asyncio.gather(
        *(replica.apply(order) for replica, order in zip(replicas, orders, strict=True))
    )
    # Replicas that remember nothing count as those that did.
    for number in range(12):
        fresh = Folder(database, lambda: None)
        await fresh.apply([batch(tenant, path(f"/{number}", "1000"))])
    told = await by_path(answers, tenant)
    assert len(told) == MOST + 1
    assert sum(map(Decimal, told.values())) == 180 + 12_000
    assert Decimal(told[OVERFLOW]) >= 9_000
    assert all(1000 <= Decimal(figure) < 2000 for name, figure in told.items() if name != OVERFLOW)


@pytest.mark.parametrize("kind", ["SUM", "MAX", UNIQUE_COUNT])
async def test_voids_and_recounts_find_what_was_counted_together(
    database: Database,
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    tenant: TenantKey,
    kind: str,
) -> None:
    unique_by = "user" if kind == UNIQUE_COUNT else ""
    definition = NewMetric(
        "PATHS", aggregation=kind, dimensions=("path",), unique_by=unique_by, percentiles=True
    )
    await metrics.create(tenant, definition)
    ledger = Ledger(tenant)
    recounter = Recounter(database, ledger)
    for number in range(MOST + 3):
        event = path(f"/{number}", str(2**number), user=number % 2)
        await folder.apply([ledger.accept(event)])
    voided = [ledger.events[MOST + 2], ledger.events[0]]
    await folder.apply([ledger.take_back(*voided)])
    while await recounter.round():
        pass
    expected = {
        "SUM": {"/1": "2", "/2": "4", OVERFLOW: "24"},
        "MAX": {"/1": "2", "/2": "4", OVERFLOW: "16"},
        UNIQUE_COUNT: {"/1": "1", "/2": "1", OVERFLOW: "2"},
    }
    assert await by_path(answers, tenant) == expected[kind]
    assert await total(answers, tenant, "PATHS", percentile="P99") == 16


@pytest.fixture
def billing(
    database: Database, watermark: SetWatermark, waits: TokenWait, tenant: TenantKey
) -> tuple[UsageAnswers, Ledger]:
    """Answers that know ingest, and what it has."""
    ledger = Ledger(tenant)
    return UsageAnswers(database, watermark, waits, ledger), ledger


def selected(metric: str, *names: str, customer_id: str = "user_1") -> Selection:
    """A customer's March, with a price for each path."""
    split = {metric: [{"path": name} for name in names]}
    return Selection(customer_id, (metric,), utc("2026-03-01"), utc("2026-04-01"), split)


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_price_of_a_value_that_came_too_late_is_still_right(
    folder: Folder,
    metrics: Metrics,
    billing: tuple[UsageAnswers, Ledger],
    kind: str,
) -> None:
    answers, ledger = billing
    unique_by = "user" if kind == UNIQUE_COUNT else ""
    definition = NewMetric(kind, aggregation=kind, dimensions=("path",), unique_by=unique_by)
    unbounded = NewMetric(
        f"{kind}_FREE", aggregation=kind, dimensions=("path",), unique_by=unique_by
    )
    await metrics.create(ledger.tenant, definition)
    await Metrics(folder._database).create(ledger.tenant, unbounded)
    chance = random.Random(7)
    for metric in (kind, f"{kind}_FREE"):
        chance.seed(7)
        events = [
            path(f"/{n % 8}", f"{chance.randrange(1000)}.5", metric, user=chance.randrange(4))
            for n in range(40)
        ]
        for number, event in enumerate(events):
            # Of events of one time the last has the highest id.
            named = replace(event, event_id=number.to_bytes(16, "big"))
            await folder.apply([ledger.accept(named)])
    names = ("/7", "/0", "/unheard")
    selections = [selected(metric, *names) for metric in (kind, f"{kind}_FREE")]
    _, [[bounded], [free]] = await answers.billable(ledger.tenant, selections)
    assert bounded.parts == free.parts
    assert bounded.parts[0] != 0
    assert bounded.parts[2] == 0
    assert ledger.replays == 1


async def test_events_are_only_read_again_where_buckets_cannot_tell(
    folder: Folder, metrics: Metrics, billing: tuple[UsageAnswers, Ledger]
) -> None:
    answers, ledger = billing
    await metrics.create(ledger.tenant, PATHS)
    full = [path(f"/{n}") for n in range(MOST + 2)]
    other = Event("PATHS", "5", "user_2", metadata={"path": "/1"})
    await folder.apply([ledger.accept(*full[:MOST], other), ledger.accept(*full[MOST:])])
    # All values known; the price of the rest of all values; nothing that lies under the overflow.
    for selection, parts in (
        (selected("PATHS", "/0", "/1"), [1, 1, 3]),
        (selected("PATHS", OVERFLOW, ""), [2, 0, 3]),
        (selected("PATHS", "/4", customer_id="user_2"), [0, 5]),
        (selected("PATHS", "/4", customer_id="nobody"), [0, 0]),
    ):
        _, [[billed]] = await answers.billable(ledger.tenant, [selection])
        assert list(billed.parts) == parts
    assert ledger.replays == 0
    _, [[billed]] = await answers.billable(ledger.tenant, [selected("PATHS", "/4", OVERFLOW)])
    assert list(billed.parts) == [1, 1, 3]
    assert ledger.replays == 1


async def test_a_price_is_not_told_on_a_guess(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    billing: tuple[UsageAnswers, Ledger],
) -> None:
    """Not all events are stored any more, or ingest is away."""
    knowing, ledger = billing
    await metrics.create(ledger.tenant, PATHS)
    for number in range(MOST + 1):
        await folder.apply([ledger.accept(path(f"/{number}"))])
    ledger.events.pop()
    with pytest.raises(NotYetError) as refused:
        await knowing.billable(ledger.tenant, [selected("PATHS", "/9")])
    assert refused.value.reason == "dimension_overflow"
    with pytest.raises(UnavailableError):
        await answers.billable(ledger.tenant, [selected("PATHS", "/9")])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyzuv"), st.integers(0, 9)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 7),
)
async def test_totals_are_those_of_a_metric_without_dimensions(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    sent: Sequence[tuple[str, str, int]],
    size: int,
) -> None:
    tenant = new_tenant()
    kinds = [kind for kind in sorted(KINDS) if kind != UNIQUE_COUNT]
    for kind in kinds:
        await metrics.create(tenant, NewMetric(kind, aggregation=kind))
        bounded = NewMetric(f"{kind}_BY", aggregation=kind, dimensions=("path", "region"))
        await metrics.create(tenant, bounded)
    for start in range(0, len(sent), size):
        part = sent[start : start + size]
        await folder.apply(
            [
                batch(
                    tenant,
                    *(
                        Event(
                            metric,
                            str(amount),
                            metadata={"path": name, "region": region},
                            event_id=bytes([0] * 14 + [start, number]),
                        )
                        for kind in kinds
                        for metric in (kind, f"{kind}_BY")
                        for number, (name, region, amount) in enumerate(part)
                    ),
                )
            ]
        )
    for kind in kinds:
        bounded_total = await total(answers, tenant, f"{kind}_BY")
        assert bounded_total == await total(answers, tenant, kind)
    groups = await rows(answers, tenant, question("SUM_BY", group_by=("path", "region")))
    for index in (0, 1):
        assert len({group[index] for _, group, _ in groups} - {OVERFLOW}) <= MOST


async def test_the_database_lets_no_more_values_in(
    database: Database, folder: Folder, metrics: Metrics, tenant: TenantKey
) -> None:
    await metrics.create(tenant, PATHS)
    await folder.apply([batch(tenant, *(path(f"/{n}") for n in range(MOST)))])
    metric = (await metrics.get(tenant, "PATHS")).metric_id
    for values, why in (
        (f"({metric}, 'path', '\\x{value_key('/9').hex()}', {MOST + 1})", "no more values"),
        (f"({metric}, 'path', '\\x{value_key('/9').hex()}', {MOST})", "metric_id_dimension_number"),
        (f"({metric}, 'path', '\\x{value_key('/1').hex()}', 1)", "pk_dimension_values"),
        (f"({metric}, 'path', 'short', 1)", "ck_dimension_values_value_key"),
    ):
        with pytest.raises(DBAPIError, match=why):
            async with database.transaction() as connection:
                await connection.execute(text(f"INSERT INTO dimension_values VALUES {values}"))
    with pytest.raises(DBAPIError, match="never changes"):
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE dimension_values SET number = 9"))


async def test_values_that_were_counted_before_there_was_a_bound_stay_apart(
    database: Database, folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    unbounded = Metrics(database, 100_000)
    await unbounded.create(tenant, PATHS)
    names = ["/caf\u00e9", *(f"/{number}" for number in range(1_001))]
    await folder.apply([batch(tenant, *(path(name) for name in names), path(OVERFLOW), path(""))])
    versions = "services.aggregator.migrations.versions."
    migration = importlib.import_module(f"{versions}0009_known_values")
    async with database.transaction() as connection:
        for statement in (
            "DROP TABLE dimension_values",
            "DROP FUNCTION keep_dimension_values()",
            "ALTER TABLE metrics DROP COLUMN dimension_values_max",
            migration.MOST,
            migration.DIMENSION_VALUES,
            migration.KNOWN,
            *migration.ROOM,
            migration.KEEP_VALUES,
            migration.TRIGGER,
        ):
            await connection.execute(text(statement))
    fresh = Folder(database, lambda: None)
    await fresh.apply([batch(tenant, path("/caf\u00e9"), path("/1000"), path("/new"))])
    told = await by_path(answers, tenant)
    assert len(told) == len(names) + 2
    assert [told[name] for name in ("/caf\u00e9", "/1000", "/0", OVERFLOW)] == ["2", "2", "1", "2"]
