"""Group commit: what has come in while a transaction ran is stored by the next one.

No timer: an idle ingest stores a single event at once, a busy one stores thousands together.
"""

import asyncio
from collections.abc import Callable

import structlog
from asyncpg.exceptions import PostgresError
from prometheus_client import Counter

from services.ingest.domain import Recorded
from services.ingest.events import StoredBatch
from services.ingest.group import Group
from services.ingest.key_filter import HashedIds
from services.ingest.publisher import Publisher
from services.ingest.queue import Call, EventQueue
from services.ingest.segments import Known, Places, Segments
from services.ingest.writer import (
    EventWriter,
    KeyTakenError,
    RepeatableError,
    SegmentGoneError,
)
from services.kit import faults, usage_token
from services.kit.errors import DomainError, UnavailableError, UnexpectedError

log = structlog.get_logger()

# Other processes may store the same keys, or close the segment, again and again.
ATTEMPTS_MAX = 8

_GROUPS = Counter("usageflow_ingest_groups", "Groups of events handled", ["result"])
_LOOKED_UP = Counter("usageflow_ingest_keys_looked_up", "Keys that may be stored already")
_FOUND = Counter("usageflow_ingest_keys_found", "Keys that were stored already")


class Committer:
    """Stores groups, one at a time, on a connection of its own."""

    def __init__(
        self,
        queue: EventQueue,
        writer: EventWriter,
        publisher: Publisher,
        segments: Segments,
        *,
        batch_events_max: int,
        pause_after_commit_s: float = 0.0,
    ) -> None:
        self._queue = queue
        self._writer = writer
        self._publisher = publisher
        self._segments = segments
        self._batch_events_max = batch_events_max
        self._pause_after_commit_s = pause_after_commit_s

    async def run(self) -> None:
        """Store what comes until cancelled."""
        try:
            while True:
                await self._commit(await self._queue.take(self._batch_events_max))
        finally:
            self._writer.close()

    async def _commit(self, calls: list[Call]) -> None:
        """Store the calls' events, then answer the calls; nobody is left without an answer."""
        group = Group(calls)
        if faults.seeded(faults.Fault.ACK_BEFORE_COMMIT):
            _answer(calls, group, "")
        try:
            stored = await self._store(group)
            token = await self._usage_token(group, stored)
        except PostgresError as error:
            await self._isolate(calls, error)
            return
        except UnavailableError:
            _fail(calls, _unavailable)
            return
        except BaseException:
            _fail(calls, _unexpected)
            raise
        if self._pause_after_commit_s and stored:
            log.warning("test_pause_after_commit", seconds=self._pause_after_commit_s)
            await asyncio.sleep(self._pause_after_commit_s)
        _answer(calls, group, token)
        self._publisher.offer(stored)

    async def _isolate(self, calls: list[Call], error: PostgresError) -> None:
        """PostgreSQL refuses something that was let through: only its own call may suffer."""
        if len(calls) == 1:
            log.error("call_refused", exc_info=error)
            _fail(calls, _unexpected)
            return
        for call in calls:
            await self._commit([call])

    async def _store(self, group: Group) -> list[StoredBatch]:
        """Store what is new; the group learns what is not. The batches that were made."""
        connection_lost = False
        # The open segment's own primary key finds what is there; asking before is for the cases
        # in which that is likely.
        ask_open = False
        for _attempt in range(ATTEMPTS_MAX):
            known = await self._segments.known()
            try:
                ids = await self._find(group, known, ask_open=ask_open)
                if not group.events:
                    _GROUPS.labels("nothing_new").inc()
                    return []
                stored = await self._copy(group, known)
            except KeyTakenError:
                ask_open = True
            except SegmentGoneError:
                await self._segments.refresh()
            except RepeatableError as error:
                log.info("group_repeated", error=repr(error.__cause__))
            except UnavailableError:
                # Whether it was committed is not known. Looking for the same ids finds out, on a
                # new connection; when there is none, PostgreSQL is away.
                if connection_lost:
                    raise
                connection_lost = ask_open = True
            else:
                self._segments.note_stored(known.open, ids)
                return stored
        raise _unavailable()

    async def _find(self, group: Group, known: Known, *, ask_open: bool) -> HashedIds:
        """Let the group learn which of its events are stored; the ids of those that are left."""
        event_ids = group.events.ids
        ids = HashedIds(b"".join(event_ids))
        everywhere = range(len(event_ids))
        places: Places = known.places(ids, everywhere)
        opened = everywhere if ask_open else self._segments.recent(known.open, ids)
        if opened:
            places[known.open] = opened
        if places:
            wanted = {
                segment: [event_ids[at] for at in positions]
                for segment, positions in places.items()
            }
            stored = await self._writer.find(known.segments, wanted)
            _LOOKED_UP.inc(sum(map(len, wanted.values())))
            _FOUND.inc(len(stored))
            group.learn(stored)
        if len(group.events) == len(event_ids):
            return ids
        return HashedIds(b"".join(group.events.ids))

    async def _copy(self, group: Group, known: Known) -> list[StoredBatch]:
        rows = group.rows()
        counts = [len(batch.events) for batch in rows.batches]
        batch_ids = [batch.batch_id for batch in rows.batches]
        accept_time = await self._writer.copy(known.open, rows.stream, batch_ids, counts)
        _GROUPS.labels("stored").inc()
        return [StoredBatch(batch, accept_time) for batch in rows.batches]

    async def _usage_token(self, group: Group, stored: list[StoredBatch]) -> str:
        """What a usage query has to wait for to count all of the group."""
        times = [each.accept_time for each in stored]
        known = group.known_batch_ids()
        if known and (newest := await self._writer.newest_accept_time(list(known))) is not None:
            times.append(newest)
        batch_ids = [*(each.batch.batch_id for each in stored), *known]
        return usage_token.encode(batch_ids, max(times)) if times else ""


def _answer(calls: list[Call], group: Group, token: str) -> None:
    for call, outcomes in zip(calls, group.outcomes(), strict=True):
        if not call.recorded.done():  # its caller may have gone
            call.recorded.set_result(Recorded(outcomes, token))


def _fail(calls: list[Call], make_error: Callable[[], DomainError]) -> None:
    """Answer each call with an error of its own: a shared one would gather their tracebacks."""
    for call in calls:
        if not call.recorded.done():
            call.recorded.set_exception(make_error())


def _unavailable() -> UnavailableError:
    return UnavailableError("Events can't be stored now; try again", retry_after_s=1.0)


def _unexpected() -> UnexpectedError:
    return UnexpectedError("Something went wrong here; it was logged")
