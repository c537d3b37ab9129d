"""Questions about usage and their answers."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
from sqlalchemy import event, text

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import UsageQuestion
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import UsageAnswers
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError
from tests.integration.aggregator.conftest import NoReplay, SetWatermark
from tests.integration.aggregator.sending import (
    Event,
    batch,
    new_tenant,
    question,
    rows,
    tokens,
    total,
    utc,
)


@pytest.fixture
async def token_usage(folder: Folder, metrics: Metrics, tenant: TenantKey) -> None:
    """AI_TOKEN by model and region."""
    await metrics.create(tenant, NewMetric("AI_TOKEN", dimensions=("model", "region")))
    sent = tokens(
        ("100", "gpt-4", "eu"),
        ("20", "gpt-4", "us"),
        ("3", "o1", "eu"),
        ("0.5", "o1", ""),
        ("0.25", "", ""),
    )
    await folder.apply([batch(tenant, *sent)])
    other = Event("AI_TOKEN", "7000", "user_2", metadata={"model": "gpt-4"})
    await folder.apply([batch(tenant, other)])


MARCH = "2026-03-01T00:00"


@pytest.mark.usefixtures("token_usage")
@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ((), [((), "7123.75")]),
        (("customerId",), [(("user_1",), "123.75"), (("user_2",), "7000")]),
        (("model",), [(("",), "0.25"), (("gpt-4",), "7120"), (("o1",), "3.5")]),
        (
            ("region", "customerId"),
            [
                (("", "user_1"), "0.75"),
                (("", "user_2"), "7000"),
                (("eu", "user_1"), "103"),
                (("us", "user_1"), "20"),
            ],
        ),
    ],
)
async def test_usage_is_split_by_customer_and_dimensions(
    answers: UsageAnswers,
    tenant: TenantKey,
    group_by: tuple[str, ...],
    expected: list[tuple[tuple[str, ...], str]],
) -> None:
    found = await rows(answers, tenant, question("AI_TOKEN", group_by=group_by))
    assert found == [(MARCH, group, figure) for group, figure in expected]


@pytest.mark.usefixtures("token_usage")
@pytest.mark.parametrize(
    ("filters", "customer_id", "figure"),
    [
        ({"model": "gpt-4"}, None, "7120"),
        ({"model": "gpt-4"}, "user_1", "120"),
        ({"model": "gpt-4", "region": "us"}, None, "20"),
        ({"region": ""}, None, "7000.75"),
        ({"model": "gpt-5"}, None, "0"),
        ({}, "nobody", "0"),
        ({}, "", "0"),
    ],
)
async def test_usage_is_limited_to_dimension_values_and_a_customer(
    answers: UsageAnswers,
    tenant: TenantKey,
    filters: dict[str, str],
    customer_id: str | None,
    figure: str,
) -> None:
    found = await total(answers, tenant, "AI_TOKEN", filters=filters, customer_id=customer_id)
    assert found == Decimal(figure)


@pytest.mark.usefixtures("token_usage")
async def test_groups_carry_the_names_that_were_asked_for(
    answers: UsageAnswers, tenant: TenantKey
) -> None:
    asked = question("AI_TOKEN", group_by=("region", "model"), filters={"region": "us"})
    [row] = (await answers.query(tenant, asked)).rows
    assert row.group == {"region": "us", "model": "gpt-4"}
    assert (row.start, row.end) == (utc("2026-03-01"), utc("2026-04-01"))


async def test_events_without_a_customer_are_counted_under_the_empty_one(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("A", "1", ""), Event("A", "2"))])
    assert await total(answers, tenant, "A") == 3
    assert await total(answers, tenant, "A", customer_id="") == 1
    found = await rows(answers, tenant, question("A", group_by=("customerId",)))
    assert found == [(MARCH, ("",), "1"), (MARCH, ("user_1",), "2")]


# zone, window, events (time in UTC, amount), rows (start in UTC, figure)
ZONED = [
    (
        "America/New_York",
        "DAY",
        [("2026-03-08T04:59:59.999999", "1"), ("2026-03-08T05:00", "2"), ("2026-03-09T03:59", "4")],
        [("2026-03-07T05:00", "1"), ("2026-03-08T05:00", "6")],
    ),
    (
        "America/New_York",
        "DAY",
        [("2026-11-01T04:00", "1"), ("2026-11-02T04:59:59", "2"), ("2026-11-02T05:00", "4")],
        [("2026-11-01T04:00", "3"), ("2026-11-02T05:00", "4")],
    ),
    (
        "Europe/London",
        "DAY",
        [("2026-03-29T22:59", "1"), ("2026-03-29T23:00", "2")],
        [("2026-03-29T00:00", "1"), ("2026-03-29T23:00", "2")],
    ),
    (
        "Asia/Kolkata",
        "DAY",
        [("2026-05-01T18:29:59", "1"), ("2026-05-01T18:30", "2")],
        [("2026-04-30T18:30", "1"), ("2026-05-01T18:30", "2")],
    ),
    (
        "Asia/Kathmandu",
        "HOUR",
        [("2026-05-01T18:14:59", "1"), ("2026-05-01T18:15", "2")],
        [("2026-05-01T17:15", "1"), ("2026-05-01T18:15", "2")],
    ),
    (
        "America/Sao_Paulo",
        "MONTH",
        [("2026-06-01T02:59:59", "1"), ("2026-06-01T03:00", "2")],
        [("2026-05-01T03:00", "1"), ("2026-06-01T03:00", "2")],
    ),
    (
        "Pacific/Auckland",
        "DAY",
        [("2026-04-04T11:00", "1"), ("2026-04-05T11:59:59", "2"), ("2026-04-05T12:00", "4")],
        [("2026-04-04T11:00", "3"), ("2026-04-05T12:00", "4")],
    ),
    (
        "Europe/London",
        "DAY",
        [("2025-10-25T22:59", "1"), ("2025-10-25T23:00", "2"), ("2025-10-26T23:59", "4")],
        [("2025-10-24T23:00", "1"), ("2025-10-25T23:00", "6")],
    ),
    (
        "America/New_York",
        "WEEK",
        [("2027-11-01T03:59", "1"), ("2027-11-01T04:00", "2"), ("2027-11-08T04:59", "4")],
        [("2027-10-25T04:00", "1"), ("2027-11-01T04:00", "6")],
    ),
    (
        "Asia/Kolkata",
        "MONTH",
        [("2027-02-28T18:29:59", "1"), ("2027-02-28T18:30", "2")],
        [("2027-01-31T18:30", "1"), ("2027-02-28T18:30", "2")],
    ),
    (
        "Asia/Kathmandu",
        "DAY",
        [("2025-06-14T18:14:59", "1"), ("2025-06-14T18:15", "2")],
        [("2025-06-13T18:15", "1"), ("2025-06-14T18:15", "2")],
    ),
    (
        "America/Sao_Paulo",
        "DAY",
        [("2025-02-16T02:59:59", "1"), ("2025-02-16T03:00", "2")],
        [("2025-02-15T03:00", "1"), ("2025-02-16T03:00", "2")],
    ),
    (
        "Pacific/Auckland",
        "HOUR",
        [("2025-04-05T13:59", "1"), ("2025-04-05T14:00", "2"), ("2025-04-05T14:59", "4")],
        [("2025-04-05T13:00", "1"), ("2025-04-05T14:00", "6")],
    ),
    (
        "Pacific/Auckland",
        "MONTH",
        [("2027-08-31T11:59:59", "1"), ("2027-08-31T12:00", "2"), ("2027-09-30T10:59:59", "4")],
        [("2027-07-31T12:00", "1"), ("2027-08-31T12:00", "6")],
    ),
]


@pytest.mark.parametrize(("zone", "window", "sent", "expected"), ZONED)
async def test_windows_follow_the_clocks_of_the_zone(
    folder: Folder,
    answers: UsageAnswers,
    tenant: TenantKey,
    zone: str,
    window: str,
    sent: list[tuple[str, str]],
    expected: list[tuple[str, str]],
) -> None:
    await folder.apply([batch(tenant, *(Event("A", amount, time=time) for time, amount in sent))])
    month = 24 * 3600 * 31
    first = datetime.fromtimestamp(utc(sent[0][0]).timestamp() // 900 * 900 - month, tz=clock.UTC)
    asked = UsageQuestion(
        "A",
        start=first,
        end=datetime.fromtimestamp(first.timestamp() + 4 * month, tz=clock.UTC),
        window=window,
        time_zone=zone,
    )
    found = await rows(answers, tenant, asked)
    assert [(start, figure) for start, _, figure in found] == expected


async def test_a_range_is_half_open_and_cuts_the_windows_at_its_ends(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    times = ["2026-03-01T10:14:59", "2026-03-01T10:15", "2026-03-02T08:44:59", "2026-03-02T08:45"]
    await folder.apply(
        [batch(tenant, *(Event("A", str(10**n), time=time) for n, time in enumerate(times)))]
    )
    asked = question("A", "2026-03-01T10:15", "2026-03-02T08:45", window="DAY")
    usage = await answers.query(tenant, asked)
    assert [(row.start, row.end, row.value) for row in usage.rows] == [
        (utc("2026-03-01T10:15"), utc("2026-03-02T00:00"), Decimal(10)),
        (utc("2026-03-02T00:00"), utc("2026-03-02T08:45"), Decimal(100)),
    ]


async def test_what_was_just_counted_is_in_a_question_without_times(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    now = clock.now()
    await folder.apply([batch(tenant, Event("A", time=now))])
    usage = await answers.query(tenant, UsageQuestion("A"))
    assert [row.value for row in usage.rows] == [1]
    assert usage.start == now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert now < usage.end


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({}, 1),
        ({"window": "TOTAL"}, 1),
        ({"window": "DAY"}, 0),
        ({"group_by": ("customerId",)}, 0),
    ],
)
async def test_only_a_total_without_groups_has_a_row_without_usage(
    answers: UsageAnswers,
    metrics: Metrics,
    tenant: TenantKey,
    more: dict[str, object],
    count: int,
) -> None:
    await metrics.create(tenant, NewMetric("A", aggregation="MIN"))
    usage = await answers.query(tenant, replace(question("A"), **more))  # type: ignore[arg-type]
    assert [row.value for row in usage.rows] == [0] * count


async def test_every_aggregation_answers_from_the_same_buckets(
    folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    figures = {"SUM": "11", "COUNT": "3", "MAX": "7", "MIN": "1", "AVG": "3.666666666667"}
    for aggregation in (*figures, "LATEST"):
        key = f"M_{aggregation}"
        await metrics.create(tenant, NewMetric(key, aggregation=aggregation))
        # The one that happened last arrives first, in another bucket and batch.
        for amount, day in (("3", "20"), ("7", "02"), ("1", "03")):
            await folder.apply([batch(tenant, Event(key, amount, time=f"2026-03-{day}"))])
    for aggregation, figure in {**figures, "LATEST": "3"}.items():
        assert await total(answers, tenant, f"M_{aggregation}") == Decimal(figure)


@pytest.mark.parametrize("customers", [("user_1", "user_1"), ("user_1", "user_2")])
@pytest.mark.parametrize("high_first", [True, False])
async def test_of_two_events_at_once_the_one_with_the_higher_id_is_the_latest(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    tenant: TenantKey,
    customers: tuple[str, str],
    high_first: bool,
) -> None:
    await metrics.create(tenant, NewMetric("SEATS", aggregation="LATEST"))
    high = Event("SEATS", "5", customers[0], event_id=b"\xff" * 16)
    low = Event("SEATS", "9", customers[1], event_id=b"\x01" * 16)
    for sent in (high, low) if high_first else (low, high):
        await folder.apply([batch(tenant, sent)])
    assert await total(answers, tenant, "SEATS") == 5


async def test_too_many_rows_are_refused_and_the_way_out_is_named(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    tenant: TenantKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.aggregator.questions.ROWS_MAX", 3)
    await folder.apply([batch(tenant, *(Event("A", "1", f"user_{n}") for n in range(4)))])
    with pytest.raises(InvalidArgumentError) as refused:
        await answers.query(tenant, question("A", group_by=("customerId",)))
    assert [problem.field for problem in refused.value.problems] == ["groupBy"]
    filtered = question("A", group_by=("customerId",), customer_id="user_3")
    assert len(await rows(answers, tenant, filtered)) == 1


async def test_a_metric_of_another_organization_or_mode_is_unknown(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("SECRET"))])
    for stranger in (new_tenant(), TenantKey(tenant.organization_id, "test")):
        with pytest.raises(InvalidArgumentError) as refused:
            await answers.query(stranger, question("SECRET"))
        assert [problem.field for problem in refused.value.problems] == ["metric"]


@pytest.mark.parametrize("key", ["", "\0", "x" * 1000, "a b"])
async def test_what_can_be_no_metric_is_unknown(
    answers: UsageAnswers, tenant: TenantKey, key: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        await answers.query(tenant, question(key))


async def test_the_same_customer_and_metric_of_two_organizations_stay_apart(
    folder: Folder, answers: UsageAnswers
) -> None:
    acme, globex = new_tenant(), new_tenant()
    await folder.apply([batch(acme, Event("A", "1")), batch(globex, Event("A", "10"))])
    asked = question("A", customer_id="user_1", group_by=("customerId",))
    assert await rows(answers, acme, asked) == [(MARCH, ("user_1",), "1")]
    assert await rows(answers, globex, asked) == [(MARCH, ("user_1",), "10")]


async def test_long_customers_and_dimension_values_are_kept_whole(
    folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await metrics.create(tenant, NewMetric("A", dimensions=("note",)))
    customer, note = "\U0001f600" * 255, "\u00e9'\"\\" * 1000
    for last in "ab":
        await folder.apply(
            [batch(tenant, Event("A", "1", customer, metadata={"note": note + last}))]
        )
    found = await rows(answers, tenant, question("A", group_by=("customerId", "note")))
    assert found == [(MARCH, (customer, note + last), "1") for last in "ab"]


async def test_the_watermark_is_told_with_the_answer(
    answers: UsageAnswers, watermark: SetWatermark, folder: Folder, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("A"))])
    watermark.now = utc("2026-03-20T10:00:00.5")
    assert (await answers.query(tenant, question("A"))).as_of == utc("2026-03-20T10:00:00.5")


async def test_while_ingest_is_away_the_last_known_watermark_is_told(
    database: Database,
    watermark: SetWatermark,
    folder: Folder,
    waits: TokenWait,
    tenant: TenantKey,
) -> None:
    await folder.apply([batch(tenant, Event("A"))])
    answers = UsageAnswers(database, watermark, waits, NoReplay(), watermark_recent_s=0.0)
    told = (await answers.query(tenant, question("A"))).as_of
    watermark.now = None
    assert (await answers.query(tenant, question("A"))).as_of == told
    # A replica that has just started knows what another one has noted, or nothing at all.
    fresh = UsageAnswers(database, away(), waits, NoReplay(), watermark_recent_s=0.0)
    assert (await fresh.query(tenant, question("A"))).as_of == utc("1970-01-01")
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE fold_state SET watermark = '2026-03-30 UTC'"))
    assert (await fresh.query(tenant, question("A"))).as_of == utc("2026-03-30")


@pytest.mark.usefixtures("token_usage")
async def test_what_is_asked_again_takes_one_statement(
    database: Database, folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    statements: list[str] = []
    event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cu, statement, *_rest: statements.append(statement),
    )
    counts = []
    for more in (
        {"customer_id": "user_1", "window": "HOUR"},
        {"customer_id": "user_1", "window": "HOUR"},
        {"group_by": ("model",), "page_size": 1, "time_zone": "Asia/Kolkata"},
        {"group_by": ("customerId",), "top": 1},
    ):
        await answers.query(tenant, question("AI_TOKEN", **more))
        counts.append(len(statements))
        statements.clear()
    # The snapshot, the metric, how things stand; then only the figures.
    assert counts == [4, 1, 1, 1]
    # What was counted since is in all the same.
    await folder.apply([batch(tenant, Event("AI_TOKEN", "1"))])
    assert await total(answers, tenant, "AI_TOKEN") == Decimal("7124.75")
    assert len(statements) >= 1


async def test_a_definition_that_another_replica_has_changed_is_known_at_once(
    answers: UsageAnswers, metrics: Metrics, folder: Folder, tenant: TenantKey
) -> None:
    """A metric that is remembered as the sum that it was by its first event."""
    await folder.apply([batch(tenant, Event("A", "3"), Event("A", "5"))])
    assert await total(answers, tenant, "A") == 8
    with pytest.raises(InvalidArgumentError):
        await total(answers, tenant, "A", group_by=("model",))
    await metrics.create(tenant, NewMetric("A", aggregation="MAX"))
    assert await total(answers, tenant, "A") == 5
    await metrics.create(tenant, NewMetric("B", dimensions=("model",)))
    await folder.apply([batch(tenant, Event("B", "2", metadata={"model": "x"}))])
    found = await rows(answers, tenant, question("B", group_by=("model",)))
    assert found == [(MARCH, ("x",), "2")]


async def test_strangers_with_the_same_metric_are_told_apart_when_it_is_remembered(
    answers: UsageAnswers, folder: Folder, tenant: TenantKey
) -> None:
    others = (new_tenant(), TenantKey(tenant.organization_id, "test"))
    await folder.apply([batch(tenant, Event("A", "3"))])
    await folder.apply([batch(others[0], Event("A", "5"))])
    for _ in range(2):
        assert await total(answers, tenant, "A") == 3
        assert await total(answers, others[0], "A") == 5
        with pytest.raises(InvalidArgumentError):
            await total(answers, others[1], "A")


def away() -> SetWatermark:
    """A source that never had an answer."""
    source = SetWatermark()
    source.now = None
    return source


async def test_a_question_after_the_definition_changed_uses_the_new_one(
    folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("A", "3"), Event("A", "5"))])
    assert await total(answers, tenant, "A") == 8
    await metrics.create(tenant, NewMetric("A", aggregation="MAX"))
    assert await total(answers, tenant, "A") == 5
    with pytest.raises(InvalidArgumentError):
        await answers.query(tenant, replace(question("A"), group_by=("model",)))
