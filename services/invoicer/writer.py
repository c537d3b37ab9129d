"""Writes invoices: with them the subscriptions' next periods and the events, all or nothing.

A few invoices of one tenant share a transaction: one transaction each costs several times as much.
When a batch fails each is tried alone, so that one that can't be billed holds up nobody else.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import (
    INVOICE_CREATED,
    INVOICE_PAID,
    SUBSCRIPTION_CHANGED,
    BillingEvent,
    invoice_event,
    subscription_event,
)
from services.invoicer.budget_thresholds import tell_reached
from services.invoicer.closing import OpenPeriod, Usage, is_billed
from services.invoicer.credit_notes import CreditNote, LateOrigin
from services.invoicer.credit_use import pay_from_credits
from services.invoicer.domain import Invoice, InvoiceDraft, InvoiceKind, InvoiceStatus
from services.invoicer.exact import ZERO
from services.invoicer.late_credits import LateCredit, find_late_credits, write_late_credits
from services.invoicer.readings import UsageReading
from services.invoicer.repository import closing, invoices, payments
from services.invoicer.repository.events import add_events
from services.invoicer.repository.readings import insert_readings, keep_readings
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

    @property
    def corrects(self) -> bool:
        """Whether credit notes of earlier invoices may come with it: it is written alone, since
        those and a wallet of credit are locked for them.
        """
        return bool(self.due.decreases(self.usages))


class InvoiceWriter:
    """Turns billable periods into invoices. `on_commit` is called after each transaction.

    `late_quiet`: how long after a subscription's end late usage is waited for. `retry_days`: when
    payments are tried again, where the organization has not decided.
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        on_commit: Callable[[], None],
        *,
        writers_max: int,
        late_quiet: timedelta,
        retry_days: tuple[int, ...],
    ) -> None:
        self._database = database
        self._now = now
        self._on_commit = on_commit
        self._late_quiet = late_quiet
        self._retry_days = retry_days
        self._writers = asyncio.Semaphore(writers_max)

    async def write(self, batch: Sequence[Billable]) -> tuple[int, list[Billable]]:
        """Invoice periods of one tenant: how many are done, and those that could not be.

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
        tenant, now = batch[0].due.subscription.tenant, batch[0].due.subscription.now(self._now())
        given = {new_id("inv"): each for each in batch}
        decreases = [found for each in batch for found in each.due.decreases(each.usages)]
        assert not decreases or len(batch) == 1, "is written alone"
        drafts = _drafts(given)
        following = [self._advance(each.due) for each in batch]
        async with self._database.transaction() as connection:
            await closing.prefer_indexes(connection)
            moved = await closing.advance(connection, following)
            begun = [
                _begun_event(each, now)
                for each in following
                if each.subscription.id in moved and _begins_as_planned(each)
            ]
            await add_events(connection, begun)
            corrected: list[LateCredit] = []
            if decreases and moved:
                corrected = await find_late_credits(connection, tenant, decreases, lock=True)
                drafts = _drafts(given, {each.invoice.id for each in corrected})
            kept = {key: draft for key, draft in drafts.items() if draft.subscription_id in moved}
            readings = {key: given[key].reading for key in kept}
            known = {key: reading for key, reading in readings.items() if reading}
            await insert_readings(connection, tenant, known)
            notes = []
            if corrected:
                # First: what they bring back may pay the invoice.
                invoice_id = next(iter(kept), "")
                notes = await self._correct(connection, batch[0], corrected, invoice_id, now)
            # Before there are numbers: nobody else of the tenant should wait for it.
            billed = [
                (given[key].due.subscription, draft)
                for key, draft in kept.items()
                if draft.kind is InvoiceKind.PERIOD
            ]
            await tell_reached(connection, tenant, billed, self._now())
            written = await write_drafts(connection, tenant, kept, now) if kept else []
        tell_written(written)
        for note in notes:
            log.info("credit_note_created", credit_note_id=note.id, number=note.number)
        if written or begun or notes:
            self._on_commit()
        return len(moved)

    async def _correct(
        self,
        connection: AsyncConnection,
        billable: Billable,
        corrected: Sequence[LateCredit],
        invoice_id: str,
        now: datetime,
    ) -> list[CreditNote]:
        """Write credit notes; `invoice_id`: the invoice that comes with them, "" for none."""
        assert billable.reading is not None, "what is less than billed was read"
        tenant = billable.due.subscription.tenant
        await keep_readings(connection, tenant, [billable.reading])
        origin = LateOrigin(billable.reading.id, invoice_id)
        retry_days = billable.due.settings.retry_days_or(self._retry_days)
        return await write_late_credits(
            connection, tenant, corrected, origin, (now, self._now()), retry_days
        )

    def _advance(self, due: OpenPeriod) -> closing.Advance:
        """What follows; after the last period, the time in which late usage may come in."""
        following = due.following()
        late_check_time = None
        if following is None and due.kind is not InvoiceKind.LATE:
            late_check_time = due.period.end + self._late_quiet
        return closing.Advance(
            due.subscription,
            following,
            opening=due.opens_next(),
            idle=following is not None and not is_billed(due.subscription, following),
            late_check_time=late_check_time,
        )


def _drafts(
    given: Mapping[str, Billable], credited: Collection[str] = ()
) -> dict[str, InvoiceDraft]:
    """The invoices, by the ids that they are to have; none for a period that has none, and when
    nothing came late. `credited`: invoices that credit notes correct.
    """
    drafts = {
        key: each.due.draft(each.usages, credited)
        for key, each in given.items()
        if not each.due.is_idle
    }
    return {
        key: draft
        for key, draft in drafts.items()
        if draft.lines or draft.kind is not InvoiceKind.LATE
    }


def _begins_as_planned(following: closing.Advance) -> bool:
    """Whether a phase begins with what follows, as was decided before."""
    if following.period is None:
        return False
    start = following.period.start
    phase = following.subscription.phase_at(start)
    first = following.subscription.start_time
    return phase.start_time == start > first and phase.create_time < start


def _begun_event(following: closing.Advance, now: datetime) -> BillingEvent:
    """Tells the subscription as it is from the period on that it is moved on to."""
    assert following.period is not None
    revision = following.subscription.revision + 1
    moved = replace(following.subscription, revision=revision)
    return subscription_event(SUBSCRIPTION_CHANGED, moved, now, following.period.start)


async def write_drafts(
    connection: AsyncConnection,
    tenant: TenantKey,
    drafts: Mapping[str, InvoiceDraft],
    now: datetime,
) -> list[Invoice]:
    """Store drafts, by invoice id, as final invoices with their events; without lines.

    Prepaid credits pay what they can. Of what then nothing is due, also when it came to nothing
    from the start, is paid at once, without a payment. Nobody else of the tenant gets a number
    until the transaction ends: do this last.
    """
    await invoices.insert_drafts(connection, tenant, drafts, now)
    applied = await pay_from_credits(connection, tenant, drafts, now)
    numbers = await invoices.finalize(connection, tenant, list(drafts), now)
    written = _finalized(drafts, numbers, applied, now)
    events = [invoice_event(tenant, INVOICE_CREATED, each, now) for each in written]
    paid = {
        each.id: replace(each, status=InvoiceStatus.PAID) for each in written if not each.amount_due
    }
    if paid:
        await invoices.set_paid(connection, tenant, list(paid), now)
        events += [invoice_event(tenant, INVOICE_PAID, each, now) for each in paid.values()]
    await payments.collect(connection, tenant, list(drafts.keys() - paid.keys()), now)
    await add_events(connection, events)
    return [paid.get(each.id, each) for each in written]


def tell_written(written: Sequence[Invoice]) -> None:
    """Count and log invoices that are committed."""
    for invoice in written:
        log.info("invoice_created", invoice_id=invoice.id, number=invoice.number)
    _WRITTEN.inc(len(written))


def _finalized(
    drafts: Mapping[str, InvoiceDraft],
    numbers: Sequence[str],
    applied: Mapping[str, Decimal],
    now: datetime,
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
            credits_applied=applied.get(invoice_id, ZERO),
        )
        for (invoice_id, draft), number in zip(drafts.items(), numbers, strict=True)
    ]
