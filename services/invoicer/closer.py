"""Closes periods that are over, when all of their usage is known.

A chunk of due subscriptions is claimed by a short lease, so that replicas take different ones and
no transaction is open while aggregator is asked. What was computed is written only over the
revision of the subscription that it was computed from. So the lease is there for speed alone: a
replica that comes back after its lease has expired writes nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from prometheus_client import Gauge

from services.invoicer.clocks import Clock
from services.invoicer.closing import OpenPeriod
from services.invoicer.readings import UsageReading
from services.invoicer.repository import closing
from services.invoicer.usage import UsageSource
from services.invoicer.writer import Billable, InvoiceWriter
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError, UnavailableError
from services.kit.ids import new_id

log = structlog.get_logger()

SELECTIONS_A_CALL_MAX = 1_000
# Of a customer with events in every quarter of an hour aggregator reads about 1,000 a second.
METRICS_A_CALL_MAX = 5_000
# A message has at most 16 MiB.
MATCH_BYTES_A_CALL_MAX = 8 * 1024 * 1024
# What can't be billed for a reason of its own (a defect) is tried again, but not all the time.
FAILED_PAUSE = timedelta(seconds=30)

_DUE = Gauge("usageflow_invoicer_periods_due", "Periods that are over and not invoiced yet")


@dataclass(frozen=True, slots=True)
class ClosingSettings:
    """`grace`: how long a period that is over waits for late events, where its organization has
    not decided. `late`: how long before a
    period earlier ones may have ended to be looked at again. `lease`: how long a replica keeps
    others off the chunk it has claimed. `pause`: until a period that must wait is tried again.
    """

    grace: timedelta
    late: timedelta
    lease: timedelta
    pause: timedelta
    chunk_max: int
    batch_max: int


class Closer:
    """Finds periods that are over, and has them invoiced."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        writer: InvoiceWriter,
        settings: ClosingSettings,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._usage = usage
        self._writer = writer
        self._settings = settings
        self._now = now
        self._waits = False

    async def close_chunk(self) -> int:
        """Invoice up to a chunk of periods; how many were. 0: nothing is due, or all must wait."""
        due = await self._claim()
        try:
            return await self._close(due)
        except asyncio.CancelledError:
            await asyncio.shield(self._release(due, timedelta(0)))
            raise

    async def measure(self) -> None:
        """Publish how many periods are due."""
        async with self._database.transaction() as connection:
            _DUE.set(await closing.count_due(connection, self._now(), self._settings.grace))

    async def _claim(self) -> list[OpenPeriod]:
        settings = self._settings
        async with self._database.transaction() as connection:
            await closing.prefer_indexes(connection)
            claimed = await closing.claim_others(
                connection,
                self._now(),
                settings.grace,
                limit=settings.chunk_max,
                lease=settings.lease,
            )
            claimed += await closing.claim_clocked(
                connection,
                settings.grace,
                limit=settings.chunk_max - len(claimed),
                lease=settings.lease,
            )
            claimed += await closing.claim_due(
                connection,
                self._now(),
                settings.grace,
                limit=settings.chunk_max - len(claimed),
                lease=settings.lease,
            )
            return await closing.open_periods(connection, claimed, settings.late)

    async def _close(self, due: Sequence[OpenPeriod]) -> int:
        billable = await self._ask(due)
        known = {id(each.due) for each in billable}
        waiting = [period for period in due if id(period) not in known]
        # What was accepted before a clock was told to go on is aggregated soon, and somebody waits.
        clocked = [each for each in waiting if each.subscription.clock is not None]
        await self._release(clocked, timedelta(0))
        others = [each for each in waiting if each.subscription.clock is None]
        await self._release(others, self._settings.pause)
        self._tell_waiting(len(waiting))
        batches = _batches(billable, self._settings.batch_max)
        results = await asyncio.gather(*(self._writer.write(batch) for batch in batches))
        failed = [each.due for _, failures in results for each in failures]
        await self._release(failed, FAILED_PAUSE)
        return sum(written for written, _ in results)

    async def _ask(self, due: Sequence[OpenPeriod]) -> list[Billable]:
        """Those whose usage is told now, and complete."""
        billable = []
        for tenant, group in calls(due):
            try:
                billable += await self._ask_one_call(tenant, group)
            except UnavailableError as error:
                log.debug("usage_not_told", error=error.message)
            except DomainError as error:
                log.error("usage_refused", error=error.message, periods=len(group))  # noqa: TRY400
        return billable

    async def _ask_one_call(self, tenant: TenantKey, group: Sequence[OpenPeriod]) -> list[Billable]:
        selections = [selection for due in group for selection in due.selections()]
        if not selections:
            return [Billable(due, ()) for due in group]
        answer = await self._usage.billable(tenant, selections, tell_counted=True)
        assert answer.counted is not None, "asked for"
        reading = UsageReading(new_id("rdg"), answer.counted)
        usages = iter(answer.usages)
        answered = [
            Billable(due, [next(usages) for _ in due.selections()], reading) for due in group
        ]
        # Everything that was accepted until the end of the grace has to be in the figures.
        return [
            each
            for each in answered
            if not each.usages or answer.as_of >= self._complete_from(each.due)
        ]

    def _complete_from(self, due: OpenPeriod) -> datetime:
        regular = due.period.end + due.settings.grace_or(self._settings.grace)
        clock = due.subscription.clock
        return regular if clock is None else clock.complete_from(regular)

    async def _release(self, periods: Sequence[OpenPeriod], pause: timedelta) -> None:
        """Let others have them after `pause`; those that were changed meanwhile they have."""
        try:
            async with self._database.transaction() as connection:
                await closing.release(connection, [each.subscription for each in periods], pause)
        except DomainError as error:
            # The leases expire by themselves.
            log.warning("release_failed", error=error.message)

    def _tell_waiting(self, count: int) -> None:
        """Say once that periods wait for their usage, and once that they no longer do."""
        if count and not self._waits:
            log.info("periods_wait_for_usage", periods=count)
        elif self._waits and not count:
            log.info("periods_wait_no_longer")
        self._waits = count > 0


