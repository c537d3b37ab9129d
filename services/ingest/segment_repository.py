"""The SQL of segments: which there are, rotating, their key filters and indexes.

Each function works inside the caller's transaction, but those that say otherwise.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Column, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.tables import event_segments, key_filter_parts
from services.kit import clock

# Closing waits for writers, and new ones wait behind it.
ROTATE_LOCK_TIMEOUT_MS = 500

SUMMARIZE_LOCK_TIMEOUT_MS = 200

_KEY_BYTES = 40  # of the primary key's index, an event

_columns = event_segments.c


class SegmentRow(NamedTuple):
    """A segment; `close_time` None: it is open. The sizes of its filters; None: not yet there."""

    segment: int
    close_time: datetime | None
    filter_bytes: int | None
    second_filter_bytes: int | None


async def list_segments(connection: AsyncConnection) -> list[SegmentRow]:
    """All segments, oldest first."""
    query = select(
        _columns.segment,
        _columns.close_time,
        # Their lengths are known without reading them.
        func.octet_length(_columns.key_filter),
        func.octet_length(_columns.second_key_filter),
    ).order_by(_columns.segment)
    return [SegmentRow._make(row) for row in await connection.execute(query)]


async def load_key_filter(connection: AsyncConnection, segment: int) -> bytes | None:
    """The segment's stored filter; None: there is none, or the segment is gone."""
    return await _load(connection, segment, _columns.key_filter)


async def load_second_key_filter(connection: AsyncConnection, segment: int) -> bytes | None:
    """The segment's second filter; None: there is none, or the segment is gone."""
    return await _load(connection, segment, _columns.second_key_filter)


async def _load(
    connection: AsyncConnection, segment: int, column: Column[bytes | None]
) -> bytes | None:
    stored: bytes | None = await connection.scalar(
        select(column).where(_columns.segment == segment)
    )
    return stored


async def store_part(
    connection: AsyncConnection, segment: int, replica: UUID, event_count: int, key_filter: bytes
) -> None:
    """What a replica noted of a closed segment's keys, in place of what it stored before.

    Nothing is stored once the segment has its filter: whoever stores that waits for this, or this
    for him.
    """
    lacks_filter = (
        select(_columns.segment)
        .where(
            _columns.segment == segment,
            _columns.close_time.is_not(None),
            _columns.key_filter.is_(None),
        )
        .with_for_update(read=True)
    )
    if await connection.scalar(lacks_filter) is None:
        return
    part = {"event_count": event_count, "key_filter": key_filter}
    await connection.execute(
        insert(key_filter_parts)
        .values(segment=segment, replica=replica, **part)
        .on_conflict_do_update(constraint=key_filter_parts.primary_key, set_=part)
    )


async def open_segment_size(connection: AsyncConnection) -> tuple[int, int]:
    """The open segment, and about how many events it holds, judged by the size of its index."""
    query = select(_columns.segment).where(_columns.close_time.is_(None))
    segment: int = (await connection.execute(query)).scalar_one()
    size = select(func.pg_relation_size(f"pk_events_{segment}"))
    index_bytes: int = (await connection.execute(size)).scalar_one()
    return segment, index_bytes // _KEY_BYTES


async def rotate(connection: AsyncConnection, full: int) -> bool:
    """Close segment `full` and open the next one; False when it is closed already.

    Waits for the transactions that write to it. asyncpg's LockNotAvailableError inside a
    DBAPIError when they take too long.
    """
    await connection.execute(text(f"SET LOCAL lock_timeout = {ROTATE_LOCK_TIMEOUT_MS}"))
    statement = text("SELECT rotate_event_segments(:full, now() + :offset)")
    values = {"full": full, "offset": clock.offset()}
    rotated: bool = (await connection.execute(statement, values)).scalar_one()
    return rotated


async def summarize_block_ranges(connection: AsyncConnection) -> int:
    """Bring the open segment's block ranges up to the newest full one; how many were added.

    asyncpg's LockNotAvailableError inside a DBAPIError: somebody else is busy with the table.
    """
    # Shorter than deadlock_timeout: a vacuum that we waited for longer would be cancelled.
    await connection.execute(text(f"SET LOCAL lock_timeout = {SUMMARIZE_LOCK_TIMEOUT_MS}"))
    query = select(_columns.segment).where(_columns.close_time.is_(None))
    segment: int = (await connection.execute(query)).scalar_one()
    index = f"ix_events_{segment}_batch_id_event_time"
    added: int = (
        await connection.execute(select(func.brin_summarize_new_values(index)))
    ).scalar_one()
    return added
