"""Looks after closed segments: a key filter, indexes for searching, in the end retention.

One replica does it.

Statements here may take many seconds, so they run on a connection of their own, one after the other
and with rests in between: they compete with the writers for the processor.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg
import numpy as np
import structlog

from services.ingest.key_filter import HashedIds, KeyFilter
from services.ingest.retention import Retention
from services.ingest.segments import Segments
from services.kit import clock
from services.kit.database import CONNECT_TIMEOUT_S, is_unavailable
from services.kit.errors import UnavailableError
from services.kit.events import EVENT_ID_BYTES
from services.kit.waiting import happens

log = structlog.get_logger()

CHECK_EVERY_S = 0.5
RETENTION_EVERY_S = 600.0
STATEMENT_TIMEOUT_S = 1_800.0
# After a second of work, so many of rest.
REST = 2
# How long the others have to tell what they noted of a segment's keys; then the keys are read. Who
# writes learns of the closing at once, others at their next check (maintenance.py). Meanwhile each
# event is looked up in that segment.
PARTS_WAIT_S = 1.0
PARTS_POLL_S = 0.02
# While so many events come, indexes for searching wait, but not for ever: they take as much of the
# processor as a third of the writing.
BUSY_EVENTS_PER_S = 5_000
INDEXES_WAIT_MAX = timedelta(minutes=10)

_LOCK = 0x5EC_0FFEE
_SESSION = {
    "application_name": "usageflow-ingest-keeper",
    "jit": "off",
    "maintenance_work_mem": "128MB",
    "max_parallel_maintenance_workers": "0",
}

_WITHOUT_FILTER = """
SELECT segment FROM event_segments WHERE close_time IS NOT NULL AND key_filter IS NULL
ORDER BY segment DESC
"""
_WITHOUT_INDEXES = """
SELECT segment, close_time < now() + $1::interval - $2::interval AS is_late FROM event_segments
WHERE key_filter IS NOT NULL AND index_time IS NULL ORDER BY segment
"""
_WITHOUT_SECOND_FILTER = """
SELECT segment, close_time < now() + $1::interval - $2::interval AS is_late
FROM event_segments WHERE key_filter IS NOT NULL AND second_key_filter IS NULL ORDER BY segment DESC
"""
_STORE_SECOND_FILTER = "UPDATE event_segments SET second_key_filter = $2 WHERE segment = $1"
_STORE_FILTER = """
UPDATE event_segments SET key_filter = $2, event_count = $3
WHERE segment = $1 AND close_time IS NOT NULL
"""
# In the same transaction; a part that comes at the same time waits for it, or it for the part.
_FORGET_PARTS = "DELETE FROM key_filter_parts WHERE segment = $1"
_PARTS = "SELECT replica, event_count FROM key_filter_parts WHERE segment = $1 AND replica <> $2"
_PART = "SELECT key_filter FROM key_filter_parts WHERE segment = $1 AND replica = $2"
_STORE_INDEX_TIME = "UPDATE event_segments SET index_time = now() + $2 WHERE segment = $1"

# What came last before the closing: maintenance.py looks at the open segment only.
_SUMMARIZE = "SELECT brin_summarize_new_values($1::text::regclass)"

# What a list of events may ask for, by time: all of a tenant's, a metric's, a customer's. A
# customer by its hash: sorting texts takes several times as long.
SEARCH_INDEXES = {
    "time": "(organization_id, mode, event_time)",
    "metric": "(organization_id, mode, metric, event_time)",
    "customer": "(hashtextextended(customer_id, 0), event_time)",
}

_READ_BYTES = 512 * 1024
_HEADER_BYTES = 19  # of PostgreSQL's binary COPY
# 16 bytes of key behind the number of columns and the length.
_ROW_BYTES = 2 + 4 + EVENT_ID_BYTES


class SegmentKeeper:
    """Takes the turn of all replicas for as long as its connection lasts."""

    def __init__(
        self,
        url: str,
        segments: Segments,
        retention: Retention | None = None,
        events_taken: Callable[[], int] = lambda: 0,
    ) -> None:
        """`retention`: None keeps everything. `events_taken`: how many events have come here since
        the start.
        """
        self._url = url
        self._segments = segments
        self._retention = retention
        self._retention_due_s = time.monotonic() + RETENTION_EVERY_S
        self._events_taken = events_taken
        self._taken = 0
        self._taken_s = time.monotonic()
        self._busy = False
        self._connection: Any = None  # asyncpg.Connection, whose methods have no types
        self._is_keeper = False

    async def run(self) -> None:
        """Do it until cancelled; PostgreSQL may come and go."""
        try:
            while True:
                await self._wait()
                try:
                    await self.keep()
                except Exception as error:
                    self._close()
                    if not is_unavailable(error):
                        raise
                    log.debug("keeper_waits", error=repr(error))
        finally:
            self._close()

    async def _wait(self) -> None:
        """Until it is time, or a segment was closed: without its filter it is asked for each id."""
        await happens(self._segments.filter_missing, CHECK_EVERY_S)
        self._segments.filter_missing.clear()

    async def keep(self) -> None:
        """Equip the segments that were closed, or help the replica that does."""
        self._busy = self._is_busy()
        if not await self._has_turn():
            await self._help()
            return
        for row in await self._connection.fetch(_WITHOUT_FILTER):
            await self._make_filter(row["segment"])
            await self._summarize(row["segment"])
        late = clock.offset(), INDEXES_WAIT_MAX
        for row in await self._connection.fetch(_WITHOUT_SECOND_FILTER, *late):
            if not self._busy or row["is_late"]:
                await self._make_second_filter(row["segment"])
                # After an upgrade all segments lack it; others wait for their first one meanwhile.
                break
        without = await self._connection.fetch(_WITHOUT_INDEXES, *late)
        for row in without:
            if not await self._make_indexes(row["segment"], is_late=row["is_late"]):
                break
        if self._retention is not None and time.monotonic() >= self._retention_due_s:
            self._retention_due_s = time.monotonic() + RETENTION_EVERY_S
            try:
                await self._retention.enforce(self._connection)
            except UnavailableError as error:
                log.info("retention_waits", error=error.message)

    async def _has_turn(self) -> bool:
        if self._connection is None or self._connection.is_closed():
            connect: Any = asyncpg.connect
            self._connection = await connect(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=STATEMENT_TIMEOUT_S,
                server_settings=_SESSION,
            )
            self._is_keeper = False
        # A lock that is held would be taken once more.
        if not self._is_keeper:
            self._is_keeper = await self._connection.fetchval(
                "SELECT pg_try_advisory_lock($1)", _LOCK
            )
        return self._is_keeper

    async def _help(self) -> None:
        """Tell what was noted here, and learn of the filters as soon as they are there."""
        until_s = time.monotonic() + PARTS_WAIT_S
        try:
            while await self._segments.hand_over() and time.monotonic() < until_s:
                await asyncio.sleep(PARTS_POLL_S)
                await self._segments.refresh()
        except UnavailableError as error:
            log.debug("keeper_waits", error=error.message)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _make_filter(self, segment: int) -> None:
        """Store a segment's filter: what was noted at storing if that is all, else of its keys."""
        began_s = time.monotonic()
        count = await self._count_keys(segment)
        noted = await self._noted_by_all(segment, count)
        key_filter = noted or await self._read_keys(segment, count)
        async with self._connection.transaction():
            await self._connection.execute(_STORE_FILTER, segment, key_filter.to_bytes(), count)
            await self._connection.execute(_FORGET_PARTS, segment)
        await self._segments.refresh()
        log.info(
            "key_filter_stored",
            segment=segment,
            events=count,
            noted=noted is not None,
            seconds=round(time.monotonic() - began_s, 2),
        )

    async def _noted_by_all(self, segment: int, count: int) -> KeyFilter | None:
        """The filter of a closed segment of `count` events, if the replicas noted all of them.

        What is noted is there, each id by one replica, and nothing else comes: as many are all.
        """
        until_s = time.monotonic() + PARTS_WAIT_S
        while True:
            own = self._segments.noted(segment)
            parts = await self._connection.fetch(_PARTS, segment, self._segments.replica)
            if sum(part["event_count"] for part in parts) + (own.count if own else 0) == count:
                break
            if time.monotonic() >= until_s:
                return None
            await asyncio.sleep(PARTS_POLL_S)
        together = own.key_filter if own else None
        for part in parts:
            stored = await self._connection.fetchval(_PART, segment, part["replica"])
            other = KeyFilter.from_bytes(stored)
            together = together.united(other) if together else other
            if together is None:
                return None
        return together

    async def _make_second_filter(self, segment: int) -> None:
        """Of the keys that are there now: retention may have deleted some since the closing."""
        began_s = time.monotonic()
        count = await self._count_keys(segment)
        second = await self._read_keys(segment, count, second=True)
        await self._connection.execute(_STORE_SECOND_FILTER, segment, second.to_bytes())
        await self._segments.refresh()
        await asyncio.sleep((time.monotonic() - began_s) * REST)
        self._busy = self._is_busy()

    async def _count_keys(self, segment: int) -> int:
        query = f"SELECT count(*) FROM events_{segment}"  # noqa: S608 - a number
        count: int = await self._connection.fetchval(query)
        return count

    async def _read_keys(self, segment: int, count: int, *, second: bool = False) -> KeyFilter:
        reader = _KeyReader(KeyFilter.for_keys(count), second=second)
        keys = f"SELECT event_id FROM events_{segment}"  # noqa: S608 - a number
        await self._connection.copy_from_query(keys, output=reader.read, format="binary")
        reader.flush()
        if reader.count != count:
            raise AssertionError(f"segment {segment} has {count} keys, {reader.count} were read")
        return reader.key_filter

    async def _summarize(self, segment: int) -> None:
        """Let block ranges tell in which part of the segment a batch lies."""
        index = f"ix_events_{segment}_batch_id_event_time"
        await self._connection.execute(_SUMMARIZE, index)

    def _is_busy(self) -> bool:
        """Whether many events have come since this was asked last."""
        taken, now_s = self._events_taken(), time.monotonic()
        if now_s - self._taken_s < CHECK_EVERY_S:
            return self._busy
        rate = (taken - self._taken) / (now_s - self._taken_s)
        self._taken, self._taken_s = taken, now_s
        return rate >= BUSY_EVENTS_PER_S

    async def _make_indexes(self, segment: int, *, is_late: bool) -> bool:
        """Make what lists of events need; False: not now. A try that was cut off left nothing of an
        index behind.
        """
        for name, columns in SEARCH_INDEXES.items():
            if self._busy and not is_late:
                return False
            began_s = time.monotonic()
            await self._connection.execute(
                f"CREATE INDEX IF NOT EXISTS ix_events_{segment}_{name} "
                f"ON events_{segment} {columns}"
            )
            await asyncio.sleep((time.monotonic() - began_s) * REST)
            self._busy = self._is_busy()
            if await self._connection.fetch(_WITHOUT_FILTER):
                # Without it each event is looked up there; the next index comes after it.
                return False
        await self._summarize(segment)
        await self._connection.execute(f"ANALYZE events_{segment}")
        await self._connection.execute(_STORE_INDEX_TIME, segment, clock.offset())
        log.info("segment_indexed", segment=segment)
        return True


class _KeyReader:
    """Puts the keys of a binary COPY stream into a filter, piece by piece."""

    def __init__(self, key_filter: KeyFilter, *, second: bool) -> None:
        self.key_filter = key_filter
        self._second = second
        self.count = 0
        self._header_left = _HEADER_BYTES
        self._buffer = bytearray()

    async def read(self, piece: bytes) -> None:
        """Take the next piece of the stream."""
        self._buffer += piece
        if len(self._buffer) >= _READ_BYTES:
            self.flush()
            # Let others have their turn: a segment has hundreds of pieces.
            await asyncio.sleep(0)

    def flush(self) -> None:
        """Add the keys that have come whole."""
        rows = (len(self._buffer) - self._header_left) // _ROW_BYTES
        if rows > 0:
            stop = self._header_left + rows * _ROW_BYTES
            table = np.frombuffer(bytes(self._buffer[self._header_left : stop]), np.uint8)
            keys = table.reshape(rows, _ROW_BYTES)[:, -EVENT_ID_BYTES:]
            ids = HashedIds(keys.tobytes())
            self.key_filter.add(ids.for_second() if self._second else ids)
            self.count += rows
            del self._buffer[:stop]
            self._header_left = 0
