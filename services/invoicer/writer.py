"""Writes invoices: with them the subscriptions' next periods and the events, all or nothing.

A few invoices of one tenant share a transaction: one transaction each costs several times as much.
When a batch fails each is tried alone, so that one that can't be billed holds up nobody else.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import INVOICE_CREATED, invoice_event
from services.invoicer.closing import OpenPeriod, Usage
from services.invoicer.domain import Invoice, InvoiceDraft, InvoiceStatus
from services.invoicer.readings import UsageReading
from services.invoicer.repository import closing, invoices
from services.invoicer.repository.events import add_events
from services.invoicer.repository.readings import insert_readings
from services.kit.database import Database, TenantKey
from services.kit.errors import UnavailableError
from services.kit.ids import new_id

log = structlog.get_logger()

_WRITTEN = Counter("usageflow_invoicer_invoices_written", "Invoices finalized")


@dataclass(frozen=True, slots=True)
class Billable:
    """A period with the complete usage that bills it, in the order of its selections.

    `reading`: where the usage is from; None: there is none to bill.
    """

    due: OpenPeriod
    usages: Sequence[Usage]
    reading: UsageReading | None = None


class InvoiceWriter:
    """Turns billable periods into invoices. `on_commit` is called after each transaction."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        on_commit: Callable[[], None],
        *,
        writers_max: int,
    ) -> None:
        self._database = database
        self._now = now
        self._on_commit = on_commit
        self._writers = asyncio.Semaphore(writers_max)

    async def write(self, batch: Sequence[Billable]) -> tuple[int, list[Billable]]:
        """Invoice periods of one tenant: how many were, and those that could not be.

        Periods whose subscription somebody else has changed meanwhile are neither: whoever changed
        it has made it due anew.
        """
        async with self._writers:
            try:
                return await self._write(batch), []
            except UnavailableError as error:
                log.warning("closing_waits_for_database", error=error.message)
                return 0, list(batch)
            except Exception as error:
                if len(batch) == 1:
                    subscription_id = batch[0].due.subscription.id
                    log.exception("closing_failed", subscription_id=subscription_id)
                    return 0, list(batch)
                log.warning("batch_failed_trying_each", periods=len(batch), error=repr(error))
        alone = [await self.write([billable]) for billable in batch]
        return sum(count for count, _ in alone), [each for _, failed in alone for each in failed]

    async def _write(self, batch: Sequence[Billable]) -> int:
        tenant, now = batch[0].due.subscription.tenant, self._now()
        ids = {new_id("inv"): billable for billable in batch}
        drafts = {key: billable.due.draft(billable.usages) for key, billable in ids.items()}
        following = [(each.due.subscription, each.due.following()) for each in batch]
        async with self._database.transaction() as connection:
            await closing.prefer_indexes(connection)
            moved = await closing.advance(connection, following)
            kept = {key: draft for key, draft in drafts.items() if draft.subscription_id in moved}
            if not kept:
                return 0
            readings = {key: reading for key in kept if (reading := ids[key].reading)}
            await insert_readings(connection, tenant, readings)
            written = await write_drafts(connection, tenant, kept, now)
        tell_written(written)
        self._on_commit()
        return len(written)


async def write_drafts(
    connection: AsyncConnection,
    tenant: TenantKey,
    drafts: Mapping[str, InvoiceDraft],
    now: datetime,
) -> list[Invoice]:
    """Store drafts, by invoice id, as final invoices with their events; without lines.

    Nobody else of the tenant gets a number until the transaction ends: do this last.
    """
    await invoices.insert_drafts(connection, tenant, drafts, now)
    numbers = await invoices.finalize(connection, tenant, list(drafts), now)
    written = _finalized(drafts, numbers, now)
    events = [invoice_event(tenant, INVOICE_CREATED, each, now) for each in written]
    await add_events(connection, events)
    return written


def tell_written(written: Sequence[Invoice]) -> None:
    """Count and log invoices that are committed."""
    for invoice in written:
        log.info("invoice_created", invoice_id=invoice.id, number=invoice.number)
    _WRITTEN.inc(len(written))


def _finalized(
    drafts: Mapping[str, InvoiceDraft], numbers: Sequence[str], now: datetime
) -> list[Invoice]:
    """The drafts as they are after their finalization; without lines."""
    return [
        Invoice(
            id=invoice_id,
            number=number,
            customer_id=draft.customer_id,
            subscription_id=draft.subscription_id,
            status=InvoiceStatus.PENDING,
            currency=draft.currency,
            amount=draft.amount,
            period=draft.period,
            finalize_time=now,
            failed_payments=0,
        )
        for (invoice_id, draft), number in zip(drafts.items(), numbers, strict=True)
    ]
