"""Invoice numbers: none missing, none twice, whatever fails."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from services.invoicer.billing_events import INVOICE_CREATED, invoice_event
from services.invoicer.domain import Subscription
from services.invoicer.repository import invoices
from services.invoicer.repository.closing import open_periods
from services.invoicer.repository.events import add_events
from services.invoicer.service.subscriptions import SubscriptionInput
from services.invoicer.settings import LATE
from services.kit import database as kit_database
from services.kit.database import Database
from services.kit.ids import new_id
from tests.integration.invoicer.stand_ins import GRACE, World, pro_plan, utc

JANUARY, FEBRUARY = utc("2026-01-01"), utc("2026-02-01")
FINALIZATIONS = 200
ABORTS_EVERY = 5
LAST_WAITS_S = 300.0


class AbortedError(Exception):
    """What a test makes a transaction fail with."""


async def subscribe_many(world: World, count: int) -> list[Subscription]:
    plan = await world.plans.create_plan(world.tenant, pro_plan(metrics=[]))
    made = [
        await world.subscriptions.create_subscription(
            world.tenant, SubscriptionInput(f"user_{number}", plan.id, JANUARY, "CALENDAR")
        )
        for number in range(count)
    ]
    return [subscription for subscription, _ in made]


async def nobody() -> None:
    """Waits for nobody."""


async def finalize(
    world: World,
    subscription: Subscription,
    *,
    abort: bool,
    database: Database | None = None,
    begun: Callable[[], Awaitable[object]] = nobody,
) -> str:
    """Write, number and announce an invoice; fail after all of it when `abort`. `begun`: awaited in
    the transaction, before all of it.
    """
    invoice_id = new_id("inv")
    async with (database or world.database).transaction() as connection:
        await connection.execute(text("SELECT 1"))
        await begun()
        (due,) = await open_periods(connection, [subscription], LATE)
        draft = due.draft(())
        await invoices.insert_drafts(connection, world.tenant, {invoice_id: draft}, world.clock())
        (number,) = await invoices.finalize(connection, world.tenant, [invoice_id], world.clock())
        invoice = await invoices.get_invoice(connection, world.tenant, invoice_id)
        assert invoice is not None
        event = invoice_event(world.tenant, INVOICE_CREATED, invoice, world.clock())
        await add_events(connection, [event])
        if abort:
            raise AbortedError
    return number


async def test_200_concurrent_finalizations_with_aborts_leave_no_gap(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a transaction of its own, all of which are open before the first one goes on."""
    # They wait for one another, the last one for all; as long as a busy machine takes.
    monkeypatch.setattr(kit_database, "COMMAND_TIMEOUT_S", LAST_WAITS_S)
    made = await subscribe_many(world, FINALIZATIONS)
    together = asyncio.Barrier(FINALIZATIONS)
    database = Database(database_url, pool_size=FINALIZATIONS)
    try:
        results = await asyncio.gather(
            *(
                finalize(
                    world,
                    subscription,
                    abort=number % ABORTS_EVERY == 0,
                    database=database,
                    begun=together.wait,
                )
                for number, subscription in enumerate(made)
            ),
            return_exceptions=True,
        )
    finally:
        await database.close()
    aborted = [result for result in results if isinstance(result, AbortedError)]
    numbers = sorted(result for result in results if isinstance(result, str))
    assert len(aborted) == FINALIZATIONS // ABORTS_EVERY
    assert numbers == [f"INV-{n:06d}" for n in range(1, FINALIZATIONS - len(aborted) + 1)]
    async with world.database.transaction() as connection:
        stored = await connection.execute(text("SELECT number FROM invoices ORDER BY number"))
        assert list(stored.scalars()) == numbers
        events = await connection.execute(
            text("SELECT count(*) FROM outbox WHERE encode(payload, 'escape') LIKE '%INV-%'")
        )
        assert events.scalar_one() == len(numbers)


async def test_an_invoice_that_is_not_written_leaves_nothing(world: World) -> None:
    """No row, no number, no event, and the subscription stays where it was."""
    (subscription,) = await subscribe_many(world, 1)
    with pytest.raises(AbortedError):
        await finalize(world, subscription, abort=True)
    async with world.database.transaction() as connection:
        for table in ("invoices", "invoice_lines", "invoice_counters"):
            left = await connection.execute(text(f"SELECT count(*) FROM {table}"))
            assert left.scalar_one() == 0
        events = await connection.execute(text("SELECT count(*) FROM outbox"))
        assert events.scalar_one() == 1  # that of the subscription
    assert await finalize(world, subscription, abort=False) == "INV-000001"


async def test_the_closer_takes_all_or_nothing(world: World) -> None:
    """The event can't be written: neither is the invoice, and the period is closed later."""
    (subscription,) = await subscribe_many(world, 1)
    world.at(FEBRUARY + GRACE)
    async with world.database.transaction() as connection:
        await connection.execute(text("ALTER TABLE outbox RENAME TO outbox_away"))
    assert await world.close_all() == 0
    assert await world.all_invoices() == []
    unchanged = await world.subscriptions.get_subscription(world.tenant, subscription.id)
    assert unchanged == subscription
    async with world.database.transaction() as connection:
        await connection.execute(text("ALTER TABLE outbox_away RENAME TO outbox"))
        await connection.execute(text("UPDATE subscriptions SET attempt_time = '-infinity'"))
    assert await world.close_all() == 1
    assert [invoice.number for invoice in await world.all_invoices()] == ["INV-000001"]
