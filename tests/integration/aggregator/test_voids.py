"""Voided events leave every figure, once, whatever happens meanwhile."""

import asyncio
import random
from datetime import timedelta
from decimal import Decimal

import pytest
import structlog
from sqlalchemy import text
from usageflow.events.v1.events_pb2 import EventBatch

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import Selection
from services.aggregator.recounter import Recounter, answered
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import Database, TenantKey
from services.kit.errors import NotYetError, UnavailableError
from tests.integration.aggregator.ledger import Ledger, exactly, nothing
from tests.integration.aggregator.sending import Event, new_tenant, question, rows, total, utc

KINDS = ("SUM", "COUNT", "MAX", "MIN", "AVG", "LATEST")
SUBTRACTABLE = ("SUM", "COUNT", "AVG")
# Where interleavings matter most.
EXTREMES = ("MAX", "MIN", "LATEST", "SUM")


@pytest.fixture
def ledger(tenant: TenantKey) -> Ledger:
    """What ingest has."""
    return Ledger(tenant)


@pytest.fixture
def recounter(database: Database, ledger: Ledger) -> Recounter:
    """One replica's recounts."""
    return Recounter(database, ledger)


async def define_all(metrics: Metrics, tenant: TenantKey) -> None:
    """A metric of each aggregation, called as it."""
    for kind in KINDS:
        await metrics.create(tenant, NewMetric(kind, aggregation=kind))


def in_each(amount: str, time: str = "2026-03-02T10:00") -> list[Event]:
    """An event of each metric."""
    return [Event(kind, amount, time=time) for kind in KINDS]


async def assert_figures(answers: UsageAnswers, ledger: Ledger) -> None:
    """All figures are those of a plain recount."""
    told = {kind: exactly(await total(answers, ledger.tenant, kind)) for kind in KINDS}
    assert told == {kind: ledger.figure(kind, kind) for kind in KINDS}


async def count(database: Database, table: str) -> int:
    """How many rows a table has."""
    async with database.transaction() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def apply_all(folder: Folder, recounter: Recounter, *batches: EventBatch) -> None:
    """Fold, and count anew until nothing is marked."""
    await folder.apply(batches)
    for _ in range(20):
        if not await recounter.round():
            return
    raise AssertionError("recounts do not end")


async def test_a_voided_event_leaves_every_figure(
    folder: Folder, answers: UsageAnswers, metrics: Metrics, ledger: Ledger, recounter: Recounter
) -> None:
    await define_all(metrics, ledger.tenant)
    times = ("2026-03-02T10:00", "2026-03-02T10:05", "2026-03-02T10:10", "2026-03-05T00:00")
    for amount, time in zip(("0.1", "7", "3", "5.5"), times, strict=True):
        await folder.apply([ledger.accept(*in_each(amount, time))])
    for amount in ("7", "0.1", "3"):
        voided = [event for event in ledger.left if event.amount == amount]
        await apply_all(folder, recounter, ledger.take_back(*voided))
        await assert_figures(answers, ledger)
    await apply_all(folder, recounter, ledger.take_back(*ledger.left))
    await assert_figures(answers, ledger)


async def test_a_batch_of_voids_that_comes_again_changes_nothing(
    folder: Folder, answers: UsageAnswers, ledger: Ledger
) -> None:
    await folder.apply([ledger.accept(Event("A", "2"), Event("A", "3"), Event("A", "4"))])
    voids = ledger.take_back(ledger.events[0])
    await folder.apply([voids, voids])
    await folder.apply([voids])
    assert await total(answers, ledger.tenant, "A") == 7


async def test_two_replicas_that_get_a_void_at_once_take_it_out_once(
    database: Database, answers: UsageAnswers, ledger: Ledger
) -> None:
    replicas = [Folder(database, lambda: None) for _ in range(4)]
    await replicas[0].apply([ledger.accept(*[Event("A", "1")] * 50)])
    voids = [ledger.take_back(event) for event in ledger.events[:20]]
    orders = [random.Random(seed).sample(voids, len(voids)) for seed in range(4)]
    await asyncio.gather(
        *(replica.apply(order) for replica, order in zip(replicas, orders, strict=True))
    )
    assert await total(answers, ledger.tenant, "A") == 30


async def test_a_bucket_without_events_is_gone_and_may_come_back(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
) -> None:
    await metrics.create(ledger.tenant, NewMetric("MAX", aggregation="MAX"))
    await folder.apply([ledger.accept(Event("MAX", "5"), Event("MAX", "9"))])
    await folder.apply([ledger.take_back(ledger.events[1])])
    assert await count(database, "bucket_recounts") == 1
    await folder.apply([ledger.take_back(ledger.events[0])])
    assert await count(database, "usage_buckets") == 0
    assert await count(database, "bucket_recounts") == 0
    usage = await answers.query(ledger.tenant, question("MAX", window="DAY"))
    assert usage.rows == []
    await apply_all(folder, recounter, ledger.accept(Event("MAX", "2")))
    assert await total(answers, ledger.tenant, "MAX") == 2


