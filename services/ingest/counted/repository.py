"""The SQL that finds the events behind a figure."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, bindparam, text, types
from sqlalchemy.ext.asyncio import AsyncConnection

from services.ingest.domain import EventPosition, StoredEvent, Tenant
from services.ingest.repository import stored_event


@dataclass(frozen=True, slots=True)
class Boundary:
    """Batches accepted before `before`, and those with `batch_ids`."""

    before: datetime
    batch_ids: Sequence[UUID]


@dataclass(frozen=True, slots=True)
class CountedFilter:
    """A customer's events of a metric in [start, end) that are in one of two figures only."""

    tenant: Tenant
    metric: str
    customer_id: str
    start: datetime
    end: datetime
    until: Boundary
    since: Boundary | None


@dataclass(frozen=True, slots=True)
class CountedEvent:
    """An event; `taken_out`: it was in the earlier figure and is not in the later one."""

    event: StoredEvent
    taken_out: bool


def _counted(name: str) -> str:
    """Whether an event's batch was counted then and its void's was not."""
    return f"""coalesce(
        (b.accept_time < :{name}_before OR e.batch_id = ANY (:{name}_ids))
        AND (v.event_id IS NULL
            OR NOT (vb.accept_time < :{name}_before OR v.batch_id = ANY (:{name}_ids))), false)"""


# The condition with hashes follows from the one before it: closed segments have an index of them.
_OF_CUSTOMER = """
    FROM events e
    JOIN event_batches b ON b.batch_id = e.batch_id
    LEFT JOIN event_voids v ON v.event_id = e.event_id
    LEFT JOIN event_batches vb ON vb.batch_id = v.batch_id
    WHERE e.organization_id = :organization_id AND e.mode = :mode AND e.metric = :metric
        AND e.customer_id = :customer_id
        AND hashtextextended(e.customer_id, 0) = hashtextextended(:customer_id, 0)
        AND e.event_time >= :start AND e.event_time < :end
"""
_BOUND = (
    bindparam("organization_id", type_=types.UUID),
    bindparam("until_ids", type_=ARRAY(types.UUID)),
    bindparam("until_before", type_=types.DateTime(timezone=True)),
    bindparam("customer_id", type_=types.Text),
)

_LIST = text(
    f"""
    SELECT e.event_id, e.metric, CAST(e.amount AS text) AS amount, e.customer_id, e.event_time,
        e.metadata, b.accept_time, v.void_time, v.reason, NOT {_counted("until")} AS taken_out
    {_OF_CUSTOMER}
        AND (CAST(:after_time AS timestamptz) IS NULL
            OR (e.event_time, e.event_id) < (:after_time, :after_id))
        AND {_counted("until")} <> {_counted("since")}
    ORDER BY e.event_time DESC, e.event_id DESC LIMIT :limit
    """
).bindparams(
    *_BOUND,
    bindparam("since_ids", type_=ARRAY(types.UUID)),
    bindparam("since_before", type_=types.DateTime(timezone=True)),
    bindparam("after_time", type_=types.DateTime(timezone=True)),
    bindparam("after_id", type_=types.UUID),
)


# As above, of one figure: an event is in it when it is counted and its void is not.
_AMOUNTS = text(
    f"""
    SELECT CAST(e.amount AS text) AS amount
    {_OF_CUSTOMER}
        AND {_counted("until")}
    ORDER BY e.event_time, e.event_id
    """
).bindparams(*_BOUND)


# To a quarter of an hour, and whichever customer's and metric's they were: to note these of what is
# gone would take a row for each that there is.
_DROPPED = text("""
    SELECT EXISTS (
        SELECT FROM event_drops
        WHERE organization_id = ANY (:organizations) AND mode = :mode
            AND event_times && tstzrange(:start, greatest(:start, :end))
    )
""").bindparams(
    bindparam("organizations", type_=ARRAY(types.UUID)),
    bindparam("start", type_=types.DateTime(timezone=True)),
    bindparam("end", type_=types.DateTime(timezone=True)),
)
_EVERYBODY = UUID(int=0)


def _values(wanted: CountedFilter) -> dict[str, object]:
    return {
        "organization_id": UUID(bytes=wanted.tenant.organization),
        "mode": wanted.tenant.mode,
        "metric": wanted.metric,
        "customer_id": wanted.customer_id,
        "start": wanted.start,
        "end": wanted.end,
        "until_before": wanted.until.before,
        "until_ids": list(wanted.until.batch_ids),
    }


async def stream_counted_amounts(
    connection: AsyncConnection, wanted: CountedFilter, amounts_max: int
) -> AsyncGenerator[list[str]]:
    """The amounts of the events in the figure `wanted.until`, oldest first, at most `amounts_max`
    at a time: PostgreSQL sorts them, and a cursor there keeps memory here bounded.
    """
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
    values = _values(wanted)
    result = await connection.stream(_AMOUNTS, values, execution_options={"yield_per": amounts_max})
    found = result.partitions(amounts_max)
    async with aclosing(found) as parts:  # type: ignore[type-var] # it is a generator
        async for rows in parts:
            yield [row.amount for row in rows]


async def list_counted_events(
    connection: AsyncConnection, wanted: CountedFilter, after: EventPosition | None, limit: int
) -> list[CountedEvent]:
    """Up to `limit` of them, newest first, after position `after`."""
    # Without this a table that was never analyzed is read as a whole.
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
    since = wanted.since
    values = {
        **_values(wanted),
        "since_before": since.before if since else None,
        "since_ids": list(since.batch_ids) if since else [],
        "after_time": after.event_time if after else None,
        "after_id": UUID(bytes=after.event_id) if after else None,
        "limit": limit,
    }
    return [_counted_event(row) for row in await connection.execute(_LIST, values)]


async def are_dropped(connection: AsyncConnection, wanted: CountedFilter) -> bool:
    """Whether some of the events that were in either figure may be gone: some of the organization
    are that happened in the same quarters of an hour.
    """
    values = {
        "organizations": [UUID(bytes=wanted.tenant.organization), _EVERYBODY],
        "mode": wanted.tenant.mode,
        "start": wanted.start,
        "end": wanted.end,
    }
    dropped: bool = (await connection.execute(_DROPPED, values)).scalar_one()
    return dropped


def _counted_event(row: Row[Any]) -> CountedEvent:
    return CountedEvent(stored_event(row), row.taken_out)
