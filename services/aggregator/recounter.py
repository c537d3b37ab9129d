"""Finds the smallest, largest and last of buckets anew, after voids have taken some away.

How it stays right while events and voids are folded meanwhile:

1. The claim, one transaction, locks the bucket, gives its recount a new mark, and sets the
   extremes to what changes nothing: folds make them those of what is folded from then on.
2. ingest is asked for the bucket's events that are not void, as of one moment after the claim. All
   that was folded before the claim is among them, but for what was voided meanwhile. What is among
   them and not folded yet will be: extremes may be taken over more than was folded, any number of
   times.
3. The end, one transaction, adds their extremes to the bucket's, if the mark is still the same. A
   void of this bucket that is folded in between gives a new mark: its event may have been read.

A void that is folded after the end finds exact extremes, and marks the bucket again when its event
may be one of them. So the end leaves no extreme of an event whose void was folded before, and a
process that is killed anywhere leaves a recount that others claim when its lease has expired. Marks
come from a sequence: one of a bucket that was emptied never comes back with a later bucket.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Protocol, TypeVar

import structlog
from prometheus_client import Counter, Gauge
from usageflow.events.v1.events_pb2 import UsageEvent

from services.aggregator import dimensions, void_repository
from services.aggregator.bucket import Bucket
from services.aggregator.domain import QUARTER
from services.aggregator.fold import Series
from services.aggregator.known_values import find_full
from services.aggregator.void_repository import Claim, Recount
from services.aggregator.voids import NO_DIMENSIONS
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError, NotYetError, UnavailableError
from services.kit.waiting import happens

log = structlog.get_logger()

CLAIMED_MAX = 32
RUNNING_MAX = 2
POLL_S = 1.0
LEASE = timedelta(seconds=30)
# Well below the lease: who takes longer gives up, and another begins.
RECOUNT_TIMEOUT_S = 20.0
PAUSE_AFTER_FAILURE = timedelta(seconds=1)
# ingest keeps events at least so long; of older ones some may be gone (eventRetentionDays).
EVENTS_KEPT = timedelta(days=90)
PAUSE_WITHOUT_EVENTS = timedelta(minutes=1)
# A question waits for recounts so long, and looks so often.
ANSWER_WAIT_S = 3.0
ANSWER_POLL_S = 0.05

_RECOUNTS = Counter("usageflow_bucket_recounts", "Buckets counted anew", ["outcome"])
_WAITING = Gauge("usageflow_bucket_recounts_waiting", "Buckets to be counted anew")

Answer = TypeVar("Answer")


class _EventsLackError(Exception):
    """ingest has dropped events of a bucket: the smallest or largest of the rest is a guess."""


class ReplaySource(Protocol):
    """Who has the events."""

    def replay(
        self, tenant: TenantKey, metric: str, customer_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[Sequence[UsageEvent]]:
        """All of a customer's ("" for none) events in [start, end) that are not void, each once,
        as of one moment after the call. UnavailableError.
        """


class Recounter:
    """The loop. Any number of replicas may run it."""

    def __init__(self, database: Database, source: ReplaySource) -> None:
        self._database = database
        self._source = source
        self._wake = asyncio.Event()
        self._running = asyncio.Semaphore(RUNNING_MAX)

    def wake(self) -> None:
        """A transaction that has marked buckets is committed."""
        self._wake.set()

    async def run(self) -> None:
        """Count anew what is marked until cancelled."""
        while True:
            self._wake.clear()
            try:
                found = await self.round()
            except UnavailableError as error:
                log.debug("recounts_wait", error=error.message)
                found = 0
            if not found:
                await happens(self._wake, POLL_S)

    async def round(self) -> int:
        """Count up to CLAIMED_MAX buckets anew; how many were tried. UnavailableError."""
        async with self._database.transaction() as connection:
            due = await void_repository.find_due_recounts(connection, CLAIMED_MAX)
            _WAITING.set(await void_repository.count_recounts(connection))
        await asyncio.gather(*(self._recount(each) for each in due))
        return len(due)

    async def _recount(self, recount: Recount) -> None:
        async with self._running:
            async with self._database.transaction() as connection:
                claim = await void_repository.claim_recount(connection, recount, LEASE)
            if claim is None:
                return
            pause = PAUSE_AFTER_FAILURE
            try:
                async with asyncio.timeout(RECOUNT_TIMEOUT_S):
                    ended = await self._count(recount, claim)
            except _EventsLackError as error:
                log.warning("recount_lacks_events", series_id=recount.series_id, error=str(error))
                ended, pause = False, PAUSE_WITHOUT_EVENTS
            except (UnavailableError, TimeoutError) as error:
                log.debug("recount_waits", series_id=recount.series_id, error=repr(error))
                ended = False
            except DomainError as error:
                log.error("recount_failed", series_id=recount.series_id, error=error.message)  # noqa: TRY400
                ended = False
            _RECOUNTS.labels("done" if ended else "repeated").inc()
            if not ended:
                async with self._database.transaction() as connection:
                    await void_repository.release_recount(connection, recount, claim.mark, pause)

    async def _count(self, recount: Recount, claim: Claim) -> bool:
        """Whether the bucket is exact now. _EventsLackError: nobody can tell any more."""
        found = await self._found(recount)
        told = found.event_count if found else 0
        if told < claim.event_count and recount.bucket_start < clock.now() - EVENTS_KEPT:
            # Or its events were voided, and the voids are about to be folded.
            raise _EventsLackError(f"of {claim.event_count} events ingest has {told}")
        if found is None:
            # Its last event was voided, and that void is about to be folded: it deletes the bucket.
            return False
        async with self._database.transaction() as connection:
            return await void_repository.end_recount(connection, recount, claim.mark, found)

    async def _found(self, recount: Recount) -> Bucket | None:
        """The bucket of the stored events; None: there are none."""
        found: Bucket | None = None
        # After the claim: what was counted before it may have filled a dimension.
        async with self._database.transaction() as connection:
            full = await find_full(connection, [recount.metric.metric_id])
        belongs = _belonging(recount, full.get(recount.metric.metric_id, {}))
        start = recount.bucket_start
        replay = self._source.replay(
            recount.tenant, recount.metric_key, recount.customer_id, start, start + QUARTER
        )
        async for events in replay:
            for event in events:
                if not belongs(event):
                    continue
                amount, time_us = Decimal(event.amount), event.time_unix_micros
                if found is None:
                    found = Bucket.of(amount, time_us, event.event_id)
                else:
                    found.add(amount, time_us, event.event_id)
        return found


def _belonging(recount: Recount, full: dimensions.Full) -> Callable[[UsageEvent], bool]:
    """Whether an event of the metric and customer may have been counted in this series.

    Of a metric that counted events before it was defined, those lie under no dimensions, whatever
    they say: there all are taken, so that the figure over all groups is never too small.
    """
    metric = recount.metric
    read = dimensions.reader(metric.dimensions)
    if read is None:
        return lambda _event: True
    unnamed = Series(metric.metric_id, recount.customer_id, NO_DIMENSIONS).key()
    if metric.counted_undefined and recount.series_key == unnamed:
        return lambda _event: True
    known: dict[tuple[str, ...], bool] = {}

    def belongs(event: UsageEvent) -> bool:
        values = read(event.metadata_json)
        if values not in known:
            counted_as = dimensions.bounded(metric.dimensions, values, full)
            named = dimensions.canonical(metric.dimensions, counted_as)
            series = Series(metric.metric_id, recount.customer_id, named)
            known[values] = series.key() == recount.series_key
        return known[values]

    return belongs


async def answered(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """What `ask` answers, asked again for ANSWER_WAIT_S while buckets are being counted anew."""
    until_s = monotonic() + ANSWER_WAIT_S
    while True:
        try:
            return await ask()
        except NotYetError as error:
            if error.reason != "being_recounted" or monotonic() >= until_s:
                raise
        await asyncio.sleep(ANSWER_POLL_S)
