"""Which events a line rests on: what its invoice had counted, and what it was billed over."""

from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from usageflow.ingest.v1 import counted_pb2

from services.invoicer.domain import Invoice, LineKind
from services.invoicer.line_events import CountedPage, CountedUsage
from services.invoicer.periods import Period
from services.invoicer.readings import Counted
from services.invoicer.service.line_events import LineEvents, LineEventsPage
from services.invoicer.service.paging import Page
from services.kit.database import TenantKey
from services.kit.errors import NotFoundError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, utc

JANUARY, FEBRUARY, MARCH, APRIL = (utc(f"2026-0{month}-01") for month in (1, 2, 3, 4))
READINGS = [uuid4().bytes for _ in range(3)]


@dataclass
class AskedEvents:
    """An EventSource that remembers what it was asked for."""

    asked: list[CountedUsage] = field(default_factory=list)
    dropped: bool = False

    async def list_counted(
        self, tenant: TenantKey, wanted: CountedUsage, page_size: int, page_token: str
    ) -> CountedPage:
        """One event, and no more."""
        self.asked.append(wanted)
        return CountedPage([counted_pb2.CountedEvent(taken_out=True)], "", self.dropped)


@pytest.fixture
def events() -> AskedEvents:
    return AskedEvents()


@pytest.fixture
def lines(world: World, events: AskedEvents) -> LineEvents:
    return LineEvents(world.database, events)


async def three_months(world: World) -> list[Invoice]:
    """January's usage grows with each month, and each month is read anew."""
    await world.subscribe(start=JANUARY)
    for month, (end, used) in enumerate([(FEBRUARY, "10"), (MARCH, "11"), (APRIL, "12")]):
        world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, used)
        world.at(end + GRACE)
        world.aggregator.counted_batch_ids = READINGS[month]
        assert await world.close_all() == 1
    return await world.all_invoices()


def number_of(invoice: Invoice, kind: LineKind, metric: str = "API_CALL") -> int:
    return next(
        number
        for number, line in enumerate(invoice.lines, start=1)
        if (line.kind, line.metric) == (kind, metric)
    )


async def asked_of(world: World, lines: LineEvents, invoice: Invoice, number: int) -> bool:
    found = await lines.list_line_events(world.tenant, invoice.id, number, Page())
    return found.exact


async def test_a_line_rests_on_what_its_invoice_had_counted(
    world: World, lines: LineEvents, events: AskedEvents
) -> None:
    (first, *_) = await three_months(world)
    assert await asked_of(world, lines, first, number_of(first, LineKind.USAGE))
    until = Counted(FEBRUARY + GRACE, READINGS[0])
    january = Period(JANUARY, FEBRUARY)
    assert events.asked == [CountedUsage("user_123", "API_CALL", january, until, None)]


async def test_late_usage_rests_on_what_has_come_since_it_was_billed_before(
    world: World, lines: LineEvents, events: AskedEvents
) -> None:
    (_, second, third) = await three_months(world)
    for invoice in (second, third):
        assert await asked_of(world, lines, invoice, number_of(invoice, LineKind.LATE_USAGE))
    assert [
        (each.until.batch_ids, each.since and each.since.batch_ids) for each in events.asked
    ] == [
        (READINGS[1], READINGS[0]),
        (READINGS[2], READINGS[1]),
    ]
    assert {each.period for each in events.asked} == {Period(JANUARY, FEBRUARY)}


async def test_what_was_void_when_the_invoice_was_written_does_not_count(
    world: World, lines: LineEvents, events: AskedEvents
) -> None:
    await world.subscribe(start=JANUARY)
    for month, (end, used) in enumerate([(FEBRUARY, "10"), (MARCH, "11"), (APRIL, "12")]):
        world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, used)
        world.at(end + GRACE)
        world.aggregator.counted_batch_ids = READINGS[month]
        assert await world.close_all() == 1
        if end == MARCH:
            (_, second) = await world.all_invoices()
            await world.invoices.void_invoice(world.tenant, second.id)
    (*_, third) = await world.all_invoices()
    await asked_of(world, lines, third, number_of(third, LineKind.LATE_USAGE))
    (asked,) = events.asked
    assert asked.since is not None
    assert asked.since.batch_ids == READINGS[0]


async def test_a_void_that_came_later_changes_nothing(
    world: World, lines: LineEvents, events: AskedEvents
) -> None:
    (_, second, third) = await three_months(world)
    world.clock.time += GRACE
    await world.invoices.void_invoice(world.tenant, second.id)
    await asked_of(world, lines, third, number_of(third, LineKind.LATE_USAGE))
    (asked,) = events.asked
    assert asked.since is not None
    assert asked.since.batch_ids == READINGS[1]


async def test_a_line_that_bills_no_usage_has_no_events(
    world: World, lines: LineEvents, events: AskedEvents
) -> None:
    (first, *_) = await three_months(world)
    found = await lines.list_line_events(world.tenant, first.id, 1, Page())
    assert found == LineEventsPage((), "", exact=True, complete=True)
    assert events.asked == []


@pytest.mark.parametrize("dropped", [False, True])
async def test_a_page_tells_whether_ingest_has_dropped_any(
    world: World, lines: LineEvents, events: AskedEvents, dropped: bool
) -> None:
    (first, *_) = await three_months(world)
    events.dropped = dropped
    number = number_of(first, LineKind.USAGE)
    found = await lines.list_line_events(world.tenant, first.id, number, Page())
    assert (found.complete, found.exact, len(found.events)) == (not dropped, True, 1)


async def test_an_invoice_from_before_readings_says_that_it_is_not_exact(
    world: World, lines: LineEvents, events: AskedEvents
) -> None:
    (first, *_) = await three_months(world)
    async with world.database.transaction() as connection:
        await connection.execute(text("ALTER TABLE invoice_readings DISABLE TRIGGER USER"))
        await connection.execute(text("DELETE FROM invoice_readings"))
        await connection.execute(text("ALTER TABLE invoice_readings ENABLE TRIGGER USER"))
    assert not await asked_of(world, lines, first, number_of(first, LineKind.USAGE))
    assert [each.until for each in events.asked] == [Counted(FEBRUARY + GRACE)]


async def test_lines_that_are_not_there_or_another_tenants_are_not_found(
    world: World, lines: LineEvents
) -> None:
    (first, *_) = await three_months(world)
    for number in (0, -1, len(first.lines) + 1):
        with pytest.raises(NotFoundError, match="No such line"):
            await lines.list_line_events(world.tenant, first.id, number, Page())
    with pytest.raises(NotFoundError, match="No such invoice"):
        await lines.list_line_events(new_tenant(), first.id, 1, Page())


@pytest.mark.parametrize("table", ["usage_readings", "invoice_readings"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET mode = mode", "DELETE FROM {}", "TRUNCATE {}"]
)
async def test_what_was_read_never_changes(world: World, table: str, statement: str) -> None:
    await three_months(world)
    with pytest.raises(DBAPIError, match=r"never changes|foreign key"):
        async with world.database.transaction() as connection:
            await connection.execute(text(statement.format(table)))


async def test_invoices_of_one_question_share_a_reading(world: World) -> None:
    for number in range(3):
        await world.subscribe(f"user_{number}", start=JANUARY)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 3
    async with world.database.transaction() as connection:
        counts = await connection.execute(
            text("SELECT count(*), count(DISTINCT reading_id) FROM invoice_readings")
        )
        assert tuple(counts.one()) == (3, 1)
