"""The SQL that counts what was accepted. Each function works inside the caller's transaction.

Ranges are of when events happened. Every segment is asked, by its block ranges or indexes.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.domain import Tenant


@dataclass(frozen=True, slots=True)
class EventRange:
    """Events that happened in [start, end); None: of all tenants, of all metrics."""

    start: datetime
    end: datetime
    tenant: Tenant | None = None
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class CountedHour:
    """What was accepted of a metric in an hour and is not void.

    `moving`: aggregator has not confirmed all of it, or all of its voids, yet.
    """

    tenant: Tenant
    metric: str
    hour: datetime
    event_count: int
    amount_sum: Decimal
    moving: bool


@dataclass(frozen=True, slots=True)
class FoundBatch:
    """A batch that holds some of the events, or voids of some."""

    batch_id: UUID
    accept_time: datetime


_WANTED = """
event_time >= :start AND event_time < :end
    AND (CAST(:organization_id AS uuid) IS NULL
        OR (organization_id = :organization_id AND mode = :mode))
    AND (CAST(:metric AS text) IS NULL OR metric = :metric)
"""

# What is not confirmed is few, and hashed once.
_COUNT = f"""
WITH unapplied AS MATERIALIZED (SELECT batch_id FROM event_batches WHERE apply_time IS NULL),
counted AS (
    SELECT organization_id, mode, metric,
        date_bin('1 hour', event_time, 'epoch'::timestamptz) AS hour,
        count(*) AS event_count, sum(amount) AS amount_sum,
        bool_or(batch_id IN (SELECT batch_id FROM unapplied)) AS moving
    FROM events WHERE {_WANTED} GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT organization_id, mode, metric,
        date_bin('1 hour', event_time, 'epoch'::timestamptz) AS hour,
        -count(*), -sum(amount), bool_or(batch_id IN (SELECT batch_id FROM unapplied))
    FROM event_voids WHERE {_WANTED} GROUP BY 1, 2, 3, 4
)
SELECT organization_id, mode, metric, hour, CAST(sum(event_count) AS bigint) AS event_count,
    sum(amount_sum) AS amount_sum, bool_or(moving) AS moving
FROM counted GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""  # noqa: S608 (no value is pasted in)

_FIND = f"""
SELECT batch_id, accept_time FROM event_batches WHERE batch_id IN (
    SELECT batch_id FROM events WHERE {_WANTED}
    UNION SELECT batch_id FROM event_voids WHERE {_WANTED}
) ORDER BY void_count > 0, accept_time, batch_id
"""  # noqa: S608 (no value is pasted in)


async def count_events(
    connection: AsyncConnection, wanted: EventRange, rows_at_a_time: int
) -> AsyncIterator[list[CountedHour]]:
    """By tenant, metric and hour; one statement, so all is of one moment."""
    async for rows in _stream(connection, _COUNT, wanted, rows_at_a_time):
        yield [
            CountedHour(
                Tenant(row.organization_id.bytes, row.mode),
                row.metric,
                row.hour,
                row.event_count,
                row.amount_sum,
                row.moving,
            )
            for row in rows
        ]


async def find_batches(
    connection: AsyncConnection, wanted: EventRange, rows_at_a_time: int
) -> AsyncIterator[list[FoundBatch]]:
    """Those of events before those of voids, each oldest first."""
    async for rows in _stream(connection, _FIND, wanted, rows_at_a_time):
        yield [FoundBatch(row.batch_id, row.accept_time) for row in rows]


async def _stream(
    connection: AsyncConnection, statement: str, wanted: EventRange, rows_at_a_time: int
) -> AsyncIterator[Sequence[Any]]:
    # Without this a table that was never analyzed is read as a whole.
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
    tenant = wanted.tenant
    values = {
        "start": wanted.start,
        "end": wanted.end,
        "organization_id": UUID(bytes=tenant.organization) if tenant else None,
        "mode": tenant.mode if tenant else None,
        "metric": wanted.metric,
    }
    result = await connection.stream(
        text(statement), values, execution_options={"yield_per": rows_at_a_time}
    )
    async for rows in result.partitions(rows_at_a_time):
        yield rows
