"""A batch is counted once, whatever becomes of it on its way."""

import asyncio
import random
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from urllib.parse import urlsplit

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from usageflow.events.v1.events_pb2 import EventBatch

from cli.databases import connected
from cli.embedded import EmbeddedPostgres
from services.aggregator import fold_repository
from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.sending import (
    Event,
    batch,
    mixed_batch,
    new_tenant,
    question,
    rows,
    somebody_waits,
    total,
    utc,
)


async def bucket_count(database: Database) -> int:
    async with database.transaction() as connection:
        return int(
            (await connection.execute(text("SELECT count(*) FROM usage_buckets"))).scalar_one()
        )


async def test_a_tenth_and_two_tenths_are_three_tenths(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("GB", "0.1"))])
    await folder.apply([batch(tenant, Event("GB", "0.2"))])
    assert await total(answers, tenant, "GB") == Decimal("0.3")


async def test_the_largest_amounts_with_the_smallest_add_up_exactly(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    largest, smallest = "9" * 26, "0.000000000001"
    for _ in range(3):
        await folder.apply([batch(tenant, *[Event("GB", largest)] * 100, Event("GB", smallest))])
    expected = 300 * Fraction(largest) + 3 * Fraction(smallest)
    assert Fraction(await total(answers, tenant, "GB")) == expected


async def test_a_batch_delivered_again_changes_nothing(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    first, second = batch(tenant, Event("API_CALL", "5")), batch(tenant, Event("API_CALL", "7"))
    await folder.apply([first, first, second])
    await folder.apply([second, first])
    await folder.apply([first])
    assert await total(answers, tenant, "API_CALL") == 12


async def test_a_new_replica_knows_what_was_counted(
    database: Database, folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    sent = batch(tenant, Event("API_CALL", "5"))
    await folder.apply([sent])
    await Folder(database, lambda: None).apply([sent, batch(tenant, Event("API_CALL", "1"))])
    assert await total(answers, tenant, "API_CALL") == 6


async def deliver(folder: Folder, batches: Sequence[EventBatch], seed: int) -> None:
    """Every batch twice, shuffled, in groups of random size."""
    order = random.Random(seed)
    deliveries = [*batches, *batches]
    order.shuffle(deliveries)
    while deliveries:
        size = order.randint(1, 8)
        await folder.apply(deliveries[:size])
        del deliveries[:size]


async def test_replicas_that_get_the_same_batches_in_any_order_count_each_once(
    database: Database, answers: UsageAnswers, tenant: TenantKey
) -> None:
    order = random.Random(3)
    # New metrics, customers and buckets in every batch: all kinds of rows are fought for.
    batches = [
        batch(
            tenant,
            *(
                Event(
                    f"M{order.randrange(6)}",
                    "0.1",
                    f"user_{order.randrange(30)}",
                    utc(f"2026-03-{order.randrange(1, 29):02}T{order.randrange(24):02}:00"),
                )
                for _ in range(40)
            ),
        )
        for _ in range(40)
    ]
    replicas = [Folder(database, lambda: None) for _ in range(4)]
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(deliver(replica, batches, seed) for seed, replica in enumerate(replicas))
        )
    sums = [await total(answers, tenant, f"M{number}") for number in range(6)]
    assert sum(sums) == 160


REFUSE_BUCKETS = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RAISE EXCEPTION $$disk full$$; END'",
    "CREATE TRIGGER refuse BEFORE INSERT ON usage_buckets FOR EACH ROW EXECUTE FUNCTION refuse()",
)


@pytest.mark.parametrize("defined", [False, True])
async def test_a_transaction_that_fails_counts_nothing_and_teaches_nothing(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    tenant: TenantKey,
    defined: bool,
) -> None:
    if defined:
        await metrics.create(tenant, NewMetric("API_CALL"))
    async with database.transaction() as connection:
        for statement in REFUSE_BUCKETS:
            await connection.execute(text(statement))
    sent = batch(tenant, Event("API_CALL", "5"))
    with pytest.raises(DBAPIError, match="disk full"):
        await folder.apply([sent])
    async with database.transaction() as connection:
        for table in ("inbox", "series", "customers_seen", "outbox", "usage_buckets"):
            count = await connection.execute(text(f"SELECT count(*) FROM {table}"))
            assert count.scalar_one() == 0, table
        count = await connection.execute(text("SELECT count(*) FROM metrics"))
        assert count.scalar_one() == (1 if defined else 0)
        await connection.execute(text("DROP TRIGGER refuse ON usage_buckets"))
    # The ids of series and metrics that were rolled back must not be used.
    await folder.apply([sent])
    assert await total(answers, tenant, "API_CALL") == 5


async def test_a_deadlock_is_tried_again(
    postgres: EmbeddedPostgres,
    database_url: str,
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    tenant: TenantKey,
) -> None:
    await folder.apply([batch(tenant, Event("A"), Event("B"))])
    sent = batch(tenant, Event("A"), Event("B"))
    lock = (
        "SELECT FROM usage_buckets JOIN series USING (series_id) JOIN metrics USING (metric_id) "
        "WHERE key = $1 FOR UPDATE OF usage_buckets"
    )
    superuser = postgres.url(database=urlsplit(database_url).path.removeprefix("/"))
    with structlog.testing.capture_logs() as logs:
        async with connected(superuser) as other, other.transaction():
            # The fold takes A and waits for B; then this waits for A. Who looks for deadlocks first
            # gives way: not this.
            await other.execute("SET LOCAL deadlock_timeout = '1min'")
            await other.fetch(lock, "B")
            fold = asyncio.create_task(folder.apply([sent]))
            await somebody_waits(database)
            await other.fetch(lock, "A")
        await asyncio.wait_for(fold, 20)
    assert [(line["event"], line["sqlstate"]) for line in logs] == [("fold_repeated", "40P01")]
    assert await total(answers, tenant, "A") == 2
    assert await total(answers, tenant, "B") == 2


async def test_one_batch_that_can_not_be_folded_leaves_nothing_behind(
    database: Database, folder: Folder, tenant: TenantKey
) -> None:
    good, bad = batch(tenant, Event("A")), batch(tenant, Event("A", "many"))
    with pytest.raises(ArithmeticError):
        await folder.apply([good, bad])
    assert await bucket_count(database) == 0
    await folder.apply([good])
    assert await bucket_count(database) == 1


async def test_organizations_and_modes_are_counted_apart(
    folder: Folder, answers: UsageAnswers
) -> None:
    acme, globex = new_tenant(), new_tenant()
    acme_test = TenantKey(acme.organization_id, "test")
    await folder.apply(
        [
            mixed_batch(
                {
                    acme: [Event("API_CALL", "1")],
                    globex: [Event("API_CALL", "20")],
                    acme_test: [Event("API_CALL", "300")],
                }
            )
        ]
    )
    assert await total(answers, acme, "API_CALL") == 1
    assert await total(answers, globex, "API_CALL") == 20
    assert await total(answers, acme_test, "API_CALL") == 300


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions of at most 3 events."""
    monkeypatch.setattr("services.aggregator.folder.EVENTS_MAX", 3)


@pytest.mark.usefixtures("small_groups")
async def test_many_batches_are_counted_in_several_transactions(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    sizes = (1, 1, 2, 5, 3, 1)
    batches = [batch(tenant, *[Event("A")] * size) for size in sizes]
    await folder.apply([*batches, *batches])
    assert await total(answers, tenant, "A") == sum(sizes)


async def test_a_metric_that_nobody_defined_defines_itself(
    folder: Folder, metrics: Metrics, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("JOB_RUN", metadata={"queue": "slow"}))])
    metric = await metrics.get(tenant, "JOB_RUN")
    assert metric.definition == NewMetric("JOB_RUN", aggregation="SUM", dimensions=())
    assert not metric.defined


events = st.lists(
    st.builds(
        Event,
        st.sampled_from(["SUMMED", "COUNTED", "LARGEST", "SMALLEST", "AVERAGED", "LATEST"]),
        st.integers(0, 10**9).map(lambda scaled: format(Decimal(scaled).scaleb(-4), "f")),
        st.sampled_from(["", "user_1", "user_2"]),
        st.datetimes(
            utc("2026-03-01").replace(tzinfo=None), utc("2026-03-03T23:59").replace(tzinfo=None)
        ).map(lambda naive: naive.isoformat()),
        st.sampled_from(
            [{}, {"model": "a"}, {"model": "b", "userId": "u1"}, {"model": 1.5, "userId": 7}]
        ),
        st.binary(min_size=16, max_size=16),
    ),
    unique_by=lambda event: event.event_id,
    min_size=1,
    max_size=30,
)
KINDS = {
    "SUMMED": "SUM",
    "COUNTED": "COUNT",
    "LARGEST": "MAX",
    "SMALLEST": "MIN",
    "AVERAGED": "AVG",
    "LATEST": "LATEST",
    "DIFFERENT": "UNIQUE_COUNT",
}


def naive_figure(aggregation: str, members: list[Event]) -> Fraction:
    """The figure by lists and Fraction; AVG to 12 digits, half up."""
    amounts = [Fraction(event.amount) for event in members]
    if aggregation == "AVG":
        scaled = sum(amounts) / len(amounts) * 10**12
        return Fraction(int(scaled + Fraction(1, 2)), 10**12)
    if aggregation == "LATEST":
        last = max(members, key=lambda event: (event.at, event.event_id))
        return Fraction(last.amount)
    if aggregation == "UNIQUE_COUNT":
        return Fraction(len({str(m.metadata["userId"]) for m in members if "userId" in m.metadata}))
    figures = {"SUM": sum(amounts), "COUNT": len(amounts), "MAX": max(amounts), "MIN": min(amounts)}
    return Fraction(figures[aggregation])


def naive_rows(metric: str, sent: list[Event]) -> list[tuple[str, tuple[str, ...], Fraction]]:
    """By day of UTC, customer and model."""
    groups: dict[tuple[str, tuple[str, ...]], list[Event]] = {}
    for event in sent:
        if event.metric == metric:
            model = event.metadata.get("model", "")
            key = (f"{event.at:%Y-%m-%dT00:00}", (event.customer_id, str(model)))
            groups.setdefault(key, []).append(event)
    return [
        (day, group, naive_figure(KINDS[metric], members))
        for (day, group), members in sorted(groups.items())
    ]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent=events, order=st.randoms(use_true_random=False))
async def test_every_aggregation_gives_what_a_naive_recount_gives(
    database: Database,
    metrics: Metrics,
    answers: UsageAnswers,
    sent: list[Event],
    order: random.Random,
) -> None:
    tenant = new_tenant()
    for key, aggregation in KINDS.items():
        unique_by = "userId" if aggregation == "UNIQUE_COUNT" else ""
        await metrics.create(
            tenant,
            NewMetric(key, aggregation=aggregation, dimensions=("model",), unique_by=unique_by),
        )
    shuffled = list(sent)
    order.shuffle(shuffled)
    size = order.randint(1, len(shuffled))
    batches = [
        batch(tenant, *shuffled[start : start + size]) for start in range(0, len(shuffled), size)
    ]
    replicas = [Folder(database, lambda: None), Folder(database, lambda: None)]
    for delivered in [*batches, *order.sample(batches, len(batches))]:
        await order.choice(replicas).apply([delivered])
    for metric in KINDS:
        asked = question(
            metric, "2026-03-01", "2026-03-04", window="DAY", group_by=("customerId", "model")
        )
        found = [(day, group, Fraction(f)) for day, group, f in await rows(answers, tenant, asked)]
        assert found == naive_rows(metric, sent)


async def test_ids_of_batches_that_were_taken_back_are_unknown(database: Database) -> None:
    async with database.transaction() as connection:
        times = {"a": utc("2026-03-01"), "b": utc("2026-03-01")}
        assert await fold_repository.take_new_batches(connection, times) == {"a", "b"}
        await fold_repository.untake_batches(connection, {"a"})
    async with database.transaction() as connection:
        assert await fold_repository.take_new_batches(connection, times) == {"a"}
