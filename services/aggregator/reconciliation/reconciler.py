"""The loop that holds what is counted against what ingest accepted.

One replica at a time works (a lease), on one piece of time after the other, and rests in between
nine times as long as a piece took: a tenth of one connection at most. The pieces are

- the hour that is running, every RUNNING_EVERY_S, at a moment when nothing waits to be counted:
  under load there is none, most of it would move, and a count would cost the events their speed.
  With it the hour before, until that is SETTLED: what went wrong shortly before an hour's end is
  found as soon as anything else;
- each hour SETTLED after its end;
- what differed, every RUNNING_EVERY_S, and what moved when it was looked at, some seconds later;
- all hours of SWEEP_DAYS, one sweep after the other, at least SWEEP_EVERY apart: late events and
  voids change old hours. Raw events are kept for 90 days at least, so nothing in there has gone.
"""

import asyncio
import time
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.reconciliation import repository
from services.aggregator.reconciliation.domain import (
    HOUR,
    NOTHING_ACCEPTED,
    Difference,
    HourKey,
    Verdict,
    hour_of,
    judge,
    unequal,
)
from services.aggregator.reconciliation.repair import Repair
from services.aggregator.reconciliation.repository import Progress
from services.aggregator.reconciliation.source import AcceptedSource
from services.aggregator.watermark import BacklogSource
from services.kit import clock
from services.kit.database import Database
from services.kit.errors import UnavailableError
from services.kit.money import format_decimal

log = structlog.get_logger()

POLL_S = 1.0
LEASE = timedelta(seconds=60)
REST_SHARE = 9
RUNNING_EVERY_S = 15.0
SETTLED = timedelta(minutes=2)
AGAIN_AFTER_S = 10.0
# Hours that move; what is beyond is met again by the next sweep.
AGAIN_MAX = 500
SWEEP_DAYS = 89
SWEEP_EVERY = timedelta(minutes=15)
SWEEP_HOURS_MAX = 24
# A piece of a sweep is made longer or shorter so that it takes about so long.
PIECE_S = 0.5
# Of one piece, and of those that were found before.
REPAIRS_MAX = 100
KEEP_REPAIRED = timedelta(days=90)
PRUNE_ROWS_MAX = 1_000

_DIFFERENCE = Gauge(
    "usageflow_reconciliation_difference",
    "Hours of metrics whose usage is not what was accepted; must be 0",
)
_OLDEST = Gauge(
    "usageflow_oldest_unaggregated_event_age_seconds",
    "How long ago the oldest event was accepted that is not aggregated; 0 without any",
)
_CHECKED = Counter("usageflow_reconciliation_hours_checked", "Hours of all metrics looked at")
_FOUND = Counter("usageflow_reconciliation_differences_found", "Hours of metrics that differed")