async def test_an_inexact_figure_is_never_told(
    folder: Folder, answers: UsageAnswers, metrics: Metrics, ledger: Ledger, recounter: Recounter
) -> None:
    await define_all(metrics, ledger.tenant)
    await folder.apply([ledger.accept(*in_each("5"), *in_each("7"))])
    await folder.apply([ledger.take_back(*ledger.events[len(KINDS) :])])
    selection = Selection("user_1", ("MAX",), utc("2026-03-01"), utc("2026-04-01"))
    for kind in KINDS:
        if kind in SUBTRACTABLE:
            assert await total(answers, ledger.tenant, kind) == (1 if kind == "COUNT" else 5)
            continue
        with pytest.raises(NotYetError):
            await total(answers, ledger.tenant, kind)
    with pytest.raises(UnavailableError):
        await answers.billable(ledger.tenant, [selection])
    # Another day's figure is known.
    assert await total(answers, ledger.tenant, "MAX", start="2026-03-03") == 0
    asking = asyncio.create_task(answered(lambda: total(answers, ledger.tenant, "MAX")))
    await recounter.round()
    assert await asking == 5
    [[billed]] = (await answers.billable(ledger.tenant, [selection]))[1]
    assert billed.quantity == 5


@pytest.mark.parametrize(
    ("kind", "amounts", "voided"),
    [
        ("SUM", ("1", "2", "3"), 2),
        ("COUNT", ("1", "2", "3"), 0),
        ("AVG", ("1", "2", "3"), 2),
        ("MAX", ("1", "2", "3"), 1),
        ("MIN", ("2", "2", "2"), 0),
    ],
)
async def test_what_was_no_extreme_or_needs_none_is_not_counted_anew(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    kind: str,
    amounts: tuple[str, ...],
    voided: int,
) -> None:
    await metrics.create(ledger.tenant, NewMetric(kind, aggregation=kind))
    for minute, amount in enumerate(amounts):
        await folder.apply([ledger.accept(Event(kind, amount, time=f"2026-03-02T10:0{minute}"))])
    await folder.apply([ledger.take_back(ledger.events[voided])])
    assert await count(database, "bucket_recounts") == 0
    assert exactly(await total(answers, ledger.tenant, kind)) == ledger.figure(kind, kind)


async def test_a_metric_that_is_defined_after_a_void_is_exact(
    folder: Folder, answers: UsageAnswers, metrics: Metrics, ledger: Ledger, recounter: Recounter
) -> None:
    await folder.apply([ledger.accept(Event("MAX", "5"), Event("MAX", "7"))])
    await apply_all(folder, recounter, ledger.take_back(ledger.events[1]))
    await metrics.create(ledger.tenant, NewMetric("MAX", aggregation="MAX"))
    assert await total(answers, ledger.tenant, "MAX") == 5


def with_model(amount: str, model: str) -> Event:
    return Event("TOKENS", amount, metadata={"model": model})


async def test_dimensions_are_taken_out_apart(
    folder: Folder, answers: UsageAnswers, metrics: Metrics, ledger: Ledger, recounter: Recounter
) -> None:
    definition = NewMetric("TOKENS", aggregation="MAX", dimensions=("model",))
    await metrics.create(ledger.tenant, definition)
    made = [with_model("3", "a"), with_model("9", "a"), with_model("8", "b"), Event("TOKENS", "1")]
    await folder.apply([ledger.accept(*made)])
    await apply_all(folder, recounter, ledger.take_back(ledger.events[1]))
    asked = question("TOKENS", group_by=("model",))
    told = [(group[0], value) for _, group, value in await rows(answers, ledger.tenant, asked)]
    assert told == [("", "1"), ("a", "3"), ("b", "8")]


@pytest.mark.parametrize("kind", ["SUM", "MAX"])
async def test_an_event_from_before_its_metrics_definition_is_found(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    ledger: Ledger,
    recounter: Recounter,
    kind: str,
) -> None:
    """Of metrics that were defined before rebuilds came: those events lie under no dimensions."""
    await folder.apply([ledger.accept(with_model("9", "a"), with_model("4", "a"))])
    defined = (
        "UPDATE metrics SET aggregation = :kind, dimensions = '{model}', defined = true, "
        "counted_undefined = true"
    )
    async with database.transaction() as connection:
        await connection.execute(text(defined), {"kind": kind})
    await folder.apply([ledger.accept(with_model("2", "a"))])
    await apply_all(folder, recounter, ledger.take_back(ledger.events[0]))
    assert exactly(await total(answers, ledger.tenant, "TOKENS")) == ledger.figure(kind, "TOKENS")
    asked = question("TOKENS", group_by=("model",))
    told = [(group[0], value) for _, group, value in await rows(answers, ledger.tenant, asked)]
    assert told == [("", "4"), ("a", "2")]


