"""Different values and percentiles, against lists: any order, repetitions, voids, late events."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from usageflow.events.v1.events_pb2 import UsageEvent

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import Selection
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.ledger import Ledger
from tests.integration.aggregator.sending import (
    EPOCH,
    Event,
    batch,
    new_tenant,
    question,
    rows,
    total,
    utc,
)

USERS = NewMetric("USERS", aggregation="UNIQUE_COUNT", unique_by="userId", dimensions=("region",))
SIZES = NewMetric("SIZES", dimensions=("region",), percentiles=True)
MARCH = "2026-03-01T00:00"
PERCENTS = {"P50": 50, "P95": 95, "P99": 99}


def user(name: object, time: str = "2026-03-02T10:00", **more: object) -> Event:
    """An event of USERS."""
    return Event("USERS", "1", time=time, metadata={"userId": name, **more})


@pytest.fixture
async def users(metrics: Metrics, tenant: TenantKey) -> NewMetric:
    """USERS, defined."""
    return (await metrics.create(tenant, USERS)).definition


@pytest.mark.usefixtures("users")
async def test_a_value_counts_once_in_each_window(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    times = ("2026-03-02T10:00", "2026-03-02T10:01", "2026-03-02T20:00", "2026-03-05T00:00")
    for time in times:
        await folder.apply([batch(tenant, user("ada", time), user("ada", time))])
    await folder.apply([batch(tenant, user("bob", "2026-03-05T10:00"))])
    assert await total(answers, tenant, "USERS") == 2
    by_day = await rows(answers, tenant, question("USERS", window="DAY"))
    assert by_day == [("2026-03-02T00:00", (), "1"), ("2026-03-05T00:00", (), "2")]


@pytest.mark.usefixtures("users")
async def test_what_is_no_value_is_not_counted_and_values_are_what_was_sent(
    database: Database, folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    # A number is its text as it was sent: 7 is "7", and 7.0 another value.
    sent = ["7", 7, 7.0, True, "true", "", None, "x" * 5_000, "x" * 5_001, "\u00e9"]
    events = [user(value) for value in sent] + [Event("USERS"), Event("USERS", metadata={"a": 1})]
    await folder.apply([batch(tenant, *events)])
    assert await total(answers, tenant, "USERS") == 6
    counts = "SELECT sum(event_count), count(*) FROM unique_values"
    async with database.transaction() as connection:
        assert (await connection.execute(text(counts))).one() == (len(events), 7)


@pytest.mark.usefixtures("users")
async def test_groups_without_a_value_have_the_figure_nothing(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    events = [user("ada", region="eu"), user("ada", region="us"), user("", region="us")]
    await folder.apply([batch(tenant, *events, user("", region="asia"))])
    found = await rows(answers, tenant, question("USERS", group_by=("region",)))
    assert found == [(MARCH, ("asia",), "0"), (MARCH, ("eu",), "1"), (MARCH, ("us",), "1")]
    assert await total(answers, tenant, "USERS") == 1
    several = {"region": ["eu", "us"]}
    assert await total(answers, tenant, "USERS", filters_any=several) == 1
    assert await total(answers, tenant, "USERS", filters={"region": "asia"}) == 0


@pytest.mark.usefixtures("users")
async def test_a_value_leaves_with_its_last_event(
    database: Database, folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    ledger = Ledger(tenant)
    events = [user("ada"), user("ada"), user("ada", "2026-03-09T10:00"), user("bob")]
    await folder.apply([ledger.accept(*events)])
    figures = []
    for sent in list(ledger.events):
        await folder.apply([ledger.take_back(sent)])
        figures.append(await total(answers, tenant, "USERS"))
    assert figures == [2, 2, 1, 0]
    async with database.transaction() as connection:
        left = "SELECT (SELECT count(*) FROM unique_values), (SELECT count(*) FROM usage_buckets)"
        assert (await connection.execute(text(left))).one() == (0, 0)


@pytest.mark.usefixtures("users")
async def test_a_void_of_a_value_that_was_never_counted_is_refused(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    ledger = Ledger(tenant)
    await folder.apply([ledger.accept(user("ada"), user("bob"))])
    with structlog.testing.capture_logs() as logs:
        await folder.apply([ledger.take_back(user("eve").message())])
    assert [line["event"] for line in logs] == ["batch_refused"]
    assert await total(answers, tenant, "USERS") == 2


async def test_two_organizations_and_modes_with_the_same_values_stay_apart(
    folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    others = [new_tenant(), TenantKey(tenant.organization_id, "test")]
    percentiled = replace(USERS, percentiles=True)
    for number, each in enumerate((tenant, *others), 1):
        await metrics.create(each, percentiled)
        events = [replace(user(f"u{n}"), amount=str(number)) for n in range(number)]
        await folder.apply([batch(each, *events)])
    for number, each in enumerate((tenant, *others), 1):
        assert await total(answers, each, "USERS", customer_id="user_1") == number
        assert await total(answers, each, "USERS", percentile="P50") == number


@pytest.mark.usefixtures("users")
async def test_replicas_that_count_the_same_values_at_once_lose_none(
    database: Database, answers: UsageAnswers, tenant: TenantKey
) -> None:
    replicas = [Folder(database, lambda: None) for _ in range(4)]
    batches = [
        batch(tenant, *(user(f"u{n % 40}") for n in range(start, start + 50)))
        for start in range(0, 400, 10)
    ]
    orders = [random.Random(seed).sample(batches, len(batches)) for seed in range(4)]
    await asyncio.gather(
        *(replica.apply(order) for replica, order in zip(replicas, orders, strict=True))
    )
    assert await total(answers, tenant, "USERS") == 40
    async with database.transaction() as connection:
        counts = "SELECT sum(event_count) FROM unique_values"
        assert (await connection.execute(text(counts))).scalar_one() == 50 * len(batches)


@pytest.mark.usefixtures("users")
async def test_values_are_billed_over_the_whole_period_and_apart_by_price(
    database: Database, folder: Folder, metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await metrics.create(tenant, NewMetric("A"))
    names = [("ada", "eu"), ("bob", "eu"), ("ada", "us"), ("eve", ""), ("", "us")]
    events = [
        user(name, f"2026-03-{day:02}T10:00", region=region)
        for day, (name, region) in enumerate(names, 1)
    ]
    await folder.apply([batch(tenant, *events, Event("A", "4"))])
    split = {"USERS": [{"region": "eu"}, {"region": "us"}]}
    selections = [
        Selection("user_1", ("USERS", "A"), utc("2026-03-01"), utc("2026-04-01"), split),
        Selection("user_1", ("USERS",), utc("2026-03-02"), utc("2026-03-04")),
        Selection("nobody", ("USERS",), utc("2026-03-01"), utc("2026-04-01"), split),
    ]
    statements: list[str] = []
    event.listen(
        database.engine.sync_engine,
        "before_cursor_execute",
        lambda _c, _cu, statement, *_rest: statements.append(statement),
    )
    _, [[month, calls], [days], [nothing]] = await answers.billable(tenant, selections)
    assert [month.quantity, month.event_count, month.amount_sum] == [3, 5, 5]
    assert list(month.parts) == [2, 1, 1]
    assert [calls.quantity, days.quantity] == [4, 2]
    assert [nothing.quantity, *nothing.parts] == [0, 0, 0, 0]
    # The snapshot, the metrics, one for each aggregation, the values, those of the parts, and which
    # dimensions are full.
    assert len(statements) == 10


@pytest.mark.parametrize(
    ("amounts", "figures"),
    [
        (["5"], {"P50": "5", "P95": "5", "P99": "5"}),
        ([str(n) for n in range(1, 101)], {"P50": "50", "P95": "95", "P99": "99"}),
        (["1", "2"], {"P50": "1", "P95": "2"}),
        (["0", "0", "0", "7"], {"P50": "0", "P95": "7"}),
        (["0.1", "0.2", "0.3"], {"P50": "0.2", "P99": "0.3"}),
        # Three digits are kept, and a half goes up.
        (["1005"], {"P50": "1010"}),
        (["0.0012344"], {"P50": "0.00123"}),
        (["99999999999999999999999999.999999999999"], {"P99": "1" + 26 * "0"}),
        (["0.000000000001"], {"P50": "0.000000000001"}),
    ],
)
async def test_a_percentile_is_the_amount_of_the_nearest_rank(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    tenant: TenantKey,
    amounts: list[str],
    figures: dict[str, str],
) -> None:
    await metrics.create(tenant, SIZES)
    await folder.apply([batch(tenant, *(Event("SIZES", amount) for amount in amounts))])
    for percentile, figure in figures.items():
        found = await rows(answers, tenant, question("SIZES", percentile=percentile))
        assert found == [(MARCH, (), figure)]
        usage = await answers.query(tenant, question("SIZES", percentile=percentile))
        assert usage.approximate
    assert not (await answers.query(tenant, question("SIZES"))).approximate


async def test_a_percentile_of_nothing_is_nothing(
    metrics: Metrics, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await metrics.create(tenant, SIZES)
    assert await total(answers, tenant, "SIZES", percentile="P95") == 0
    daily = question("SIZES", window="DAY", percentile="P95")
    assert await rows(answers, tenant, daily) == []


@dataclass(frozen=True)
class Sent:
    """An event and when it is voided: never (None), or after so many batches more."""

    event: Event
    void_after: int | None


sent_events = st.lists(
    st.builds(
        Sent,
        st.builds(
            Event,
            st.sampled_from(["USERS", "SIZES"]),
            st.decimals("0", "20000", places=2).map(str),
            st.sampled_from(["", "user_1", "user_2"]),
            st.sampled_from(["2026-03-01T00:00", "2026-03-01T00:14", "2026-03-01T23:59:59"])
            | st.sampled_from(["2026-03-02T00:00", "2026-03-03T12:00"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "userId": st.sampled_from(["a", "b", "c", 1, 1.5, "1", "", None]),
                    "region": st.sampled_from(["eu", "us"]),
                },
            ),
        ),
        st.none() | st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


def value_of(message: UsageEvent) -> str | None:
    """The value of userId as text; None: no value."""
    value = json.loads(message.metadata_json or "{}").get("userId")
    if value in (None, ""):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def naive_rows(
    events: Sequence[UsageEvent], metric: str
) -> list[tuple[str, tuple[str, ...], list[UsageEvent]]]:
    """By day of UTC, customer and region."""
    groups: dict[tuple[str, tuple[str, ...]], list[UsageEvent]] = {}
    for each in events:
        if each.metric == metric:
            day = f"2026-03-{each.time_unix_micros // 86_400_000_000 - _FIRST_DAY:02}T00:00"
            region = json.loads(each.metadata_json or "{}").get("region", "")
            groups.setdefault((day, (each.customer_id, region)), []).append(each)
    return [(day, group, members) for (day, group), members in sorted(groups.items())]


_FIRST_DAY = (utc("2026-03-01") - EPOCH).days - 1


def nearest_rank(members: Sequence[UsageEvent], percentile: str) -> Fraction:
    """The exact percentile."""
    amounts = sorted(Fraction(each.amount) for each in members)
    rank = -(-len(amounts) * PERCENTS[percentile] // 100)
    return amounts[rank - 1]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent=sent_events, order=st.randoms(use_true_random=False))
async def test_any_order_repetitions_voids_and_late_events_give_what_lists_give(
    database: Database,
    metrics: Metrics,
    answers: UsageAnswers,
    sent: list[Sent],
    order: random.Random,
) -> None:
    ledger = Ledger(new_tenant())
    await metrics.create(ledger.tenant, USERS)
    await metrics.create(ledger.tenant, SIZES)
    replicas = [Folder(database, lambda: None), Folder(database, lambda: None)]
    shuffled = list(sent)
    order.shuffle(shuffled)
    due: list[tuple[int, UsageEvent]] = []
    size = order.randint(1, len(shuffled))
    for number, start in enumerate(range(0, len(shuffled), size)):
        part = shuffled[start : start + size]
        accepted = ledger.accept(*(each.event for each in part))
        for _ in range(order.randint(1, 2)):
            await order.choice(replicas).apply([accepted])
        for each, message in zip(part, accepted.tenants[0].events, strict=True):
            if each.void_after is not None:
                due.append((number + each.void_after, message))
        await void_due(replicas, ledger, [message for at, message in due if at <= number], order)
        due = [entry for entry in due if entry[0] > number]
    await void_due(replicas, ledger, [message for _, message in due], order)

    asked = question(
        "USERS", "2026-03-01", "2026-03-04", window="DAY", group_by=("customerId", "region")
    )
    found = [(day, group, int(f)) for day, group, f in await rows(answers, ledger.tenant, asked)]
    assert found == [
        (day, group, len({value_of(each) for each in members} - {None}))
        for day, group, members in naive_rows(ledger.left, "USERS")
    ]
    everybody = {value_of(each) for each in ledger.left if each.metric == "USERS"} - {None}
    assert await total(answers, ledger.tenant, "USERS") == len(everybody)
    for percentile in PERCENTS:
        asked = replace(asked, metric="SIZES", percentile=percentile)
        told = await rows(answers, ledger.tenant, asked)
        expected = naive_rows(ledger.left, "SIZES")
        assert [row[:2] for row in told] == [row[:2] for row in expected]
        for (_, _, figure), (_, _, members) in zip(told, expected, strict=True):
            exact = nearest_rank(members, percentile)
            assert abs(Fraction(figure) - exact) <= exact * Fraction(Decimal("0.005"))
    await assert_details_add_up(database)


async def void_due(
    replicas: Sequence[Folder], ledger: Ledger, due: Sequence[UsageEvent], order: random.Random
) -> None:
    """Void these events, in one batch that may come twice."""
    if due:
        voids = ledger.take_back(*due)
        for _ in range(order.randint(1, 2)):
            await order.choice(replicas).apply([voids])


async def assert_details_add_up(database: Database) -> None:
    """The counts of a bucket are those of its events."""
    query = """
        SELECT count(*) FROM usage_buckets AS bucket JOIN series USING (series_id)
        JOIN metrics USING (metric_id)
        WHERE unique_by <> '' AND bucket.event_count <> (SELECT sum(event_count) FROM unique_values
            WHERE (series_id, bucket_start) = (bucket.series_id, bucket.bucket_start))
        OR percentiles AND bucket.event_count <> (SELECT sum(event_count) FROM amount_counts
            WHERE (series_id, bucket_start) = (bucket.series_id, bucket.bucket_start))
    """
    async with database.transaction() as connection:
        assert (await connection.execute(text(query))).scalar_one() == 0
