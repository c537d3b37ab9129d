"""What the database of invoicer refuses, whatever the code above it does."""

import asyncio
import itertools
from dataclasses import replace
from decimal import Decimal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.closing import OpenPeriod
from services.invoicer.domain import InvoiceDraft
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.repository import invoices
from services.invoicer.repository.closing import open_periods
from services.invoicer.service.paging import Page
from services.invoicer.settings import LATE
from services.invoicer.tables import metadata
from services.kit.database import Database
from services.kit.ids import new_id
from services.kit.money import is_currency, minor_digits
from tests.integration.invoicer.stand_ins import GRACE, World, utc
from tests.waiting import until

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
PAGE = Page()
WAIT_S = 20


@pytest.fixture
async def invoiced(world: World) -> World:
    """A world with one finalized invoice (January) and a running period."""
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12000")
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    return world


class _UndoneError(Exception):
    """All went well, and was undone."""


async def run(database: Database, *statements: str, undo: bool = False) -> None:
    """Run the statements in one transaction; roll it back at the end with `undo`."""
    async with database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement))
        if undo:
            await connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
            raise _UndoneError


async def snapshot(database: Database) -> list[object]:
    """Everything there is in the tables that are kept."""
    found: list[object] = []
    async with database.transaction() as connection:
        for table in ("invoices", "invoice_lines", "invoice_counters", "plan_versions"):
            rows = await connection.execute(text(f"SELECT t::text FROM {table} t ORDER BY 1"))
            found.append(rows.scalars().all())
    return found


async def test_the_tables_are_as_the_code_describes_them(database: Database) -> None:
    async with database.engine.connect() as connection:
        context = await connection.run_sync(
            lambda sync: MigrationContext.configure(sync, opts={"compare_server_default": False})
        )
        differences = await connection.run_sync(lambda _: compare_metadata(context, metadata))
    assert [each for each in differences if "alembic_version" not in repr(each)] == []


async def test_the_currencies_are_those_of_the_code(database: Database) -> None:
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT code, minor_digits FROM currencies"))
        stored = {row.code: row.minor_digits for row in rows}
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    codes = ("".join(triple) for triple in itertools.product(letters, repeat=3))
    assert stored == {code: minor_digits(code) for code in codes if is_currency(code)}


_CHANGED = {
    "text": "{} || 'x'",
    "numeric": "{} + 1",
    "integer": "{} + 1",
    "bigint": "{} + 1",
    "timestamp with time zone": "{} + interval '15 minutes'",
}


async def test_no_column_of_a_finalized_invoice_changes_but_its_status(invoiced: World) -> None:
    async with invoiced.database.transaction() as connection:
        columns = await connection.execute(
            text(
                "SELECT column_name, data_type FROM information_schema.columns "
                "WHERE table_name = 'invoices' AND column_name NOT IN "
                "('status', 'failed_payments', 'paid_time', 'void_time')"
            )
        )
        kept = columns.all()
    assert len(kept) == 19
    for name, kind in kept:
        change = f"{name} = {_CHANGED[kind].format(name)}"
        with pytest.raises(DBAPIError, match="nothing in a finalized invoice changes"):
            await run(
                invoiced.database,
                f"UPDATE invoices SET {change}, status = 'PAID', paid_time = now()",
            )
        with pytest.raises(DBAPIError, match="nothing in a finalized invoice changes"):
            await run(invoiced.database, f"UPDATE invoices SET {change}")


_LINE = (
    "organization_id, mode, invoice_id, position, kind, metric, description, quantity, "
    "included_units, unit_price, amount, period_start, period_end, steps"
)
_PRICE = "organization_id, mode, plan_id, version, position, metric, included_units, model"


