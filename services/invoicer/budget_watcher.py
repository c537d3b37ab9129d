"""Compares what running periods would be invoiced now with budgets, and tells what is reached.

Any number of replicas may: one claims what is due, and with it says when the next look is. What is
reached is recorded under a key that exists once, in one transaction with its message: whoever is
killed before the commit has told nothing, and the next look does. The invoice of a period tells
what no look has seen (writer.py).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from services.invoicer.accruing import accrued_drafts
from services.invoicer.budget_thresholds import tell_reached
from services.invoicer.closer import calls
from services.invoicer.closing import OpenPeriod
from services.invoicer.domain import InvoiceKind
from services.invoicer.repository import budgets, closing
from services.invoicer.usage import UsageSource
from services.kit.database import Database, TenantKey
from services.kit.errors import UnavailableError
from services.kit.waiting import happens

log = structlog.get_logger()

POLL_S = 1.0
CLAIM_MAX = 200
# A look that takes long (prices that need each event) is repeated less often: looks at one and the
# same take a twentieth of the time at most.
PAUSES_A_LOOK = 20


class BudgetWatcher:
    """The loop. `on_commit` is called when there is something to tell."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        now: Callable[[], datetime],
        on_commit: Callable[[], None],
        *,
        late: timedelta,
        check_s: float,
    ) -> None:
        """`check_s`: between two looks at the same budget."""
        self._database = database
        self._usage = usage
        self._now = now
        self._on_commit = on_commit
        self._late = late
        self._check_s = check_s
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """A budget was set."""
        self._wake.set()

    async def run(self) -> None:
        """Look at what is due until cancelled."""
        while True:
            self._wake.clear()
            try:
                while await self.round() == CLAIM_MAX:
                    pass
            except UnavailableError as error:
                log.debug("budgets_wait", error=error.message)
            await happens(self._wake, POLL_S)

    async def round(self) -> int:
        """Look at up to CLAIM_MAX that are due; how many there were. UnavailableError."""
        pause = timedelta(seconds=self._check_s)
        async with self._database.transaction() as connection:
            claimed = await budgets.claim(connection, limit=CLAIM_MAX, pause=pause)
            periods = await closing.open_periods(connection, claimed, self._late)
        running = [each for each in periods if self._runs(each)]
        for tenant, group in calls(running):
            try:
                await self._look(tenant, group)
            except UnavailableError as error:
                log.debug("budgets_wait", error=error.message)
            except Exception:
                # The others are looked at all the same.
                log.exception("budgets_not_watched", periods=len(group))
        return len(claimed)

    def _runs(self, period: OpenPeriod) -> bool:
        begun = period.period.start <= period.subscription.now(self._now())
        return begun and period.kind is InvoiceKind.PERIOD and not period.is_idle

    async def _look(self, tenant: TenantKey, group: Sequence[OpenPeriod]) -> None:
        begun_s = time.monotonic()
        _, drafts = await accrued_drafts(self._database, self._usage, tenant, group, self._now())
        found = list(zip([each.subscription for each in group], drafts, strict=True))
        async with self._database.transaction() as connection:
            told = await tell_reached(connection, tenant, found, self._now())
        if told:
            self._on_commit()
        took_s = time.monotonic() - begun_s
        if took_s * PAUSES_A_LOOK > self._check_s:
            pause = timedelta(seconds=took_s * PAUSES_A_LOOK)
            async with self._database.transaction() as connection:
                ids = [subscription.id for subscription, _ in found]
                await budgets.postpone(connection, tenant, ids, pause)
