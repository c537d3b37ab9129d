"""Closes periods that are over: one invoice each, in one transaction each.

A chunk of due subscriptions is claimed by a short lease, so that replicas take different ones and
no transaction is open while aggregator is asked. What was computed is written only over the
revision of the subscription that it was computed from. So the lease is there for speed alone: a
replica that comes back after its lease has expired writes nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter, Gauge

from services.invoicer.billing_events import INVOICE_CREATED, invoice_event
from services.invoicer.closing import OpenPeriod, Usage, following_period
from services.invoicer.domain import Invoice, InvoiceDraft, InvoiceStatus, Subscription
from services.invoicer.repository import closing, invoices, subscriptions
from services.invoicer.repository.events import add_event
from services.invoicer.usage import UsageSource
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError
from services.kit.ids import new_id

log = structlog.get_logger()

SELECTIONS_A_CALL_MAX = 1_000
METRICS_A_CALL_MAX = 20_000
# What can't be billed for a reason of its own (a defect) must not hold up the others.
FAILED_PAUSE = timedelta(seconds=30)

_WRITTEN = Counter("usageflow_invoicer_invoices_written", "Invoices finalized")
_DUE = Gauge("usageflow_invoicer_periods_due", "Periods that are over and not invoiced yet")


@dataclass(frozen=True, slots=True)
class ClosingSettings:
    """`grace`: how long a period that is over waits for late events. `late`: how long before a
    period earlier ones may have ended to be looked at again. `writers_max`: transactions at once.
    """

    grace: timedelta
    late: timedelta
    lease: timedelta
    pause: timedelta
    chunk_max: int
    writers_max: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A period with the usage that bills it; `as_of` None: it needs none."""

    due: OpenPeriod
    usages: Sequence[Usage]
    as_of: datetime | None


class _SupersededError(Exception):
    """Somebody else has changed the subscription meanwhile."""


class Closer:
    """Turns periods that are over into invoices."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        settings: ClosingSettings,
        now: Callable[[], datetime],
        on_commit: Callable[[], None],
    ) -> None:
        self._database = database
        self._usage = usage
        self._settings = settings
        self._now = now
        self._on_commit = on_commit
        self._writers = asyncio.Semaphore(settings.writers_max)
        self._waits = False

    async def close_chunk(self) -> int:
        """Invoice up to a chunk of periods; how many were. 0: nothing is due, or all must wait."""
        claimed, due = await self._claim()
        try:
            answered = await self._ask(due)
            ready = [entry for entry in answered if self._is_complete(entry)]
            written = await asyncio.gather(*(self._close_one(entry) for entry in ready))
        except asyncio.CancelledError:
            await asyncio.shield(self._release(claimed, timedelta(0)))
            raise
        readied = {id(entry.due) for entry in ready}
        waiting = [period.subscription for period in due if id(period) not in readied]
        await self._release(waiting, self._settings.pause)
        self._tell_waiting(len(waiting))
        return sum(written)

    async def measure(self) -> None:
        """Publish how many periods are due."""
        async with self._database.transaction() as connection:
            _DUE.set(await closing.count_due(connection, self._now() - self._settings.grace))

    async def _claim(self) -> tuple[list[Subscription], list[OpenPeriod]]:
        settings = self._settings
        async with self._database.transaction() as connection:
            claimed = await closing.claim_due(
                connection,
                self._now() - settings.grace,
                limit=settings.chunk_max,
                lease=settings.lease,
            )
            return claimed, await closing.open_periods(connection, claimed, settings.late)

    async def _ask(self, due: Sequence[OpenPeriod]) -> list[Answered]:
        """The usage of all for which it can be told now."""
        answered = []
        for tenant, group in _calls(due):
            try:
                answered += await self._ask_one_call(tenant, group)
            except DomainError as error:
                log.debug("usage_not_told", error=error.message)
        return answered

    async def _ask_one_call(self, tenant: TenantKey, group: Sequence[OpenPeriod]) -> list[Answered]:
        selections = [selection for due in group for selection in due.selections()]
        if not selections:
            return [Answered(due, (), None) for due in group]
        answer = await self._usage.billable(tenant, selections)
        usages = iter(answer.usages)
        return [
            Answered(due, [next(usages) for _ in due.selections()], answer.as_of) for due in group
        ]

    def _is_complete(self, entry: Answered) -> bool:
        """Whether everything that was accepted until the end of the grace is in the figures."""
        if entry.as_of is None:
            return True
        return entry.as_of >= entry.due.period.end + self._settings.grace

    async def _close_one(self, entry: Answered) -> bool:
        """Invoice one period; whether it was. An error is this one's alone."""
        subscription = entry.due.subscription
        async with self._writers:
            try:
                number = await self._write(entry.due, entry.due.draft(entry.usages))
            except _SupersededError:
                log.info("closing_superseded", subscription_id=subscription.id)
                await self._release([subscription], timedelta(0))
                return False
            except Exception:
                log.exception("closing_failed", subscription_id=subscription.id)
                await self._release([subscription], FAILED_PAUSE)
                return False
        self._on_commit()
        _WRITTEN.inc()
        log.info("invoice_created", subscription_id=subscription.id, number=number)
        return True

    async def _write(self, due: OpenPeriod, draft: InvoiceDraft) -> str:
        """The invoice, the subscription's next period and the event: all or nothing."""
        subscription, now, invoice_id = due.subscription, self._now(), new_id("inv")
        tenant = subscription.tenant
        advanced = replace(subscription, period=following_period(subscription, due.period))
        async with self._database.transaction() as connection:
            if not await subscriptions.update_subscription(connection, advanced):
                raise _SupersededError
            await invoices.insert_draft(connection, tenant, invoice_id, draft, now)
            number = await invoices.finalize(connection, tenant, invoice_id, now)
            invoice = Invoice(
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
            await add_event(connection, invoice_event(tenant, INVOICE_CREATED, invoice, now))
        return number

    async def _release(self, claimed: Sequence[Subscription], pause: timedelta) -> None:
        try:
            async with self._database.transaction() as connection:
                await closing.release(connection, claimed, pause)
        except DomainError as error:
            # Their leases expire by themselves.
            log.warning("release_failed", error=error.message)

    def _tell_waiting(self, count: int) -> None:
        """Say once that periods wait for their usage, and once that they no longer do."""
        if count and not self._waits:
            log.warning("periods_wait_for_usage", periods=count)
        elif self._waits and not count:
            log.info("periods_wait_no_longer")
        self._waits = count > 0


def _calls(due: Sequence[OpenPeriod]) -> Iterator[tuple[TenantKey, list[OpenPeriod]]]:
    """`due` by tenant, in groups that one call to aggregator can answer."""
    tenants: dict[TenantKey, list[OpenPeriod]] = {}
    for period in due:
        tenants.setdefault(period.subscription.tenant, []).append(period)
    for tenant, periods in tenants.items():
        group: list[OpenPeriod] = []
        selections = metrics = 0
        for period in periods:
            asked = period.selections()
            more = sum(len(selection.metrics) for selection in asked)
            full = selections + len(asked) > SELECTIONS_A_CALL_MAX
            if group and (full or metrics + more > METRICS_A_CALL_MAX):
                yield tenant, group
                group, selections, metrics = [], 0, 0
            group.append(period)
            selections += len(asked)
            metrics += more
        yield tenant, group