_REFUSED = [
    ("DELETE FROM invoices", "a finalized invoice is never deleted"),
    ("UPDATE invoice_lines SET amount = 0", "UPDATE of invoice_lines is refused"),
    ("UPDATE invoice_lines SET description = ''", "UPDATE of invoice_lines is refused"),
    ("DELETE FROM invoice_lines", "DELETE of a line of a finalized invoice is refused"),
    (
        f"INSERT INTO invoice_lines ({_LINE}) SELECT {_LINE.replace('position', '9')} "
        "FROM invoice_lines LIMIT 1",
        "INSERT of a line of a finalized invoice is refused",
    ),
    ("UPDATE invoices SET status = 'DRAFT'", "nothing in a finalized|never goes from"),
    ("UPDATE invoices SET status = 'PENDING'", "never goes from PENDING to PENDING"),
    ("UPDATE invoices SET failed_payments = 1", "never goes from PENDING to PENDING"),
    (
        "UPDATE invoices SET status = 'FAILED', failed_payments = 2",
        "failed payments are counted one by one",
    ),
    ("UPDATE invoices SET status = 'PAID'", "ck_invoices_paid_time"),
    ("UPDATE invoices SET status = 'VOID'", "ck_invoices_void_time"),
    ("TRUNCATE invoice_lines CASCADE", "TRUNCATE of invoice_lines is refused"),
    ("TRUNCATE invoices CASCADE", "TRUNCATE of invoices is refused"),
    ("TRUNCATE customers CASCADE", "TRUNCATE of customers is refused"),
    ("UPDATE plan_versions SET base_price = 1", "UPDATE of plan_versions is refused"),
    ("DELETE FROM plan_prices", "DELETE of plan_prices is refused"),
    ("DELETE FROM plan_versions", "DELETE of plan_versions is refused"),
    (
        'UPDATE plan_prices SET parameters = \'{"unitPrice": "0"}\'',
        "UPDATE of plan_prices is refused",
    ),
    (
        f"INSERT INTO plan_prices ({_PRICE}, parameters) SELECT "
        f"{_PRICE.replace('position, metric', '3, metric || metric')}, parameters "
        "FROM plan_prices LIMIT 1",
        "exactly the prices it was made with",
    ),
    ("UPDATE invoice_counters SET newest_sequence = 0", "invoice numbers count up"),
    ("UPDATE invoice_counters SET newest_sequence = 1", "invoice numbers count up"),
    (
        "UPDATE invoice_counters SET newest_sequence = 2",
        "invoice numbers 2 to 2 were taken and not all used",
    ),
    ("UPDATE invoice_counters SET series = 'X'", "an invoice counter stays whose it is"),
    ("DELETE FROM invoice_counters", "DELETE of invoice_counters is refused"),
    ("DELETE FROM subscriptions", "DELETE of subscriptions is refused"),
    ("UPDATE subscriptions SET time_zone = 'Asia/Kathmandu'", "never change"),
    ("UPDATE subscriptions SET start_time = '2025-01-01Z'", "never change"),
    (
        "UPDATE subscriptions SET period_start = '2026-01-01Z'",
        "a period begins where the one before it ended",
    ),
    (
        "UPDATE subscriptions SET period_start = '2026-04-01Z', period_end = '2026-05-01Z'",
        "a period begins where the one before it ended",
    ),
    ("UPDATE subscriptions SET period_end = '2026-03-01T00:01Z'", "quarter_hours"),
    ("UPDATE subscriptions SET status = 'CANCELLED'", "ck_subscriptions_cancel_time"),
    (
        "UPDATE subscriptions SET period_start = NULL, period_end = NULL, "
        "exact_period_start = NULL",
        "goes_on",
    ),
    (
        "UPDATE subscriptions SET period_start = NULL, period_end = NULL",
        "ck_subscriptions_exact_period_start",
    ),
    ("UPDATE customers SET currency = 'XYZ'", "fk_customers_currencies"),
    ("UPDATE customers SET mode = 'live'", "fk_subscriptions_customers"),
]


async def test_the_database_refuses_what_never_happens(invoiced: World) -> None:
    before = await snapshot(invoiced.database)
    for statement, why in _REFUSED:
        with pytest.raises(DBAPIError, match=why):
            await run(invoiced.database, statement)
    assert await snapshot(invoiced.database) == before


_SET = {
    "PENDING": "status = 'PENDING'",
    "PAID": "status = 'PAID', paid_time = now()",
    "FAILED": "status = 'FAILED', failed_payments = failed_payments + 1",
    "VOID": "status = 'VOID', void_time = now()",
}
_ALLOWED = {
    ("PENDING", "PAID"),
    ("PENDING", "FAILED"),
    ("PENDING", "VOID"),
    ("FAILED", "PAID"),
    ("FAILED", "FAILED"),
    ("FAILED", "VOID"),
}


async def test_an_invoice_takes_only_the_ways_that_are_allowed(invoiced: World) -> None:
    for old, new in itertools.product(_SET, _SET):
        statements = [f"UPDATE invoices SET {_SET[name]}" for name in (old, new)]
        if old == "PENDING":
            del statements[0]
        if (old, new) in _ALLOWED:
            with pytest.raises(_UndoneError):
                await run(invoiced.database, *statements, undo=True)
        else:
            with pytest.raises(DBAPIError, match=f"never goes from {old} to {new}"):
                await run(invoiced.database, *statements)


async def draft_of(world: World) -> InvoiceDraft:
    """What the invoice of the running period would say."""
    due = await running_period(world)
    usage = {"API_CALL": MetricUsage(Decimal(0)), "AI_TOKEN": MetricUsage(Decimal(0))}
    january = {**usage, "API_CALL": MetricUsage(Decimal(12000))}
    return due.draft([usage, january])


