"""What invoicer asks: many customers' metrics over their periods, and up to when it is complete."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import event, text

from services.aggregator.counted import COMMITTING_MAX
from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import Selection
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import BilledMetric, UsageAnswers
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError, UnavailableError
from tests.integration.aggregator.conftest import NoReplay, SetWatermark
from tests.integration.aggregator.sending import Event, batch, new_tenant, somebody_waits, utc


def select(
    customer_id: str, *metrics: str, start: str = "2026-03-01", end: str = "2026-04-01"
) -> Selection:
    return Selection(customer_id, metrics, utc(start), utc(end))


def quantities(answer: list[list[BilledMetric]]) -> list[list[str]]:
    """Only the figures."""
    return [[f"{metric.quantity:f}" for metric in metrics] for metrics in answer]


async def test_each_selection_gets_its_metrics_in_the_order_asked(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    watermark: SetWatermark,
    tenant: TenantKey,
) -> None:
    await metrics.create(tenant, NewMetric("API_CALL", unit="calls"))
    await metrics.create(tenant, NewMetric("SEATS", unit="seats", aggregation="LATEST"))
    await metrics.create(tenant, NewMetric("TOKENS", dimensions=("model",)))
    await folder.apply(
        [
            batch(
                tenant,
                Event("API_CALL", "12000"),
                Event("API_CALL", "0.5", time="2026-03-31T23:59:59.999999"),
                Event("API_CALL", "99", time="2026-04-01"),
                Event("API_CALL", "7", "user_2"),
                Event("SEATS", "9", time="2026-03-05"),
                Event("SEATS", "4", time="2026-03-20"),
                Event("TOKENS", "10", metadata={"model": "a"}),
                Event("TOKENS", "20", metadata={"model": "b"}),
            )
        ]
    )
    as_of, answer = await answers.billable(
        tenant,
        [
            select("user_1", "SEATS", "API_CALL", "UNKNOWN", "TOKENS", "API_CALL"),
            select("user_2", "API_CALL", "SEATS"),
            select("user_3"),
            select("user_1", "API_CALL", start="2026-04-01", end="2026-04-02"),
            select("nobody", "API_CALL"),
        ],
    )
    assert as_of == watermark.now
    assert quantities(answer) == [
        ["4", "12000.5", "0", "30", "12000.5"],
        ["7", "0"],
        [],
        ["99"],
        ["0"],
    ]
    units = [metric.unit for metric in answer[0]]
    assert units == ["seats", "calls", "", "", "calls"]
    assert [metric.metric for metric in answer[0]] == [
        "SEATS",
        "API_CALL",
        "UNKNOWN",
        "TOKENS",
        "API_CALL",
    ]


async def test_another_organization_s_or_mode_s_usage_is_not_billed(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("A"))])
    for stranger in (new_tenant(), TenantKey(tenant.organization_id, "test")):
        _, answer = await answers.billable(stranger, [select("user_1", "A")])
        assert quantities(answer) == [["0"]]


async def test_many_selections_take_few_statements(
    database: Database, folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    for key, aggregation in (("A", "SUM"), ("B", "MAX")):
        await metrics.create(tenant, NewMetric(key, aggregation=aggregation))
    customers = [f"user_{number}" for number in range(1000)]
    events = [
        Event(metric, str(number), customer)
        for number, customer in enumerate(customers)
        for metric in ("A", "A", "B")
    ]
    await folder.apply([batch(tenant, *events)])
    statements: list[str] = []
    event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cu, statement, *_rest: statements.append(statement),
    )
    _, answer = await answers.billable(
        tenant, [select(customer, "A", "B") for customer in customers]
    )
    assert quantities(answer) == [[str(2 * number), str(number)] for number in range(1000)]
    # The snapshot, the metrics, whether voids have left MAX exact, and for each aggregation how far
    # usage is rolled up and the figures.
    assert len(statements) == 8


async def test_without_ingest_nobody_knows_whether_usage_is_complete(
    answers: UsageAnswers, watermark: SetWatermark, tenant: TenantKey
) -> None:
    await answers.billable(tenant, [select("user_1", "A")])
    watermark.now = None
    with pytest.raises(UnavailableError):
        await answers.billable(tenant, [select("user_1", "A")])


async def test_wrong_selections_are_refused_before_ingest_is_asked(
    answers: UsageAnswers, watermark: SetWatermark, tenant: TenantKey
) -> None:
    watermark.now = None
    with pytest.raises(InvalidArgumentError):
        await answers.billable(tenant, [select("user_1", "A", start="2026-03-01T00:01")])


class CountsWhileAsked(SetWatermark):
    """ingest learns of an event and it is counted, just while the watermark is asked for."""

    def __init__(self, folder: Folder, tenant: TenantKey) -> None:
        super().__init__()
        self._folder = folder
        self._tenant = tenant

    async def ask(self) -> datetime:
        """By the time of the answer the event is counted."""
        await self._folder.apply([batch(self._tenant, Event("A", "5"))])
        return await super().ask()


async def test_figures_hold_all_that_the_watermark_promises(
    database: Database, folder: Folder, waits: TokenWait, tenant: TenantKey
) -> None:
    answers = UsageAnswers(database, CountsWhileAsked(folder, tenant), waits, NoReplay())
    _, answer = await answers.billable(tenant, [select("user_1", "A")])
    assert answer[0][0].quantity == Decimal(5)


async def test_all_figures_are_of_one_instant(
    database: Database, folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    for key, aggregation in (("A", "SUM"), ("B", "COUNT")):
        await metrics.create(tenant, NewMetric(key, aggregation=aggregation))
    await folder.apply([batch(tenant, Event("A"), Event("B"))])
    async with database.transaction() as other:
        await other.execute(text("LOCK TABLE usage_buckets"))
        asked = asyncio.create_task(answers.billable(tenant, [select("user_1", "A", "B")]))
        # The question has read the metrics and now waits for the buckets, which change meanwhile.
        await somebody_waits(database)
        change = "UPDATE usage_buckets SET event_count = event_count + 1, amount_sum = 9"
        await other.execute(text(change))
    _, answer = await asyncio.wait_for(asked, 20)
    assert quantities(answer) == [["1", "1"]]
    _, answer = await answers.billable(tenant, [select("user_1", "A", "B")])
    assert quantities(answer) == [["9", "2"]]


async def test_however_a_metric_counts_the_number_and_sum_of_its_events_are_told(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    watermark: SetWatermark,
    tenant: TenantKey,
) -> None:
    for key, aggregation in (("PAYOUT", "SUM"), ("JOB", "COUNT"), ("SEATS", "MAX")):
        await metrics.create(tenant, NewMetric(key, aggregation=aggregation))
        events = (Event(key, amount) for amount in ("10", "2.5", "0"))
        await folder.apply([batch(tenant, *events)])
    _, (told,) = await answers.billable(tenant, [select("user_1", "PAYOUT", "JOB", "SEATS")])
    assert quantities([told]) == [["12.5", "3", "10"]]
    assert [(metric.event_count, f"{metric.amount_sum:f}") for metric in told] == [(3, "12.5")] * 3


async def test_usage_is_told_in_parts_by_the_first_match_that_fits(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    watermark: SetWatermark,
    tenant: TenantKey,
) -> None:
    await metrics.create(tenant, NewMetric("TOKENS", dimensions=("model", "region")))
    await metrics.create(tenant, NewMetric("PEAK", aggregation="MAX", dimensions=("model",)))
    await folder.apply(
        [
            batch(
                tenant,
                Event("TOKENS", "1", metadata={"model": "a", "region": "eu"}),
                Event("TOKENS", "2", metadata={"model": "a", "region": "us"}),
                Event("TOKENS", "4", metadata={"model": "b", "region": "eu"}),
                Event("TOKENS", "8", metadata={"model": 'b"\\', "region": "eu"}),
                Event("TOKENS", "16", metadata={"region": "us"}),
                Event("TOKENS", "32"),
                Event("TOKENS", "64", metadata={"model": "a", "region": "eu"}),
                Event("TOKENS", "128", "user_2", metadata={"model": "a", "region": "eu"}),
                Event("PEAK", "5", metadata={"model": "a"}),
                Event("PEAK", "7", metadata={"model": "b"}),
                Event("PEAK", "6", metadata={"model": "c"}),
            )
        ]
    )
    splits = {
        "TOKENS": [
            {"model": "a", "region": "eu"},
            {"model": "a"},
            {"model": 'b"\\'},
            {"model": "", "region": ""},
            {"model": "nothing"},
        ],
        "PEAK": [{"model": "a"}],
        "UNKNOWN": [{"model": "a"}],
    }
    asked = replace(select("user_1", "TOKENS", "PEAK", "UNKNOWN"), splits=splits)
    nobody = replace(asked, customer_id="nobody")
    unsplit = select("user_1", "TOKENS")
    _, answer = await answers.billable(tenant, [asked, unsplit, nobody])
    parts = [[[f"{part:f}" for part in metric.parts] for metric in each] for each in answer]
    assert parts == [
        [["65", "2", "8", "32", "0", "20"], ["5", "7"], ["0", "0"]],
        [[]],
        [["0"] * 6, ["0", "0"], ["0", "0"]],
    ]
    assert quantities(answer) == [["127", "7", "0"], ["127"], ["0", "0", "0"]]


@pytest.mark.parametrize(
    "splits",
    [
        {"TOKENS": [{"model": "a"}]},
        {"API_CALL": []},
        {"API_CALL": [{"model": "a"}] * 101},
        {"API_CALL": [{"model": "a\0"}]},
    ],
)
async def test_splits_that_are_wrong_are_refused(
    answers: UsageAnswers,
    watermark: SetWatermark,
    tenant: TenantKey,
    splits: dict[str, list[dict[str, str]]],
) -> None:
    asked = replace(select("user_1", "API_CALL"), splits=splits)
    with pytest.raises(InvalidArgumentError, match=r"selections\[0\].splits"):
        await answers.billable(tenant, [asked])


async def test_a_reading_tells_which_batches_are_in_it(
    folder: Folder, answers: UsageAnswers, watermark: SetWatermark, tenant: TenantKey
) -> None:
    now = watermark.now
    assert now is not None
    batches = [batch(tenant, Event("A", "1")) for _ in range(4)]
    ages = [timedelta(days=1), timedelta(seconds=90), timedelta(0), timedelta(seconds=-1)]
    for sent, age in zip(batches, ages, strict=True):
        sent.accept_time.FromDatetime(now - age)
    await folder.apply(batches[:3])
    told = await answers.billable_reading(tenant, [select("user_1", "A")], tell_counted=True)
    assert told.counted is not None
    assert quantities(told.answers) == [["3"]]
    assert told.counted.before == now - COMMITTING_MAX
    # The oldest is in by its time; the last was accepted, and is not counted yet.
    ids = [UUID(sent.batch_id).bytes for sent in batches]
    assert told.counted.batch_ids == ids[1] + ids[2]
    unasked = await answers.billable_reading(tenant, [select("user_1", "A")])
    assert unasked.counted is None


async def test_a_reading_of_too_many_batches_is_refused(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.aggregator.counted.BATCHES_MAX", 1)
    batches = [batch(tenant, Event("A", "1")) for _ in range(2)]
    for sent in batches:
        sent.accept_time.FromDatetime(utc("2026-03-31T12:00"))
    await folder.apply(batches)
    with pytest.raises(UnavailableError, match="to tell what"):
        await answers.billable_reading(tenant, [select("user_1", "A")], tell_counted=True)
