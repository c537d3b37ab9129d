"""Group commit: what has come in while a transaction ran is stored by the next one.

No timer: an idle ingest stores a single event at once, a busy one stores thousands together.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from asyncpg.exceptions import PostgresError
from prometheus_client import Counter

from services.ingest.domain import Batch, Difference, StoredBatch
from services.ingest.group import Group
from services.ingest.publisher import Publisher
from services.ingest.queue import Call, EventQueue
from services.ingest.writer import AcceptTimes, EventWriter, RolledBack
from services.kit.errors import DomainError, UnavailableError, UnexpectedError

log = structlog.get_logger()

ATTEMPTS_MAX = 4
# Retries come in bursts: so many groups after one with known keys are merged straight away.
MERGED_GROUPS_AFTER_DUPLICATE = 16

_GROUPS = Counter("usageflow_ingest_groups", "Transactions that stored events", ["way"])


class Stored(NamedTuple):
    """What a transaction did: the batches it made, and how the other events differ from them."""

    batches: list[Batch]
    accept_times: AcceptTimes
    differences: Sequence[Difference] = ()


class DuplicatesExpected:
    """Whether known keys are likely now; all committers of a process share it."""

    def __init__(self) -> None:
        self._groups_left = 0

    def __bool__(self) -> bool:
        return self._groups_left > 0

    def learn(self, *, duplicates: bool) -> None:
        """Note what a merged group was like."""
        left = MERGED_GROUPS_AFTER_DUPLICATE if duplicates else self._groups_left - 1
        self._groups_left = max(left, 0)


class Committer:
    """Stores groups, one at a time, on a connection of its own."""

    def __init__(
        self,
        queue: EventQueue,
        writer: EventWriter,
        publisher: Publisher,
        duplicates: DuplicatesExpected,
        *,
        batch_events_max: int,
        pause_after_commit_s: float = 0.0,
    ) -> None:
        self._queue = queue
        self._writer = writer
        self._publisher = publisher
        self._duplicates = duplicates
        self._batch_events_max = batch_events_max
        self._pause_after_commit_s = pause_after_commit_s

    async def run(self) -> None:
        """Store what comes until cancelled."""
        try:
            while True:
                async with self._queue.taken(self._batch_events_max) as calls:
                    await self._commit(calls)
        finally:
            self._writer.close()

    async def _commit(self, calls: list[Call]) -> None:
        """Store the calls' events, then answer the calls; nobody is left without an answer."""
        group = Group(calls)
        try:
            stored = await self._store(group)
        except PostgresError as error:
            await self._isolate(calls, error)
            return
        except UnavailableError:
            _fail(calls, _unavailable)
            return
        except BaseException:
            _fail(calls, _unexpected)
            raise
        if self._pause_after_commit_s:
            log.warning("test_pause_after_commit", seconds=self._pause_after_commit_s)
            await asyncio.sleep(self._pause_after_commit_s)
        for call, outcomes in zip(calls, group.outcomes(stored.differences), strict=True):
            if not call.outcomes.done():  # its caller may have gone
                call.outcomes.set_result(outcomes)
        self._publish(group, stored)

    async def _isolate(self, calls: list[Call], error: PostgresError) -> None:
        """PostgreSQL refuses something that was let through: only its own call may suffer."""
        if len(calls) == 1:
            log.error("call_refused", exc_info=error)
            _fail(calls, _unexpected)
            return
        for call in calls:
            await self._commit([call])

    def _publish(self, group: Group, stored: Stored) -> None:
        self._publisher.offer(
            [
                StoredBatch(batch, stored.accept_times[batch.batch_id])
                for batch in group.accepted(stored.batches, stored.differences)
                if batch.batch_id in stored.accept_times
            ]
        )

    async def _store(self, group: Group) -> Stored:
        merge = bool(self._duplicates) or group.has_copies()
        connection_lost = False
        for _attempt in range(ATTEMPTS_MAX):
            try:
                return await (self._merge(group) if merge else self._copy(group))
            except RolledBack:
                merge = True
            except UnavailableError:
                # Whether it was committed is not known. Merging the same ids again finds out, on
                # a new connection; when there is none, PostgreSQL is away.
                if connection_lost:
                    raise
                connection_lost = merge = True
        raise _unavailable()

    async def _copy(self, group: Group) -> Stored:
        rows = group.new_rows()
        counts = [len(batch.events) for batch in rows.batches]
        batch_ids = [batch.batch_id for batch in rows.batches]
        accept_times = await self._writer.copy(rows.stream, batch_ids, counts)
        _GROUPS.labels("copy").inc()
        return Stored(rows.batches, accept_times)

    async def _merge(self, group: Group) -> Stored:
        rows = group.staged_rows()
        accept_times, differences = await self._writer.merge(rows.stream, group.batch_ids)
        _GROUPS.labels("merge").inc()
        self._duplicates.learn(duplicates=bool(differences))
        return Stored(rows.batches, accept_times, differences)


def _fail(calls: list[Call], make_error: Callable[[], DomainError]) -> None:
    """Answer each call with an error of its own: a shared one would gather their tracebacks."""
    for call in calls:
        if not call.outcomes.done():
            call.outcomes.set_exception(make_error())


def _unavailable() -> UnavailableError:
    return UnavailableError("Events can't be stored now; try again", retry_after_s=1.0)


def _unexpected() -> UnexpectedError:
    return UnexpectedError("Something went wrong here; it was logged")