async def running_period(world: World) -> OpenPeriod:
    (subscription,), _ = await world.subscriptions.list_subscriptions(world.tenant, "", PAGE)
    async with world.database.transaction() as connection:
        (due,) = await open_periods(connection, [subscription], LATE)
    return due


async def write(world: World, draft: InvoiceDraft, *between: str) -> None:
    """Write a draft and finalize it, with other statements in between."""
    invoice_id, now = new_id("inv"), world.clock()
    async with world.database.transaction() as connection:
        await invoices.insert_drafts(connection, world.tenant, {invoice_id: draft}, now)
        for statement in between:
            await connection.execute(text(statement), {"id": invoice_id})
        await invoices.finalize(connection, world.tenant, [invoice_id], now)


async def test_a_finalized_invoice_amounts_to_its_lines(invoiced: World) -> None:
    draft = await draft_of(invoiced)
    with pytest.raises(DBAPIError, match=r"amounts to 101\.00, its lines to 100\.00"):
        await write(invoiced, draft, "UPDATE invoices SET amount = amount + 1 WHERE id = :id")
    with pytest.raises(DBAPIError, match="its lines to 0"):
        await write(
            invoiced,
            draft,
            "UPDATE invoices SET amount = amount + 1 WHERE id = :id",
            "DELETE FROM invoice_lines WHERE invoice_id = :id",
        )
    assert len(await invoiced.all_invoices()) == 1


async def test_a_line_is_in_minor_units(invoiced: World) -> None:
    draft = await draft_of(invoiced)
    first, *others = draft.lines
    wrong = replace(draft, lines=(replace(first, amount=Decimal("100.005")), *others))
    with pytest.raises(DBAPIError, match="is not rounded to minor units"):
        await write(invoiced, wrong)


async def test_a_period_has_one_invoice(invoiced: World) -> None:
    draft = await draft_of(invoiced)
    period = (await invoiced.all_invoices())[0].period
    with pytest.raises(DBAPIError, match="uq_invoices_period"):
        await write(invoiced, replace(draft, period=period, exact=period))


async def test_an_invoice_begins_as_a_draft(invoiced: World) -> None:
    draft = await draft_of(invoiced)
    copied = (
        "INSERT INTO invoices (organization_id, mode, id, customer_id, subscription_id, plan_id, "
        "plan_version, period_start, period_end, currency, amount, status, series, sequence, "
        "number, create_time, finalize_time) SELECT organization_id, mode, 'inv_x', customer_id, "
        "subscription_id, plan_id, plan_version, '2027-01-01Z', '2027-02-01Z', currency, amount, "
        "'PENDING', series, 2, 'INV-000002', now(), now() FROM invoices WHERE id <> :id"
    )
    with pytest.raises(DBAPIError, match="an invoice begins as a draft"):
        await write(invoiced, draft, copied)


async def test_a_number_is_the_one_that_was_given_out(invoiced: World) -> None:
    draft = await draft_of(invoiced)
    steal = (
        "UPDATE invoices SET status = 'PENDING', sequence = 7, number = 'INV-000007', "
        "finalize_time = now() WHERE status = 'DRAFT'"
    )
    invoice_id = new_id("inv")
    with pytest.raises(DBAPIError, match="has a number that was not given out"):
        async with invoiced.database.transaction() as connection:
            await invoices.insert_drafts(
                connection, invoiced.tenant, {invoice_id: draft}, invoiced.clock()
            )
            await connection.execute(text(steal))


async def test_a_line_cannot_slip_in_while_its_invoice_is_being_finalized(
    invoiced: World,
) -> None:
    draft, invoice_id, now = await draft_of(invoiced), new_id("inv"), invoiced.clock()
    async with invoiced.database.transaction() as connection:
        await invoices.insert_drafts(connection, invoiced.tenant, {invoice_id: draft}, now)
    slip = (
        f"INSERT INTO invoice_lines ({_LINE}) SELECT {_LINE.replace('position', '9')} "
        f"FROM invoice_lines WHERE invoice_id = '{invoice_id}' LIMIT 1"
    )
    async with invoiced.database.transaction() as connection:
        await invoices.finalize(connection, invoiced.tenant, [invoice_id], now)
        slipping = asyncio.create_task(run(invoiced.database, slip))
        await until_somebody_waits_for_a_lock(invoiced.database)
    with pytest.raises(DBAPIError, match="INSERT of a line of a finalized invoice is refused"):
        await slipping


async def until_somebody_waits_for_a_lock(database: Database) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with database.engine.connect() as connection:
        await until("the wait", lambda: connection.scalar(waiting), WAIT_S)