async def test_a_void_of_what_was_never_counted_is_refused_and_nothing_else_suffers(
    database: Database, folder: Folder, answers: UsageAnswers, tenant: TenantKey, ledger: Ledger
) -> None:
    await folder.apply([ledger.accept(Event("A", "1"))])
    unknown = [
        Event("A", "5").message(),
        Event("A", "1", time="2026-03-02T11:00").message(),
        Event("A", "1", customer_id="nobody").message(),
        Event("NOWHERE", "1").message(),
    ]
    good = ledger.accept(Event("A", "2"))
    with structlog.testing.capture_logs() as logs:
        await folder.apply([*(ledger.take_back(event) for event in unknown), good])
    assert [line["event"] for line in logs] == ["batch_refused"] * 4
    assert await total(answers, tenant, "A") == 3
    # ingest is not told that they were applied: its watermark waits.
    assert await count(database, "inbox") == 2


async def test_a_void_does_not_reach_another_tenant(
    folder: Folder, answers: UsageAnswers, ledger: Ledger
) -> None:
    organization = ledger.tenant.organization_id
    strangers = [Ledger(new_tenant()), Ledger(TenantKey(organization, "test"))]
    for each in (ledger, *strangers):
        await folder.apply([each.accept(Event("A", "2"), Event("A", "2"))])
    await folder.apply([strangers[1].take_back(strangers[1].events[0])])
    figures = [await total(answers, each.tenant, "A") for each in (ledger, *strangers)]
    assert figures == [4, 4, 2]


async def test_a_recount_survives_a_source_that_is_away(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
) -> None:
    async def away() -> None:
        raise UnavailableError("ingest is away")

    await metrics.create(ledger.tenant, NewMetric("MAX", aggregation="MAX"))
    await folder.apply([ledger.accept(Event("MAX", "5"), Event("MAX", "7"))])
    await folder.apply([ledger.take_back(ledger.events[1])])
    ledger.before = away
    await recounter.round()
    await folder.apply([ledger.accept(Event("MAX", "6"))])
    with pytest.raises(NotYetError):
        await total(answers, ledger.tenant, "MAX")
    ledger.before = nothing
    await due_at_once(database)
    await recounter.round()
    assert await total(answers, ledger.tenant, "MAX") == 6


async def due_at_once(database: Database) -> None:
    """As if every pause and lease were over."""
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE bucket_recounts SET attempt_time = '-infinity'"))


async def test_of_two_recounts_that_overlap_only_the_later_ends(
    database: Database, folder: Folder, answers: UsageAnswers, metrics: Metrics, ledger: Ledger
) -> None:
    """The first is slow: its lease expires, and the second begins after more was folded."""
    await metrics.create(ledger.tenant, NewMetric("MAX", aggregation="MAX"))
    await folder.apply([ledger.accept(Event("MAX", "5"), Event("MAX", "9"))])
    await folder.apply([ledger.take_back(ledger.events[1])])
    second = Recounter(database, ledger)

    async def overtaken() -> None:
        if ledger.replays == 1:
            await folder.apply([ledger.accept(Event("MAX", "7"))])
            await due_at_once(database)
            await second.round()

    ledger.during = overtaken
    await Recounter(database, ledger).round()
    assert ledger.replays == 2
    assert await total(answers, ledger.tenant, "MAX") == 7


async def test_a_void_during_a_recount_is_not_forgotten(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
) -> None:
    """The events were read before it, so the recount has to be done again."""
    await metrics.create(ledger.tenant, NewMetric("MAX", aggregation="MAX"))
    await folder.apply([ledger.accept(*(Event("MAX", amount) for amount in ("5", "7", "9")))])
    await folder.apply([ledger.take_back(ledger.events[2])])

    async def void_the_next() -> None:
        if ledger.replays == 1:
            await folder.apply([ledger.take_back(ledger.events[1])])

    ledger.during = void_the_next
    await recounter.round()
    with pytest.raises(NotYetError):
        await total(answers, ledger.tenant, "MAX")
    await due_at_once(database)
    await recounter.round()
    assert await total(answers, ledger.tenant, "MAX") == 5