def _batches(billable: Sequence[Billable], batch_max: int) -> Iterator[list[Billable]]:
    """By tenant and test clock, at most `batch_max` at once: a batch is written at one time. What
    corrects earlier invoices is alone.
    """
    alike: dict[tuple[TenantKey, Clock | None, str], list[Billable]] = {}
    for each in billable:
        subscription = each.due.subscription
        alone = subscription.id if each.corrects else ""
        alike.setdefault((subscription.tenant, subscription.clock, alone), []).append(each)
    for entries in alike.values():
        for start in range(0, len(entries), batch_max):
            yield entries[start : start + batch_max]


def calls(due: Sequence[OpenPeriod]) -> Iterator[tuple[TenantKey, list[OpenPeriod]]]:
    """`due` by tenant, in groups that one call to aggregator can answer."""
    tenants: dict[TenantKey, list[OpenPeriod]] = {}
    for period in due:
        tenants.setdefault(period.subscription.tenant, []).append(period)
    for tenant, periods in tenants.items():
        group: list[OpenPeriod] = []
        selections = metrics = match_bytes = 0
        for period in periods:
            asked = period.selections()
            more = sum(len(selection.metrics) for selection in asked)
            longer = sum(selection.match_bytes for selection in asked)
            full = selections + len(asked) > SELECTIONS_A_CALL_MAX
            full = full or match_bytes + longer > MATCH_BYTES_A_CALL_MAX
            if group and (full or metrics + more > METRICS_A_CALL_MAX):
                yield tenant, group
                group, selections, metrics, match_bytes = [], 0, 0, 0
            group.append(period)
            selections += len(asked)
            metrics += more
            match_bytes += longer
        yield tenant, group
