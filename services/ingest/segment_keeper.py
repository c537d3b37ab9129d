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

log = structlog.get_logger()

CHECK_EVERY_S = 0.5
RETENTION_EVERY_S = 600.0
STATEMENT_TIMEOUT_S = 1_800.0
# After a second of work, so many of rest.
REST = 2
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
_STORE_FILTER = """
UPDATE event_segments SET key_filter = $2, event_count = $3
WHERE segment = $1 AND close_time IS NOT NULL
"""
_STORE_INDEX_TIME = "UPDATE event_segments SET index_time = now() + $2 WHERE segment = $1"

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
        try:
            async with asyncio.timeout(CHECK_EVERY_S):
                await self._segments.filter_missing.wait()
        except TimeoutError:
            pass
        self._segments.filter_missing.clear()

    async def keep(self) -> None:
        """Equip the segments that were closed, unless another replica is at it."""
        self._busy = self._is_busy()
        if not await self._has_turn():
            return
        for row in await self._connection.fetch(_WITHOUT_FILTER):
            await self._make_filter(row["segment"])
        without = await self._connection.fetch(_WITHOUT_INDEXES, clock.offset(), INDEXES_WAIT_MAX)
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
            taken: bool = await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)
            if not taken:
                self._close()
                return False
        return True

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _make_filter(self, segment: int) -> None:
        """Store a segment's filter: what was noted at storing if that is all, else of its keys."""
        began_s = time.monotonic()
        count_keys = f"SELECT count(*) FROM events_{segment}"  # noqa: S608 - a number
        count: int = await self._connection.fetchval(count_keys)
        noted = self._segments.whole_filter(segment, count)
        key_filter = noted or await self._read_keys(segment, count)
        await self._connection.execute(_STORE_FILTER, segment, key_filter.to_bytes(), count)
        await self._segments.refresh()
        log.info(
            "key_filter_stored",
            segment=segment,
            events=count,
            noted=noted is not None,
            seconds=round(time.monotonic() - began_s, 2),
        )

    async def _read_keys(self, segment: int, count: int) -> KeyFilter:
        reader = _KeyReader(KeyFilter.for_keys(count))
        keys = f"SELECT event_id FROM events_{segment}"  # noqa: S608 - a number
        await self._connection.copy_from_query(keys, output=reader.read, format="binary")
        reader.flush()
        if reader.count != count:
            raise AssertionError(f"segment {segment} has {count} keys, {reader.count} were read")
        return reader.key_filter

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
        await self._connection.execute(f"ANALYZE events_{segment}")
        await self._connection.execute(_STORE_INDEX_TIME, segment, clock.offset())
        log.info("segment_indexed", segment=segment)
        return True


class _KeyReader:
    """Puts the keys of a binary COPY stream into a filter, piece by piece."""

    def __init__(self, key_filter: KeyFilter) -> None:
        self.key_filter = key_filter
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
            self.key_filter.add(HashedIds(keys.tobytes()))
            self.count += rows
            del self._buffer[:stop]
            self._header_left = 0
