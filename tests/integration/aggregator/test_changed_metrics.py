"""What becomes of a rebuild, and of all that knows a metric, when its definition changes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import Selection
from services.aggregator.quotas.thresholds import Thresholds
from services.aggregator.rebuilds.domain import MetricChange
from services.aggregator.rebuilds.rebuilder import BUILDS_MAX, Rebuilder
from services.aggregator.recounter import Recounter
from services.aggregator.roller import Roller
from services.aggregator.spans import block_start
from services.aggregator.usage_service import UsageAnswers
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, InvalidArgumentError, NotFoundError, UnavailableError
from tests.integration.aggregator.conftest import SetWatermark
from tests.integration.aggregator.ledger import Ledger, nothing
from tests.integration.aggregator.quota_setting import QuotaReplica
from tests.integration.aggregator.rolled import rollup_differences
from tests.integration.aggregator.sending import Event, new_tenant, question, rows, total, utc

NO_LEASE = timedelta(0)
BY_MODEL = MetricChange(dimensions=("model",))


@pytest.fixture
def ledger(tenant: TenantKey) -> Ledger:
    """What ingest has stored."""
    return Ledger(tenant)


@pytest.fixture
def rebuilder(database: Database, ledger: Ledger, folder: Folder) -> Rebuilder:
    """One replica's; what it has claimed is anybody's at once."""
    return Rebuilder(database, ledger, folder, lease=NO_LEASE)


@pytest.fixture
async def used(folder: Folder, metrics: Metrics, ledger: Ledger) -> None:
    """The metric A, defined, with events of two models."""
    await metrics.create(ledger.tenant, NewMetric("A"))
    await folder.apply([ledger.accept(event("1", "a"), event("2", "b"))])


def event(amount: str, model: str, **fields: object) -> Event:
    """An event of A."""
    return Event("A", amount, metadata={"model": model}, **fields)  # type: ignore[arg-type]


async def sql(database: Database, statement: str) -> list[tuple[object, ...]]:
    """The rows of a statement, if it has any."""
    async with database.transaction() as connection:
        result = await connection.execute(text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


async def build(rebuilder: Rebuilder) -> None:
    """Until nothing is due."""
    while await rebuilder.round():
        pass


async def by_model(answers: UsageAnswers, tenant: TenantKey) -> dict[str, str]:
    """A of March by model."""
    found = await rows(answers, tenant, question("A", group_by=("model",)))
    return {group: value for _, (group,), value in found}


@pytest.mark.usefixtures("used")
async def test_back_to_what_it_is_ends_the_rebuild(
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    tenant: TenantKey,
    folder: Folder,
    ledger: Ledger,
) -> None:
    await metrics.update(tenant, "A", BY_MODEL)
    back = await metrics.update(tenant, "A", MetricChange(dimensions=(), name="N"))
    assert back.rebuild is not None
    assert (back.rebuild.state, back.definition.name) == ("CANCELLED", "N")
    await folder.apply([ledger.accept(event("4", "a"))])
    await build(rebuilder)
    assert await total(answers, tenant, "A") == 7
    with pytest.raises(InvalidArgumentError):
        await by_model(answers, tenant)


@pytest.mark.usefixtures("used")
async def test_a_change_meanwhile_takes_the_place_of_the_one_that_runs(
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    tenant: TenantKey,
    folder: Folder,
    ledger: Ledger,
) -> None:
    """And is one of what is being built, not of what is."""
    first = await metrics.update(tenant, "A", BY_MODEL)
    named = await metrics.update(tenant, "A", MetricChange(name="N"))
    assert first.rebuild is not None
    assert named.rebuild is not None
    assert named.rebuild.rebuild_id == first.rebuild.rebuild_id, "a name needs no other"
    await folder.apply([ledger.accept(event("4", "a"))])
    second = await metrics.update(tenant, "A", MetricChange(aggregation="MAX"))
    assert second.rebuild is not None
    assert second.rebuild.new == NewMetric("A", "N", "", "MAX", ("model",))
    await folder.apply([ledger.accept(event("3", "a"))])
    await build(rebuilder)
    assert (await metrics.get(tenant, "A")).definition == second.rebuild.new
    assert await by_model(answers, tenant) == {"a": "4", "b": "2"}


@pytest.mark.usefixtures("used")
async def test_what_is_left_over_is_deleted_and_nothing_else(
    database: Database,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    tenant: TenantKey,
) -> None:
    for names in (("model",), ("model", "user"), ("user",)):
        await metrics.update(tenant, "A", MetricChange(dimensions=names))
        await build(rebuilder)
    await metrics.update(tenant, "A", BY_MODEL)
    assert not await rebuilder.delete_left_over(), "somebody may still know it"
    while await rebuilder.delete_left_over(timedelta(0)):
        pass
    assert await sql(database, "SELECT count(*) FROM metrics") == [(3,)]
    await build(rebuilder)
    while await rebuilder.delete_left_over(timedelta(0)):
        pass
    assert await sql(database, "SELECT count(*) FROM metrics") == [(2,)]
    assert await sql(database, "SELECT count(*) FROM series") == [(2,)]
    assert await by_model(answers, tenant) == {"a": "1", "b": "2"}
    assert [metric.definition.key for metric in (await metrics.list(tenant, 0, ""))[0]] == ["A"]


@pytest.mark.usefixtures("used")
async def test_events_that_are_gone_let_the_metric_be_what_it_was(
    database: Database,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
) -> None:
    del ledger.batches[0].tenants[0].events[0]
    await metrics.update(tenant, "A", BY_MODEL)
    for _ in range(BUILDS_MAX):
        await sql(database, "UPDATE metric_rebuilds SET due_time = now() WHERE end_time IS NULL")
        assert await rebuilder.round()
    metric = await metrics.get(tenant, "A")
    assert metric.rebuild is not None
    assert metric.rebuild.state == "FAILED"
    assert "eventRetentionDays" in metric.rebuild.error
    assert metric.definition.dimensions == ()
    assert await total(answers, tenant, "A") == 3


@pytest.mark.usefixtures("used")
async def test_an_old_count_that_was_wrong_is_repaired_first(
    database: Database,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    tenant: TenantKey,
) -> None:
    await sql(database, "UPDATE usage_buckets SET amount_sum = amount_sum + 1")
    await metrics.update(tenant, "A", BY_MODEL)
    await build(rebuilder)
    assert await total(answers, tenant, "A") == 4
    await sql(database, "UPDATE usage_buckets SET amount_sum = 3 WHERE amount_sum = 4")
    await sql(database, "UPDATE metric_rebuilds SET due_time = now()")
    await build(rebuilder)
    assert await by_model(answers, tenant) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("when", ["before", "while it is built"])
@pytest.mark.usefixtures("used")
async def test_billing_that_has_asked_keeps_its_figure(
    metrics: Metrics, answers: UsageAnswers, rebuilder: Rebuilder, tenant: TenantKey, when: str
) -> None:
    asked = Selection("user_1", ("A",), utc("2026-03-01"), utc("2026-04-01"))
    change = MetricChange(aggregation="COUNT")
    if when == "before":
        await answers.billable(tenant, [asked])
        with pytest.raises(ConflictError) as refused:
            await metrics.update(tenant, "A", change)
        assert refused.value.reason == "metric_is_billed"
        with pytest.raises(ConflictError):
            await metrics.archive(tenant, "A", archived=True)
        return
    await metrics.update(tenant, "A", change)
    await answers.billable(tenant, [asked])
    await build(rebuilder)
    metric = await metrics.get(tenant, "A")
    assert metric.rebuild is not None
    assert (metric.rebuild.state, metric.definition.aggregation) == ("FAILED", "SUM")
    assert "billed" in metric.rebuild.error
    _, [[billed]] = await answers.billable(tenant, [asked])
    assert billed.quantity == 3


@pytest.mark.usefixtures("used")
async def test_quotas_reservations_and_thresholds_follow_the_metric(
    database: Database,
    folder: Folder,
    metrics: Metrics,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
    watermark: SetWatermark,
) -> None:
    now = clock.now()
    quotas = QuotaReplica.on(database, watermark, tenant)
    await quotas.set("10", "user_1")
    made = (await quotas.reserve("4")).reservation
    await folder.apply([ledger.accept(event("1", "a", time=now))])
    assert await quotas.left() == "5"
    await metrics.update(tenant, "A", BY_MODEL)
    await folder.apply([ledger.accept(event("1", "b", time=now))])
    assert await quotas.left() == "4"
    await build(rebuilder)
    assert await quotas.left() == "4"
    await folder.apply([ledger.accept(event("3", "b", time=now))])
    assert await quotas.left() == "1"
    await quotas.commit(made)
    assert [
        each.settings.metric for each in (await quotas.quotas.list(tenant, "A", None, 0, ""))[0]
    ] == ["A"]
    thresholds = Thresholds(database, lambda: None)
    while await thresholds.round():
        pass
    told = await sql(database, "SELECT threshold FROM quota_thresholds_reached")
    assert told == [("50%",)]
    with pytest.raises(ConflictError) as refused:
        await metrics.update(tenant, "A", MetricChange(aggregation="MAX"))
    assert refused.value.reason == "metric_has_quotas"


async def test_usage_that_was_rolled_up_is_rolled_up_in_what_is_built(
    database: Database,
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
) -> None:
    await metrics.create(tenant, NewMetric("A"))
    days = [event(str(day), "ab"[day % 2], time=f"2026-03-{day:02}T09:30") for day in range(1, 20)]
    await folder.apply([ledger.accept(*days)])
    await Roller(database).roll_up(block_start(utc("2026-03-15")))
    await metrics.update(tenant, "A", BY_MODEL)
    assert await rebuilder.round()
    await folder.apply([ledger.accept(event("100", "a", time="2026-03-02T10:00"))])
    await folder.apply([ledger.take_back(ledger.events[0])])
    assert await rollup_differences(database) == []
    expected = {"a": str(100 + sum(range(2, 20, 2))), "b": str(sum(range(3, 20, 2)))}
    assert await by_model(answers, tenant) == expected


async def test_extremes_that_a_void_took_are_found_anew_before_anybody_is_told(
    database: Database,
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
) -> None:
    await folder.apply([ledger.accept(event("5", "a"), event("7", "a"), event("6", "b"))])
    await folder.apply([ledger.take_back(ledger.events[1])])
    await metrics.create(tenant, NewMetric("A", aggregation="MAX", dimensions=("model",)))
    await build(rebuilder)
    while await Recounter(database, ledger).round():
        pass
    assert await by_model(answers, tenant) == {"a": "5", "b": "6"}


async def test_organizations_and_modes_with_the_same_keys_stay_apart(
    database: Database, folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    tenants = [tenant, new_tenant(), TenantKey(tenant.organization_id, "test")]
    ledgers = [Ledger(each) for each in tenants]
    for number, each in enumerate(ledgers, 1):
        await metrics.create(each.tenant, NewMetric("A"))
        await folder.apply([each.accept(event(str(number), "a"))])
    await metrics.update(tenant, "A", BY_MODEL)
    await build(Rebuilder(database, ledgers[0], folder))
    assert await by_model(answers, tenant) == {"a": "1"}
    for number, each in enumerate(ledgers[1:], 2):
        found = await metrics.get(each.tenant, "A")
        assert (found.definition.dimensions, found.rebuild) == ((), None)
        assert await total(answers, each.tenant, "A") == number
    for change in (
        metrics.update(new_tenant(), "A", BY_MODEL),
        metrics.archive(new_tenant(), "A", archived=True),
    ):
        with pytest.raises(NotFoundError):
            await change


@pytest.mark.usefixtures("used")
async def test_ingest_that_is_away_only_takes_time(
    database: Database,
    metrics: Metrics,
    answers: UsageAnswers,
    rebuilder: Rebuilder,
    ledger: Ledger,
    tenant: TenantKey,
) -> None:
    async def away() -> None:
        raise UnavailableError("ingest is away")

    ledger.between = away
    await metrics.update(tenant, "A", BY_MODEL)
    await rebuilder.round()
    assert await total(answers, tenant, "A") == 3
    ledger.between = nothing
    await sql(database, "UPDATE metric_rebuilds SET due_time = now()")
    await build(rebuilder)
    assert await by_model(answers, tenant) == {"a": "1", "b": "2"}


@pytest.mark.usefixtures("used")
async def test_who_changes_a_metric_of_few_events_is_answered_with_the_end(
    database: Database, rebuilder: Rebuilder, tenant: TenantKey
) -> None:
    waiting = Metrics(database, rebuild_begun=rebuilder.wake, rebuild_wait_s=30)
    running = asyncio.create_task(rebuilder.run())
    changed = await waiting.update(tenant, "A", BY_MODEL)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert changed.definition == NewMetric("A", dimensions=("model",))


REFUSED = [
    ("UPDATE metric_rebuilds SET state = 'CANCELLED'", "a rebuild ends once"),
    ("UPDATE metric_rebuilds SET end_time = NULL, state = 'EVENTS'", "a rebuild ends once"),
    ("UPDATE metric_rebuilds SET metric_id = building_id", "identifies a rebuild never changes"),
    ("DELETE FROM metrics WHERE key IS NULL", "violates foreign key constraint"),
    ("UPDATE metrics SET unit = 'x', dimensions = '{}'", "never changes without what it counts"),
    ("UPDATE metrics SET counted_id = metric_id WHERE key = 'A'", "counts only what was built"),
    ("UPDATE metrics SET key = 'B' WHERE key IS NULL", "identifies a metric never changes"),
    (
        "INSERT INTO metric_rebuilds (metric_id, building_id, state, start_version, cursor, "
        "attempt, events_done, error, due_time, start_time) SELECT metric_id, building_id, "
        "'EVENTS', 1, '', 1, 0, '', now(), now() FROM metric_rebuilds, generate_series(1, 2)",
        "uq_metric_rebuilds_running",
    ),
]


@pytest.mark.parametrize(("statement", "message"), REFUSED, ids=[each[0] for each in REFUSED])
@pytest.mark.usefixtures("used")
async def test_the_database_refuses(
    database: Database,
    metrics: Metrics,
    rebuilder: Rebuilder,
    tenant: TenantKey,
    statement: str,
    message: str,
) -> None:
    await metrics.update(tenant, "A", BY_MODEL)
    await build(rebuilder)
    with pytest.raises(DBAPIError, match=message):
        await sql(database, statement)


@pytest.mark.usefixtures("used")
async def test_the_same_definition_while_it_is_built_changes_nothing(
    folder: Folder, metrics: Metrics, ledger: Ledger, rebuilder: Rebuilder, tenant: TenantKey
) -> None:
    await folder.apply([ledger.accept(Event("B", "1", metadata={"model": "a"}))])
    new = NewMetric("B", dimensions=("model",))
    first = await metrics.create(tenant, new)
    again = await metrics.create(tenant, new)
    assert first.rebuild is not None
    assert again.rebuild is not None
    assert again.rebuild.rebuild_id == first.rebuild.rebuild_id
    other = await metrics.create(tenant, replace(new, percentiles=True))
    assert other.rebuild is not None
    assert other.rebuild.rebuild_id != first.rebuild.rebuild_id
    await build(rebuilder)
    assert (await metrics.create(tenant, replace(new, percentiles=True))).defined
    with pytest.raises(ConflictError):
        await metrics.create(tenant, new)
