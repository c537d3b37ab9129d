"""Counts a metric anew by its changed definition, while the old one serves.

1. When the rebuild begins (repository.begin_rebuild) no fold is under way: batches that were folded
   before are counted by the old definition only, later ones by both. The inbox says which is which.
2. All events that were stored are read from ingest, in order. Those of batches folded before the
   beginning are counted; of the others the fold has done, or will do, the same. Where to go on is
   committed with what was counted, so that each event is counted once, whoever is killed when.
3. Voided events are among them. Until here voids were taken out of the old count only. From
   begin_voids on, when no fold is under way either, they are taken out of both; those folded
   before are read from ingest, and taken out, in the same way.
4. Now both counts are of the same events, in every snapshot. They are compared, number and sum of
   every customer, and one transaction makes the metric what was built. If they differ it is built
   once more, a few times, and then left to an operator.

What a metric no longer counts by is deleted in small pieces.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import DBAPIError
from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent

from services.aggregator import metric_repository, usage_repository
from services.aggregator.domain import DIMENSION_VALUES_MAX
from services.aggregator.fold import Cells, fold
from services.aggregator.folder import Folder, is_repeatable
from services.aggregator.metric_repository import MetricKey
from services.aggregator.quotas.change_repository import note_changes
from services.aggregator.quotas.repository import Holder
from services.aggregator.rebuilds import comparing, left_over, repository
from services.aggregator.rebuilds.domain import EVENTS, VOIDS, check_change
from services.aggregator.rebuilds.repository import Work
from services.aggregator.rebuilds.source import HistoryBatch, HistoryPart, HistorySource
from services.aggregator.void_folder import BatchRefusedError, take_out
from services.kit import clock
from services.kit.auth import MODE_NUMBERS
from services.kit.database import Database
from services.kit.errors import ConflictError, DomainError, UnavailableError
from services.kit.waiting import happens

log = structlog.get_logger()

POLL_S = 1.0
# Others go on with what nobody has got any further for so long.
LEASE = timedelta(seconds=15)
STEP_ATTEMPTS_MAX = 4
# They lie side by side in time: the more at once, the fewer times the same rows are written.
STEP_EVENTS = 10_000
BUILDS_MAX = 3
# Reconciliation may have to repair the old count before the two can agree.
PAUSE_AFTER_DIFFERENCE = timedelta(seconds=60)
PAUSE_AFTER_FAILURE = timedelta(seconds=1)
CUSTOMERS_COMPARED_AT_A_TIME = 100
DELETED_AT_A_TIME = 2_000
DELETE_AFTER = timedelta(minutes=2)
DELETIONS_EVERY_S = 10.0
# After a step, for what folds and questions need: half of the time is theirs.
REST_SHARE = 1

_EVENTS = Counter("usageflow_rebuild_events", "Events and voids read to build metrics anew")
_ENDED = Counter("usageflow_rebuild_ended", "Rebuilds of metrics that have ended", ["outcome"])
_DIFFERENT = Counter(
    "usageflow_rebuild_differences", "Rebuilds whose events were not those of the old count"
)
_RUNNING = Gauge("usageflow_rebuild_running", "Metrics that are being built anew")


class _LostError(Exception):
    """Somebody else goes on with the rebuild, or it has ended."""


def _nobody_recounts() -> None:
    """In the place of what counts buckets anew."""


def _nobody_watches(_metrics: Collection[MetricKey]) -> None:
    """In the place of what is told whose usage has changed."""


@dataclass(slots=True)
class _Joined:
    """Parts of a history that are counted together; `cursor`: where they end."""

    batches: list[HistoryBatch]
    event_count: int = 0
    cursor: str = ""
    is_last: bool = False


async def _joined(history: AsyncIterator[HistoryPart], step_events: int) -> AsyncIterator[_Joined]:
    joined = _Joined([])
    async for part in history:
        joined.batches += part.batches
        joined.event_count += sum(len(batch.events) for batch in part.batches)
        joined.cursor = part.next_cursor or joined.cursor
        joined.is_last = not part.next_cursor
        if joined.event_count >= step_events:
            yield joined
            joined = _Joined([], is_last=joined.is_last)
    yield joined


class Rebuilder:
    """The loop. Any number of replicas may run it; each works on one metric at a time."""

    def __init__(
        self,
        database: Database,
        source: HistorySource,
        folder: Folder,
        *,
        dimension_values_max: int = DIMENSION_VALUES_MAX,
        buckets_marked: Callable[[], None] = _nobody_recounts,
        usage_changed: Callable[[Collection[MetricKey]], None] = _nobody_watches,
        lease: timedelta = LEASE,
        step_events: int = STEP_EVENTS,
    ) -> None:
        """`buckets_marked` is called after a commit that has marked buckets which are to be
        counted anew, `usage_changed` when a metric is what was built. `step_events`: a transaction
        counts at least so many, and less than another part of the history more.
        """
        self._database = database
        self._source = source
        self._folder = folder
        self._dimension_values_max = dimension_values_max
        self._buckets_marked = buckets_marked
        self._usage_changed = usage_changed
        self._lease = lease
        self._step_events = step_events
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """A rebuild has begun."""
        self._wake.set()

    async def run(self) -> None:
        """Build what is to be built until cancelled."""
        loop = asyncio.get_running_loop()
        deletions_due_s = loop.time()
        while True:
            self._wake.clear()
            worked = False
            try:
                worked = await self.round()
                if loop.time() >= deletions_due_s:
                    worked |= await self.delete_left_over()
                    if not worked:
                        deletions_due_s = loop.time() + DELETIONS_EVERY_S
            except UnavailableError as error:
                log.debug("rebuilds_wait", error=error.message)
            if not worked:
                await happens(self._wake, POLL_S)

    async def round(self) -> bool:
        """Go on with one rebuild as far as it gets; False: there is none. UnavailableError."""
        async with self._database.transaction() as connection:
            _RUNNING.set(await repository.count_running(connection))
            work = await repository.claim(connection, self._lease)
        if work is None:
            return False
        try:
            await self._work(work)
        except _LostError:
            log.info("rebuild_left", rebuild_id=work.rebuild_id)
        except BatchRefusedError as error:
            await self._fail(work, f"an event that was voided is not stored any more: {error}")
        except (DBAPIError, ArithmeticError) as error:
            # Whatever is wrong with what is built, what is counted goes on.
            log.exception("rebuild_broken", **_named(work))
            await self._fail(work, f"an internal error: {type(error).__name__}")
        except DomainError as error:
            # ingest is away, or has no time.
            log.info("rebuild_waits", rebuild_id=work.rebuild_id, error=error.message)
            async with self._database.transaction() as connection:
                await repository.release(connection, work, PAUSE_AFTER_FAILURE)
        return True

    async def _work(self, work: Work) -> None:
        if work.events_total is None:
            async with self._database.transaction() as connection:
                await repository.note_total(connection, work)
        if work.state == EVENTS:
            work = await self._read_all(work)
            async with self._database.transaction() as connection:
                begun = await repository.begin_voids(connection, work)
            work = _mine(begun)
        work = await self._read_all(work)
        if not await self._agree(work):
            await self._begin_again(work)
            return
        await self._swap(work)

    async def _read_all(self, work: Work) -> Work:
        """Read the history from where it was left to its end."""
        loop = asyncio.get_running_loop()
        while True:
            history = self._source.history(work.key, work.cursor, voids=work.state == VOIDS)
            async for part in _joined(history, self._step_events):
                # Also where a segment has nothing of it: the next call begins behind.
                if part.cursor:
                    began_s = loop.time()
                    work = await self._step(work, part)
                    await asyncio.sleep((loop.time() - began_s) * REST_SHARE)
                if part.is_last:
                    return work

    async def _step(self, work: Work, part: _Joined) -> Work:
        """Count what the part has, in one transaction, which also notes where it ends."""
        return await self._repeated(lambda: self._try_step(work, part))

    async def _try_step(self, work: Work, part: _Joined) -> Work:
        marked = 0
        read = part.event_count
        async with self._database.transaction() as connection:
            if not await repository.lock_step(connection, work):
                raise _LostError
            folded = await repository.find_folded(
                connection, {batch.batch_id for batch in part.batches}
            )
            version = work.before_version
            events = [
                event
                for batch in part.batches
                if folded.was_before(version, batch.batch_id, batch.accept_time)
                for event in batch.events
            ]
            if events and work.state == VOIDS:
                marked = await take_out(connection, [(work.voidable, event) for event in events])
            elif events:
                cells = _folded(work, events)
                await self._folder.store_recounted(connection, work.key, work.definition, cells)
            done = read if work.state == EVENTS else 0
            await repository.save_step(connection, work, part.cursor, done, self._lease)
        if marked:
            self._buckets_marked()
        _EVENTS.inc(read)
        return replace(work, cursor=part.cursor)

    async def _repeated(self, step: Callable[[], Awaitable[Work]]) -> Work:
        for attempt in range(1, STEP_ATTEMPTS_MAX + 1):
            try:
                return await step()
            except DBAPIError as error:
                if not is_repeatable(error) or attempt == STEP_ATTEMPTS_MAX:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _agree(self, work: Work) -> bool:
        """Whether both counts have the same number and sum of events of every customer."""
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            ids = (await comparing.read_counted_id(connection, work.metric_id), work.building_id)
            after: str | None = None
            while customers := await comparing.find_customers(
                connection, ids, after, CUSTOMERS_COMPARED_AT_A_TIME
            ):
                after = customers[-1]
                differing = await comparing.find_differing(connection, ids, customers)
                if differing is not None:
                    log.error("rebuild_differs", **_named(work), customer_id=differing)
                    _DIFFERENT.inc()
                    return False
        return True

    async def _begin_again(self, work: Work) -> None:
        if work.attempt >= BUILDS_MAX:
            await self._fail(
                work,
                "the stored events are not those that were counted; events may have been dropped "
                "after eventRetentionDays",
            )
            return
        async with self._database.transaction() as connection:
            await repository.begin_again(
                connection, work, self._dimension_values_max, PAUSE_AFTER_DIFFERENCE
            )

    async def _swap(self, work: Work) -> None:
        """Make the metric what was built, unless somebody relies by now on what it was."""
        now = clock.now()
        async with self._database.transaction() as connection:
            # No fold is under way that takes voids out of the one and knows nothing of the other.
            await repository.lock_definitions(connection)
            metric = await metric_repository.get_metric(
                connection, work.key.tenant, work.key.key, for_update=True
            )
            assert metric is not None, "metrics are never deleted"
            if not await repository.lock_step(connection, work):
                raise _LostError
            limited = await repository.has_quotas(connection, work.metric_id)
            try:
                check_change(metric, work.new, has_quotas=limited)
            except ConflictError as error:
                await repository.fail_rebuild(connection, work.rebuild_id, error.message, now)
                log.error("rebuild_failed", **_named(work), error=error.message)  # noqa: TRY400
                _ENDED.labels("failed").inc()
                return
            await repository.swap(connection, work, now)
            if limited:
                await note_changes(connection, [Holder(work.metric_id, "")])
        _ENDED.labels("done").inc()
        log.info("metric_rebuilt", **_named(work))
        self._usage_changed([work.key])

    async def _fail(self, work: Work, error: str) -> None:
        log.error("rebuild_failed", **_named(work), error=error)
        async with self._database.transaction() as connection:
            await repository.fail_rebuild(connection, work.rebuild_id, error, clock.now())
        _ENDED.labels("failed").inc()

    async def delete_left_over(self, after: timedelta = DELETE_AFTER) -> bool:
        """Delete a piece of what no metric counts by any more, and rest; False: there is none."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with self._database.transaction() as connection:
            found = await left_over.find_left_over(connection, clock.now() - after)
            if found is None:
                return False
            await left_over.delete_left_over(connection, found, DELETED_AT_A_TIME)
        await asyncio.sleep((loop.time() - began_s) * REST_SHARE)
        return True


def _mine(work: Work | None) -> Work:
    if work is None:
        raise _LostError
    return work


def _folded(work: Work, events: Collection[UsageEvent]) -> Cells:
    batch = EventBatch()
    mode = MODE_NUMBERS[work.key.mode]
    batch.tenants.add(organization_id=work.key.organization_id, mode=mode, events=events)
    return fold([batch], {work.key.tenant: {work.key.key: work.definition}})


def _named(work: Work) -> dict[str, object]:
    return {"rebuild_id": work.rebuild_id, **work.key._asdict()}