class Reconciler:
    """The loop, and what it does with a piece of time. Any number of replicas may run it."""

    def __init__(
        self,
        database: Database,
        source: AcceptedSource,
        backlog: BacklogSource,
        repair: Repair,
    ) -> None:
        self._database = database
        self._source = source
        self._backlog = backlog
        self._repair = repair
        self._holder = uuid4().hex
        # Hours to be looked at again, and when (time.monotonic()).
        self._again_at_s: dict[datetime, float] = {}
        self._running_due_s = 0.0
        self._open_due_s = 0.0
        self._sweep_hours = 1

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            began_s = time.monotonic()
            try:
                await self.round()
            except UnavailableError as error:
                log.debug("reconciliation_waits", error=error.message)
            await asyncio.sleep(max(POLL_S, REST_SHARE * (time.monotonic() - began_s)))

    async def round(self) -> None:
        """Tell the figures, and do one piece if no other replica is at it. UnavailableError."""
        backlog = await self._backlog.ask_backlog()
        _OLDEST.set(max((clock.now() - backlog.watermark).total_seconds(), 0))
        async with self._database.transaction() as connection:
            progress = await repository.take_lease(connection, self._holder, LEASE)
            _DIFFERENCE.set(await repository.count_open(connection))
        if progress is not None:
            await self._piece(progress, nothing_waits=backlog.empty)

    async def _piece(self, progress: Progress, *, nothing_waits: bool) -> None:
        """The most urgent piece there is."""
        now = clock.now()
        running = hour_of(now)
        closed = progress.closed_hour or running
        due = [hour for hour, due_s in self._again_at_s.items() if due_s <= time.monotonic()]
        if time.monotonic() >= self._open_due_s:
            await self._settle_open()
        if nothing_waits and time.monotonic() >= self._running_due_s:
            await self._check_running(hour_of(now - SETTLED), running + HOUR)
        elif due:
            del self._again_at_s[due[0]]
            await self.check(due[0], due[0] + HOUR)
        elif closed + HOUR + SETTLED <= now:
            await self._save(progress, closed_hour=closed + HOUR)
            await self.check(closed, closed + HOUR)
        elif progress.closed_hour is None:
            await self._save(progress, closed_hour=closed)
        else:
            await self._sweep(progress, now)

    async def _check_running(self, start: datetime, end: datetime) -> None:
        began_s = time.monotonic()
        try:
            await self.check(start, end)
        finally:
            self._running_due_s = _next_turn_s(began_s)

    async def _settle_open(self) -> None:
        """What is known to differ."""
        began_s = time.monotonic()
        try:
            async with self._database.transaction() as connection:
                keys = await repository.open_differences(connection, REPAIRS_MAX)
            for key in keys:
                await self._settle(key)
        finally:
            self._open_due_s = _next_turn_s(began_s)

    async def _sweep(self, progress: Progress, now: datetime) -> None:
        if progress.sweep_hour is None or progress.sweep_start_time is None:
            last = progress.sweep_start_time
            if last is not None and now - last < SWEEP_EVERY:
                return
            start = hour_of(now - timedelta(days=SWEEP_DAYS))
            await self._save(progress, sweep_hour=start, sweep_start_time=now)
            await self._prune(now)
            return
        start = progress.sweep_hour
        end = min(start + self._sweep_hours * HOUR, hour_of(now))
        await self._save(progress, sweep_hour=end if end < hour_of(now) else None)
        if start < end:
            began_s = time.monotonic()
            await self.check(start, end)
            slow = time.monotonic() - began_s > PIECE_S
            hours = self._sweep_hours // 2 if slow else self._sweep_hours * 2
            self._sweep_hours = min(max(hours, 1), SWEEP_HOURS_MAX)

    async def _save(self, progress: Progress, **changes: datetime | None) -> None:
        """Before the piece: one that fails is looked at again, and does not hold up the others."""
        async with self._database.transaction() as connection:
            await repository.save(connection, self._holder, replace(progress, **changes))

    async def _prune(self, now: datetime) -> None:
        async with self._database.transaction() as connection:
            await repository.prune_differences(connection, now - KEEP_REPAIRED, PRUNE_ROWS_MAX)

    async def check(self, start: datetime, end: datetime) -> None:
        """Look at all metrics in the hours of [start, end), and repair what differs.

        UnavailableError: somebody who is needed is away; the hours are looked at again.
        """
        try:
            await self._check(start, end)
        except UnavailableError:
            self._sweep_hours = 1
            for number in range((end - start) // HOUR):
                self._look_again(start + number * HOUR)
            raise

    async def _check(self, start: datetime, end: datetime) -> None:
        accepted = await self._source.count(start, end)
        async with self._database.transaction() as connection:
            counted = await repository.count(connection, start, end)
        _CHECKED.inc((end - start) // HOUR)
        suspects = unequal(accepted, counted)
        for number, key in enumerate(suspects):
            known = accepted.get(key, NOTHING_ACCEPTED)
            if known.moving or number >= REPAIRS_MAX or not await self._settle(key):
                self._look_again(key.hour)

    async def _settle(self, key: HourKey) -> bool:
        """Look closely, repair, look again; whether the hour is what was accepted."""
        verdict = await self._look(key)
        if verdict.difference is not None and await self._repair.fetch_missing(key):
            verdict = await self._look(key)
        if verdict.difference is not None and await self._repair.recount(key):
            verdict = await self._look(key)
        return verdict.difference is None and not verdict.moving

    async def _look(self, key: HourKey) -> Verdict:
        async with self._database.transaction() as connection:
            before = await repository.count_hour(connection, key)
        accepted = await self._source.count_hour(key)
        async with self._database.transaction() as connection:
            after = await repository.count_hour(connection, key)
            verdict = judge(key, before, accepted, after)
            if verdict.difference is not None:
                await self._note(connection, verdict.difference)
            elif not verdict.moving:
                await repository.close_difference(connection, key, clock.now())
        return verdict

    async def _note(self, connection: AsyncConnection, difference: Difference) -> None:
        if await repository.note_difference(connection, difference, clock.now()):
            _FOUND.inc()
            log.error(
                "usage_differs",
                **difference.key._asdict(),
                accepted_count=difference.accepted.event_count,
                accepted_sum=format_decimal(difference.accepted.amount_sum),
                counted_count=difference.counted.event_count,
                counted_sum=format_decimal(difference.counted.amount_sum),
            )

    def _look_again(self, hour: datetime) -> None:
        if hour == hour_of(clock.now()):
            return  # It has its own turns.
        if hour in self._again_at_s or len(self._again_at_s) < AGAIN_MAX:
            self._again_at_s[hour] = time.monotonic() + AGAIN_AFTER_S


def _next_turn_s(began_s: float) -> float:
    """When to do again what began then and has ended now: others get their turn in between."""
    now_s = time.monotonic()
    return now_s + max(RUNNING_EVERY_S, 2 * REST_SHARE * (now_s - began_s))
