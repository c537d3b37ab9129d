"""Streams stored events: what usage is counted anew from.

One statement reads them by a cursor on the server, so that memory stays bounded however many there
are, and so that all of them are of one moment.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Row, Select, Text, cast, func, select, text
from usageflow.events.v1 import events_pb2

from services.ingest.domain import Tenant
from services.ingest.tables import event_voids, events
from services.kit.database import Database

EVENTS_PER_MESSAGE_MAX = 2_000
# Each holds one of the pool's connections for as long as its caller reads; others wait their turn.
REPLAYS_RUNNING_MAX = 2


@dataclass(frozen=True, slots=True)
class ReplayFilter:
    """Which events to stream; None: no such limit. `customer_id` "": those that name none."""

    tenant: Tenant
    metric: str
    customer_id: str | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None


class Replays:
    """Answers replays, a few at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running = asyncio.Semaphore(REPLAYS_RUNNING_MAX)

    async def replay(self, wanted: ReplayFilter) -> AsyncGenerator[list[events_pb2.UsageEvent]]:
        """The events that are not void, each once, in no order, as of one moment.

        At most EVENTS_PER_MESSAGE_MAX at a time, never none. UnavailableError also when the caller
        takes longer than a minute between two: PostgreSQL ends an idle transaction then.
        """
        async with self._running, self._database.transaction() as connection:
            if wanted.from_time is not None:
                # Without this a table that was never analyzed is read as a whole.
                await connection.execute(text("SET LOCAL enable_seqscan = off"))
            result = await connection.stream(
                _query(wanted), execution_options={"yield_per": EVENTS_PER_MESSAGE_MAX}
            )
            async with aclosing(result.partitions(EVENTS_PER_MESSAGE_MAX)) as parts:
                async for rows in parts:
                    yield _messages(rows)


def _query(wanted: ReplayFilter) -> Select[Any]:
    columns = events.c
    micros = cast(func.extract("epoch", columns.event_time) * 1_000_000, BigInteger)
    query = select(
        columns.event_id,
        cast(columns.amount, Text).label("amount"),
        columns.customer_id,
        micros.label("time_micros"),
        columns.metric,
        columns.metadata,
    ).where(
        columns.organization_id == UUID(bytes=wanted.tenant.organization),
        columns.mode == wanted.tenant.mode,
        columns.metric == wanted.metric,
        ~select(event_voids).where(event_voids.c.event_id == columns.event_id).exists(),
    )
    if wanted.customer_id is not None:
        # Never '' in the table; "= NULL" would be true of none.
        query = query.where(
            columns.customer_id == wanted.customer_id
            if wanted.customer_id
            else columns.customer_id.is_(None)
        )
    if wanted.from_time is not None:
        query = query.where(columns.event_time >= wanted.from_time)
    if wanted.to_time is not None:
        query = query.where(columns.event_time < wanted.to_time)
    return query


def _messages(rows: Sequence[Row[Any]]) -> list[events_pb2.UsageEvent]:
    return [
        events_pb2.UsageEvent(
            event_id=row.event_id.bytes,
            metric=row.metric,
            amount=row.amount,
            customer_id=row.customer_id or "",
            time_unix_micros=row.time_micros,
            metadata_json=row.metadata or "",
        )
        for row in rows
    ]
