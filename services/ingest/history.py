"""Streams all that was stored of a metric, with its batches: what one defined later is built from.

Unlike a replay (replay.py) a history may be left and gone on with: it has an order, and every part
says where it ends. Segments come one after the other, within them the order is (time, event id):
what lies side by side in time is counted in the same rows of usage.

All that was committed before the first call is given, because a closed segment never changes and
the open one is read after all the others, by one statement. What comes meanwhile may be left out.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1.events_pb2 import UsageEvent

from services.ingest.domain import Tenant
from services.kit import pages
from services.kit.database import Database

EVENTS_PER_PART_MAX = 2_000
# Then others have their turn; whoever wants more goes on with another call.
EVENTS_PER_CALL_MAX = 200_000
# Holds one of the pool's connections for as long as its caller reads; others wait.
HISTORIES_RUNNING_MAX = 1
# A cursor's numbers fit a bigint.
_DIGITS_MAX = 18

_NO_EVENT = UUID(int=0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Whose history: of its events, or of the `voids` of these."""

    tenant: Tenant
    metric: str
    voids: bool = False


@dataclass(frozen=True, slots=True)
class HistoryCursor:
    """Behind which event a history goes on: its segment, when it happened, and its id."""

    segment: int = 0
    time_us: int = 0
    event_id: UUID = _NO_EVENT

    def encode(self) -> str:
        """The opaque text of it."""
        return pages.encode_token(str(self.segment), str(self.time_us), self.event_id.hex)

    @staticmethod
    def decode(token: str) -> "HistoryCursor":
        """What was encoded; "": the beginning. InvalidArgumentError."""
        if not token:
            return HistoryCursor()
        segment, time_us, event_id = pages.decode_token(token, 3)
        if not all(_is_number(part) for part in (segment, time_us)):
            raise pages.invalid_token()
        try:
            return HistoryCursor(int(segment), int(time_us), UUID(event_id))
        except ValueError:
            raise pages.invalid_token() from None


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= _DIGITS_MAX


@dataclass(slots=True)
class HistoryBatch:
    """What a part has of one batch."""

    batch_id: UUID
    accept_time: datetime
    events: list[UsageEvent]


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """The next of a history; `next_cursor` "" after the last."""

    batches: Sequence[HistoryBatch]
    next_cursor: str


# The condition on event_time alone is what an index is used for.
_BEHIND = """event_time >= :time AND (event_time > :time OR event_id > :event_id)
ORDER BY event_time, event_id LIMIT :limit"""

_COLUMNS = """event_id, CAST(amount AS text) AS amount, customer_id, metric, metadata,
    CAST(extract(epoch FROM event_time) * 1000000 AS bigint) AS time_us, batch_id"""

_EVENTS = text(f"""
SELECT {_COLUMNS}, (
    SELECT accept_time FROM event_batches WHERE event_batches.batch_id = events.batch_id
) AS accept_time
FROM events
WHERE segment = :segment AND organization_id = :organization_id AND mode = :mode
    AND metric = :metric AND {_BEHIND}
""")  # noqa: S608 (no value is pasted in)

# A void and its batch have the same time.
_VOIDS = text(f"""
SELECT {_COLUMNS}, void_time AS accept_time
FROM event_voids
WHERE organization_id = :organization_id AND mode = :mode AND metric = :metric AND {_BEHIND}
""")  # noqa: S608 (no value is pasted in)

_SEGMENT = text("""
SELECT segment, close_time IS NULL AS is_open FROM event_segments WHERE segment >= :segment
ORDER BY segment LIMIT 1
""")


class Histories:
    """Answers histories, one at a time."""

    def __init__(self, database: Database, events_per_call_max: int = EVENTS_PER_CALL_MAX) -> None:
        self._database = database
        self._events_per_call_max = events_per_call_max
        self._running = asyncio.Semaphore(HISTORIES_RUNNING_MAX)

    async def replay(
        self, wanted: HistoryFilter, cursor: HistoryCursor
    ) -> AsyncGenerator[HistoryPart]:
        """Parts of the history behind `cursor`, from one segment at most.

        The last part's cursor is "" when that was all, otherwise where another call goes on.
        UnavailableError also when the caller takes longer than a minute between two parts.
        """
        async with self._running, self._database.transaction() as connection:
            segment, is_last = cursor.segment, True
            if not wanted.voids:
                row = (await connection.execute(_SEGMENT, {"segment": segment})).one_or_none()
                if row is None:
                    raise pages.invalid_token()
                segment, is_last = row.segment, row.is_open
            begin = cursor if segment == cursor.segment else HistoryCursor(segment)
            behind = "" if is_last else HistoryCursor(segment + 1).encode()
            rows = _rows(connection, wanted, begin, self._events_per_call_max)
            given = 0
            async with aclosing(rows) as parts:
                async for part in parts:
                    given += len(part)
                    last = part[-1]
                    here = HistoryCursor(segment, last.time_us, UUID(bytes=last.event_id.bytes))
                    yield HistoryPart(_batches(part), here.encode())
            if given < self._events_per_call_max:
                yield HistoryPart([], behind)


async def _rows(
    connection: AsyncConnection, wanted: HistoryFilter, begin: HistoryCursor, limit: int
) -> AsyncGenerator[Sequence[Any]]:
    values = {
        "organization_id": UUID(bytes=wanted.tenant.organization),
        "mode": wanted.tenant.mode,
        "metric": wanted.metric,
        "time": _EPOCH + timedelta(microseconds=begin.time_us),
        "event_id": begin.event_id,
        "limit": limit,
    }
    if not wanted.voids:
        values["segment"] = begin.segment
    result = await connection.stream(
        _VOIDS if wanted.voids else _EVENTS,
        values,
        execution_options={"yield_per": EVENTS_PER_PART_MAX},
    )
    found = result.partitions(EVENTS_PER_PART_MAX)
    async with aclosing(found) as parts:  # type: ignore[type-var] # it is a generator
        async for rows in parts:
            yield rows


def _batches(rows: Sequence[Any]) -> list[HistoryBatch]:
    """The rows of a part, batch by batch."""
    found: dict[UUID, HistoryBatch] = {}
    for row in rows:
        batch = found.get(row.batch_id)
        if batch is None:
            batch = found[row.batch_id] = HistoryBatch(row.batch_id, row.accept_time, [])
        batch.events.append(
            UsageEvent(
                event_id=row.event_id.bytes,
                metric=row.metric,
                amount=row.amount,
                customer_id=row.customer_id or "",
                time_unix_micros=row.time_us,
                metadata_json=row.metadata or "",
            )
        )
    return list(found.values())
