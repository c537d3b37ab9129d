"""A metric that is defined, or changed, after its events counts what one defined first counts."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from services.aggregator import fold_repository
from services.aggregator.aggregations import KINDS
from services.aggregator.domain import UNIQUE_COUNT, Metric, NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.rebuilds.domain import MetricChange
from services.aggregator.rebuilds.rebuilder import Rebuilder
from services.aggregator.recounter import Recounter
from services.aggregator.usage_service import UsageAnswers
from services.kit import clock
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.ledger import Ledger, exactly
from tests.integration.aggregator.rolled import rollup_differences
from tests.integration.aggregator.sending import Event, question, rows, total

NO_LEASE = timedelta(0)
BY_MODEL = MetricChange(dimensions=("model",))


@pytest.fixture
def ledger(tenant: TenantKey) -> Ledger:
    """What ingest has stored."""
    return Ledger(tenant)


@pytest.fixture
def rebuilder(database: Database, ledger: Ledger, folder: Folder) -> Rebuilder:
    """One replica's; what it has claimed is anybody's at once."""
    return Rebuilder(database, ledger, folder, lease=NO_LEASE, step_events=2)


def used(amount: str = "1", model: str = "", user: str = "", **fields: object) -> Event:
    """An event of USED."""
    metadata = {"model": model, "user": user}
    sent = {key: value for key, value in metadata.items() if value}
    return Event("USED", amount, metadata=sent, **fields)  # type: ignore[arg-type]


async def sql(database: Database, statement: str, **values: object) -> list[tuple[object, ...]]:
    """The rows of a statement, if it has any."""
    async with database.transaction() as connection:
        result = await connection.execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


async def built(rebuilder: Rebuilder, metrics: Metrics, tenant: TenantKey) -> Metric:
    """USED, once nothing is left to do."""
    while await rebuilder.round():
        pass
    return await metrics.get(tenant, "USED")


async def by_model(answers: UsageAnswers, tenant: TenantKey) -> dict[str, str]:
    """USED of March by model."""
    found = await rows(answers, tenant, question("USED", group_by=("model",)))
    return {group: value for _, (group,), value in found}


async def test_a_dimension_that_is_added_has_the_events_from_before(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
) -> None:
    await metrics.create(tenant, NewMetric("USED"))
    await folder.apply([ledger.accept(used("1", "a"), used("2", "b"), used("4"))])
    changed = await metrics.update(tenant, "USED", BY_MODEL)
    assert changed.definition.dimensions == (), "the old answer serves"
    assert changed.rebuild is not None
    assert changed.rebuild.new == replace(changed.definition, dimensions=("model",))
    assert (changed.rebuild.state, changed.rebuild.progress_percent) == ("RUNNING", 0)
    await folder.apply([ledger.accept(used("8", "a"))])
    assert await total(answers, tenant, "USED") == 15
    metric = await built(rebuilder, metrics, tenant)
    assert metric.definition.dimensions == ("model",)
    assert metric.metric_id == changed.metric_id
    assert metric.create_time == changed.create_time
    assert metric.rebuild is not None
    assert (metric.rebuild.state, metric.rebuild.progress_percent) == ("DONE", 100)
    await folder.apply([ledger.accept(used("16", "b"))])
    assert await by_model(answers, tenant) == {"a": "9", "b": "18", "": "4"}
    assert await total(answers, tenant, "USED") == 31


@pytest.mark.parametrize("aggregation", sorted(KINDS))
async def test_a_metric_that_defined_itself_takes_any_definition(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
    database: Database,
    aggregation: str,
) -> None:
    """Voids and late events before, in between and after."""
    detailed = {"unique_by": "user"} if aggregation == UNIQUE_COUNT else {}
    new = NewMetric("USED", "Used", "u", aggregation, ("model",), percentiles=True, **detailed)
    numbers = range(8)
    sent = [used(str(n + 1), "ab"[n % 2], f"u{n % 3}", time=f"2026-03-0{n + 1}") for n in numbers]
    await folder.apply([ledger.accept(*sent[:4]), ledger.accept(*sent[4:])])
    await folder.apply([ledger.take_back(ledger.events[0], ledger.events[7])])
    await metrics.create(tenant, new)
    await folder.apply([ledger.take_back(ledger.events[1])])

    async def meanwhile() -> None:
        await folder.apply([ledger.accept(used("20", "a", "u9"))])
        await folder.apply([ledger.take_back(ledger.events[-1], ledger.events[2])])
        ledger.between = nothing_more

    async def nothing_more() -> None:
        pass

    ledger.between = meanwhile
    metric = await built(rebuilder, metrics, tenant)
    assert (metric.definition, metric.defined) == (new, True)
    await folder.apply([ledger.take_back(ledger.events[6]), ledger.accept(used("3", "b", "u7"))])
    while await Recounter(database, ledger).round():
        pass
    figure = await total(answers, tenant, "USED")
    if aggregation == UNIQUE_COUNT:
        users = {event.metadata_json.split('"user": ')[1] for event in ledger.left}
        assert figure == len(users)
    else:
        assert exactly(figure) == ledger.figure(aggregation, "USED")
    amounts = sorted(int(event.amount) for event in ledger.left)
    median = amounts[(len(amounts) - 1) // 2]
    assert await total(answers, tenant, "USED", percentile="P50") == median


class KilledError(Exception):
    """As good as kill -9: nothing that was not committed is left."""


async def test_a_rebuild_that_is_killed_anywhere_goes_on_where_it_was(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    ledger: Ledger,
    tenant: TenantKey,
    database: Database,
) -> None:
    await metrics.create(tenant, NewMetric("USED"))
    for number in range(10):
        await folder.apply([ledger.accept(used(str(number), "ab"[number % 2]))])
    await folder.apply([ledger.take_back(*ledger.events[:3])])
    await metrics.update(tenant, "USED", BY_MODEL)
    await folder.apply([ledger.accept(used("100", "a")), ledger.take_back(ledger.events[4])])
    left = 0

    async def killed() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    ledger.between = killed
    kills = 0
    while True:
        left = 1 + kills % 2
        try:
            await built(
                Rebuilder(database, ledger, folder, lease=NO_LEASE, step_events=2), metrics, tenant
            )
            break
        except KilledError:
            kills += 1
    assert kills > 5
    amounts = {"a": 100 + 6 + 8, "b": 3 + 5 + 7 + 9}
    assert await by_model(answers, tenant) == {key: str(amount) for key, amount in amounts.items()}


async def test_two_replicas_that_work_on_the_same_count_everything_once(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    ledger: Ledger,
    tenant: TenantKey,
    database: Database,
) -> None:
    """Also when the lease of one has expired while it was working."""
    await metrics.create(tenant, NewMetric("USED"))
    for number in range(40):
        await folder.apply([ledger.accept(used("1", "ab"[number % 2]))])
    await folder.apply([ledger.take_back(*ledger.events[:10])])
    await metrics.update(tenant, "USED", BY_MODEL)
    replicas = [
        Rebuilder(database, ledger, Folder(database, lambda: None), lease=NO_LEASE, step_events=2)
        for _ in "ab"
    ]
    await asyncio.gather(*(built(replica, metrics, tenant) for replica in replicas))
    assert await by_model(answers, tenant) == {"a": "15", "b": "15"}


async def test_folds_of_two_replicas_go_on_meanwhile(
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
    database: Database,
) -> None:
    """A fold that is under way when the rebuild begins is counted by one of both ways, not two."""
    folders = [Folder(database, lambda: None) for _ in range(2)]
    await metrics.create(tenant, NewMetric("USED"))
    done = asyncio.Event()

    async def send(folder: Folder, model: str) -> int:
        count = 0
        while not done.is_set():
            await folder.apply([ledger.accept(used("1", model))])
            if count % 3 == 2:
                await folder.apply([ledger.take_back(ledger.left[0])])
            count += 1
        return count

    async def change() -> None:
        for names in (("model",), ("user",), ("model", "user")):
            await asyncio.sleep(0.1)
            await metrics.update(tenant, "USED", MetricChange(dimensions=names))
            await built(rebuilder, metrics, tenant)
        done.set()

    ledger.part_events = 50
    await asyncio.gather(
        change(), *(send(folder, model) for folder, model in zip(folders, "ab", strict=True))
    )
    models = [event.metadata_json for event in ledger.left]
    expected = {model: str(sum(f'"{model}"' in each for each in models)) for model in "ab"}
    assert await by_model(answers, tenant) == {k: v for k, v in expected.items() if v != "0"}
    assert await rollup_differences(database) == []


async def test_what_the_inbox_has_forgotten_is_counted_once(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
    database: Database,
) -> None:
    """Before the beginning it may forget everything, from then on nothing that matters."""
    await metrics.create(tenant, NewMetric("USED"))
    await folder.apply([ledger.accept(used("1", "a"))])
    await _forget(database)
    await metrics.update(tenant, "USED", BY_MODEL)
    await folder.apply([ledger.accept(used("2", "a"))])
    await _forget(database)
    await built(rebuilder, metrics, tenant)
    assert await by_model(answers, tenant) == {"a": "3"}


async def _forget(database: Database) -> None:
    """All that the inbox may forget."""

    now = clock.now()
    async with database.transaction() as connection:
        await fold_repository.note_watermark(connection, now)
        await fold_repository.prune_inbox(connection, now, 100)
