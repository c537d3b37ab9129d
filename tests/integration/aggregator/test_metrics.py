"""Metrics: defined by people, or by their first event."""

import asyncio

import pytest

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.rebuilds.rebuilder import Rebuilder
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, InvalidArgumentError, NotFoundError
from tests.integration.aggregator.ledger import Ledger
from tests.integration.aggregator.sending import Event, batch, new_tenant, question, rows

TOKENS = NewMetric("AI_TOKEN", "Tokens", "tokens", "SUM", ("model",))
PLAIN = NewMetric("AI_TOKEN", "Tokens", "tokens")


async def test_a_defined_metric_is_found_and_belongs_to_its_organization_and_mode(
    metrics: Metrics, tenant: TenantKey
) -> None:
    made = await metrics.create(tenant, TOKENS)
    assert made.definition == TOKENS
    assert made.defined
    assert await metrics.get(tenant, "AI_TOKEN") == made
    for stranger in (new_tenant(), TenantKey(tenant.organization_id, "test")):
        with pytest.raises(NotFoundError):
            await metrics.get(stranger, "AI_TOKEN")


@pytest.mark.parametrize("key", ["", "NOPE", "a\0b", "x" * 1000])
async def test_an_unknown_metric_is_not_found(
    metrics: Metrics, tenant: TenantKey, key: str
) -> None:
    with pytest.raises(NotFoundError):
        await metrics.get(tenant, key)


async def test_the_same_definition_again_changes_nothing(
    metrics: Metrics, tenant: TenantKey
) -> None:
    made = await metrics.create(tenant, TOKENS)
    assert await metrics.create(tenant, TOKENS) == made


@pytest.mark.parametrize(
    "other",
    [
        NewMetric("AI_TOKEN", "Tokens", "tokens", "MAX", ("model",)),
        NewMetric("AI_TOKEN", "Tokens", "tokens", "SUM", ("model", "region")),
        NewMetric("AI_TOKEN", "Tokens", "tokens", "SUM"),
        NewMetric("AI_TOKEN", "Tokens", "token", "SUM", ("model",)),
    ],
)
async def test_another_definition_for_a_defined_key_is_a_conflict(
    metrics: Metrics, tenant: TenantKey, other: NewMetric
) -> None:
    made = await metrics.create(tenant, TOKENS)
    with pytest.raises(ConflictError, match="AI_TOKEN"):
        await metrics.create(tenant, other)
    assert await metrics.get(tenant, "AI_TOKEN") == made


async def test_of_many_definitions_at_once_one_wins(metrics: Metrics, tenant: TenantKey) -> None:
    wanted = [NewMetric("A", unit=f"unit {number}") for number in range(8)]
    results = await asyncio.gather(
        *(metrics.create(tenant, new) for new in wanted), return_exceptions=True
    )
    conflicts = [result for result in results if isinstance(result, ConflictError)]
    assert len(conflicts) == len(wanted) - 1


async def test_a_metric_that_defined_itself_takes_a_name_and_a_unit(
    folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("AI_TOKEN", "5"))])
    first = await metrics.get(tenant, "AI_TOKEN")
    made = await metrics.create(tenant, PLAIN)
    assert (made.metric_id, made.create_time) == (first.metric_id, first.create_time)
    assert (made.definition, made.defined) == (PLAIN, True)
    await folder.apply([batch(tenant, Event("AI_TOKEN", "7"))])
    assert await rows(answers, tenant, question("AI_TOKEN")) == [("2026-03-01T00:00", (), "12")]


async def test_an_event_sent_after_the_definition_is_folded_by_it_in_every_replica(
    database: Database, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    ledger = Ledger(tenant)
    replicas = [Folder(database, lambda: None) for _ in range(3)]
    rebuilder = Rebuilder(database, ledger, replicas[0])
    keys = [f"M{number}" for number in range(10)]
    for replica in replicas:
        # Every replica knows the definition that the metrics gave themselves.
        await replica.apply([ledger.accept(*(Event(key, "100") for key in keys))])
    for number, key in enumerate(keys):
        noise = asyncio.gather(
            *(replica.apply([ledger.accept(Event(key, "100"))]) for replica in replicas)
        )
        await metrics.create(tenant, NewMetric(key, dimensions=("model",)))
        sent = ledger.accept(Event(key, "1", metadata={"model": "gpt-4"}))
        await replicas[number % len(replicas)].apply([sent])
        await noise
        assert await rebuilder.round()
        found = await rows(answers, tenant, question(key, group_by=("model",)))
        assert [(group, figure) for _, group, figure in found] == [
            (("",), "600"),
            (("gpt-4",), "1"),
        ]


async def test_a_first_event_and_a_definition_at_once_give_one_metric(
    database: Database, folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    ledger = Ledger(tenant)
    rebuilder = Rebuilder(database, ledger, folder)
    for number in range(20):
        new = NewMetric(f"M{number}", dimensions=("model",))
        _, made = await asyncio.gather(
            folder.apply([ledger.accept(Event(new.key, "1", metadata={"model": "x"}))]),
            metrics.create(tenant, new),
        )
        assert await rebuilder.round() == (made.rebuild is not None)
        found = await metrics.get(tenant, new.key)
        assert (found.definition, found.metric_id) == (new, made.metric_id)
        [(_, group, figure)] = await rows(answers, tenant, question(new.key, group_by=("model",)))
        assert (group, figure) == (("x",), "1")


async def test_pages_of_metrics_go_from_the_newest_to_the_oldest(
    metrics: Metrics, tenant: TenantKey
) -> None:
    for number in range(5):
        await metrics.create(tenant, NewMetric(f"M{number}"))
    await metrics.create(new_tenant(), NewMetric("FOREIGN"))
    found: list[list[str]] = []
    token = ""
    while True:
        page, token = await metrics.list(tenant, 2, token)
        found.append([metric.definition.key for metric in page])
        if not token:
            break
    assert found == [["M4", "M3"], ["M2", "M1"], ["M0"]]


@pytest.mark.parametrize("token", ["x", "WyJhIl0", "WyItMSJd", "WyI5OTk5OTk5OTk5OTk5OTk5OTk5OSJd"])
async def test_a_token_of_another_list_is_refused(
    metrics: Metrics, tenant: TenantKey, token: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        await metrics.list(tenant, 2, token)