async def test_a_bucket_whose_events_were_dropped_is_never_guessed(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
) -> None:
    """The largest that is left may be one of those that ingest has dropped."""
    await metrics.create(ledger.tenant, NewMetric("MAX", aggregation="MAX"))
    long_ago = [Event("MAX", amount, time="2020-03-02T10:00") for amount in ("5", "7", "9")]
    await folder.apply([ledger.accept(*long_ago)])
    void = ledger.take_back(ledger.events[2])
    del ledger.events[1]
    await folder.apply([void])
    await recounter.round()
    with pytest.raises(NotYetError):
        await answers.query(ledger.tenant, question("MAX", "2020-03-01", "2020-04-01"))
    assert await count(database, "bucket_recounts") == 1


async def test_a_void_that_a_recount_has_seen_already_is_still_taken_out(
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was accepted before the events were read, and is folded after the recount's end."""
    monkeypatch.setattr("services.aggregator.recounter.EVENTS_KEPT", timedelta(days=36_500))
    await define_all(metrics, ledger.tenant)
    await folder.apply([ledger.accept(*in_each("5"), *in_each("7"), *in_each("9"))])
    kinds = len(KINDS)
    await folder.apply([ledger.take_back(*ledger.events[2 * kinds :])])
    later = ledger.take_back(*ledger.events[kinds : 2 * kinds])
    await recounter.round()
    assert await total(answers, ledger.tenant, "MAX") == 5
    await apply_all(folder, recounter, later)
    await assert_figures(answers, ledger)


class Chance:
    """Random events, voids and deliveries, also in the midst of recounts."""

    def __init__(self, seed: int, folder: Folder, ledger: Ledger) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.ledger = ledger
        self.unsent: list[EventBatch] = []
        self.applied: set[bytes] = set()
        self.unsent_voids: list[EventBatch] = []

    async def step(self) -> None:
        """Accept, void or deliver something."""
        await self.random.choice([self.accept, self.take_back, self.deliver, self.deliver])()

    async def accept(self) -> None:
        amounts = [f"{self.random.randrange(1, 6)}" for _ in range(self.random.randrange(1, 4))]
        times = ("2026-03-02T10:00", "2026-03-02T10:07", "2026-03-02T10:14")
        events = [
            Event(self.random.choice(EXTREMES), amount, time=self.random.choice(times))
            for amount in amounts
        ]
        self.unsent.append(self.ledger.accept(*events))

    async def take_back(self) -> None:
        if self.ledger.left:
            self.unsent_voids.append(self.ledger.take_back(self.random.choice(self.ledger.left)))

    async def deliver(self) -> None:
        """A batch; or a void, when its event was applied."""
        sendable = [
            batch
            for batch in self.unsent_voids
            if batch.tenants[0].voided_events[0].event_id in self.applied
        ]
        batches = self.unsent + sendable
        if not batches:
            return
        chosen = self.random.choice(batches)
        # Two recounts may run at a time: nobody else delivers it meanwhile.
        (self.unsent if chosen in self.unsent else self.unsent_voids).remove(chosen)
        await self.folder.apply([chosen, chosen] if self.random.random() < 0.2 else [chosen])
        self.applied |= {event.event_id for event in chosen.tenants[0].events}

    async def some(self) -> None:
        for _ in range(self.random.randrange(8)):
            await self.step()


@pytest.mark.parametrize("seed", range(5))
async def test_any_interleaving_of_events_voids_and_recounts_gives_the_same_usage(
    database: Database,
    folder: Folder,
    answers: UsageAnswers,
    metrics: Metrics,
    ledger: Ledger,
    recounter: Recounter,
    seed: int,
) -> None:
    await define_all(metrics, ledger.tenant)
    chance = Chance(seed, folder, ledger)
    ledger.before = ledger.during = chance.some
    for _ in range(60):
        await chance.step()
        if chance.random.random() < 0.4:
            await due_at_once(database)
            await recounter.round()
    while chance.unsent or chance.unsent_voids:
        await chance.deliver()
    ledger.before = ledger.during = nothing
    for _ in range(3):
        await due_at_once(database)
        await recounter.round()
    await assert_figures(answers, ledger)
    assert await count(database, "bucket_recounts") == 0


async def test_exact_decimals_are_subtracted_exactly(
    folder: Folder, answers: UsageAnswers, ledger: Ledger
) -> None:
    largest, smallest = "9" * 26, "0.000000000001"
    await folder.apply([ledger.accept(*[Event("GB", largest)] * 100, Event("GB", smallest))])
    await folder.apply([ledger.take_back(*ledger.events[:100])])
    assert await total(answers, ledger.tenant, "GB") == Decimal(smallest)
