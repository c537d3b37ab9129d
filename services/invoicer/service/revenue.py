"""What a time has brought, with what accrues and is not invoiced yet."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from services.invoicer.accruing import accrued_drafts
from services.invoicer.closer import calls
from services.invoicer.exact import ZERO, add
from services.invoicer.repository import closing, revenue
from services.invoicer.repository.revenue import Sums
from services.invoicer.usage import UsageSource
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks

RANGE_MAX = timedelta(days=366)
# Subscriptions whose running period is worked out; beyond them the answer says it is not all.
SUBSCRIPTIONS_MAX = 1_000
# What accrues is worked out once in this time, for whoever asks.
ACCRUED_KEPT_S = 60
TENANTS_KEPT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Accrued:
    """What the running periods come to by currency, with everything accepted before `as_of`;
    `complete`: of all subscriptions.
    """

    amounts: Sums
    as_of: datetime
    complete: bool


@dataclass(frozen=True, slots=True)
class Revenue:
    """What was invoiced and credited in [start, end), and what accrues now, by currency."""

    start: datetime
    end: datetime
    invoiced: Sums
    credited: Sums
    accrued: Accrued


@dataclass(frozen=True, slots=True)
class _Kept:
    """What accrues, or the question for it that is running."""

    until_s: float
    task: asyncio.Task[Accrued]

    @property
    def failed(self) -> bool:
        """Whether it has to be asked for again, whatever the time is."""
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)


class Revenues:
    """Tells it; what accrues is kept for a minute."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        now: Callable[[], datetime],
        late: timedelta,
    ) -> None:
        self._database = database
        self._usage = usage
        self._now = now
        self._late = late
        self._kept: dict[TenantKey, _Kept] = {}

    async def get(self, tenant: TenantKey, start: datetime | None, end: datetime | None) -> Revenue:
        """From the start of this month in UTC until now, unless they are given.

        InvalidArgumentError; UnavailableError: usage can't be told now.
        """
        now = self._now()
        end = now if end is None else end
        if start is None:
            start = end.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        checks = FieldChecks()
        checks.require(start <= end, "to", "must not be before from")
        checks.require(
            end - start <= RANGE_MAX, "to", f"must be at most {RANGE_MAX.days} days after from"
        )
        checks.done()
        async with self._database.transaction() as connection:
            invoiced = await revenue.sum_invoiced(connection, tenant, start, end)
            credited = await revenue.sum_credited(connection, tenant, start, end)
        return Revenue(start, end, invoiced, credited, await self._accrued(tenant))

    async def _accrued(self, tenant: TenantKey) -> Accrued:
        kept = self._kept.get(tenant)
        if kept is None or kept.failed or time.monotonic() >= kept.until_s:
            # Whoever asks meanwhile waits for the same answer.
            task = asyncio.create_task(self._work_out(tenant))
            kept = _Kept(time.monotonic() + ACCRUED_KEPT_S, task)
            self._kept.pop(tenant, None)
            if len(self._kept) >= TENANTS_KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[tenant] = kept
        return await asyncio.shield(kept.task)

    async def _work_out(self, tenant: TenantKey) -> Accrued:
        async with self._database.transaction() as connection:
            running = await revenue.list_running(connection, tenant, SUBSCRIPTIONS_MAX + 1)
            complete = len(running) <= SUBSCRIPTIONS_MAX
            periods = await closing.open_periods(
                connection, running[:SUBSCRIPTIONS_MAX], self._late
            )
        amounts: dict[str, Decimal] = {}
        as_of = self._now()
        for _, group in calls(periods):
            told, drafts = await accrued_drafts(
                self._database, self._usage, tenant, group, self._now()
            )
            as_of = min(as_of, told)
            for draft in drafts:
                amounts[draft.currency] = add(amounts.get(draft.currency, ZERO), draft.amount)
        return Accrued(amounts, as_of, complete)
