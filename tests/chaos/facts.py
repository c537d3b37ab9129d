"""What the databases hold after a campaign, as the checker sees it."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from cli.databases import connected
from tests.chaos.journal import METADATA_KEY

ROWS_A_FETCH = 5_000
QUARTER = timedelta(minutes=15)
MODES = {1: "live", 2: "test"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EVENTS = """
SELECT events.event_id, events.organization_id, events.mode, events.metric, events.amount,
    events.customer_id, events.event_time, events.metadata, event_voids.event_id IS NOT NULL AS void
FROM events LEFT JOIN event_voids USING (event_id)
"""
_BUCKETS = """
SELECT organization_id, mode, key, customer_id, bucket_start, event_count, amount_sum, amount_min,
    amount_max, latest_value, extremes_exact
FROM usage_buckets JOIN series USING (series_id) JOIN metrics USING (metric_id)
"""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A raw event. `attempt`: the number of the attempt that it came from; 0: of no campaign."""

    attempt: int
    event_id: bytes
    tenant: str
    metric: str
    amount: Fraction
    customer: str
    time: datetime
    void: bool = False

    @property
    def cell(self) -> "Cell":
        """Where it is to be counted."""
        quarter = _EPOCH + (self.time - _EPOCH) // QUARTER * QUARTER
        return Cell(self.tenant, self.metric, self.customer, quarter)


class Cell(NamedTuple):
    """What is counted apart."""

    tenant: str
    metric: str
    customer: str
    quarter: datetime


@dataclass(frozen=True, slots=True)
class Count:
    """The usage of a cell.

    `extremes`: the smallest and the largest amount, and that of the event that happened last; None
    while aggregator finds them anew.
    """

    events: int
    total: Fraction
    extremes: tuple[Fraction, ...] | None


Counts = Mapping[Cell, Count]


async def read_events(database_url: str) -> AsyncIterator[StoredEvent]:
    """All raw events, in no order."""
    async with connected(database_url) as connection, connection.transaction(readonly=True):
        async for row in connection.cursor(_EVENTS, prefetch=ROWS_A_FETCH):
            yield _stored_event(row)


async def read_counts(database_url: str) -> dict[Cell, Count]:
    """All aggregated usage. AssertionError when a cell is there twice."""
    counts: dict[Cell, Count] = {}
    async with connected(database_url) as connection, connection.transaction(readonly=True):
        async for row in connection.cursor(_BUCKETS, prefetch=ROWS_A_FETCH):
            tenant = f"{row['organization_id']}/{row['mode']}"
            cell = Cell(tenant, row["key"], row["customer_id"], row["bucket_start"])
            assert cell not in counts, f"{cell} is there twice"
            counts[cell] = _count(row)
    return counts


def _count(row: Any) -> Count:
    names = ("amount_min", "amount_max", "latest_value")
    extremes = tuple(Fraction(row[name]) for name in names) if row["extremes_exact"] else None
    return Count(row["event_count"], Fraction(row["amount_sum"]), extremes)


async def read_customers(database_url: str) -> set[tuple[str, str]]:
    """Tenants and ids of the customers that invoicer knows."""
    query = "SELECT organization_id || '/' || mode, id FROM customers"
    async with connected(database_url) as connection:
        return {tuple(row) for row in await connection.fetch(query)}


async def count_stored(database_url: str) -> tuple[int, int]:
    """How many events and voids there are."""
    query = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM event_voids)"
    async with connected(database_url) as connection:
        events, voids = await connection.fetchrow(query)
        return events, voids


async def count_segments(database_url: str) -> int:
    """Into how many segments the raw events were written, one after the other."""
    async with connected(database_url) as connection:
        segments: int = await connection.fetchval("SELECT count(*) FROM event_segments")
        return segments


async def database_time(database_url: str) -> datetime:
    """What PostgreSQL's clock says."""
    async with connected(database_url) as connection:
        now: datetime = await connection.fetchval("SELECT now()")
        return now


def _stored_event(row: Any) -> StoredEvent:
    metadata = json.loads(row["metadata"] or "{}")
    return StoredEvent(
        attempt=int(metadata.get(METADATA_KEY, 0)),
        event_id=row["event_id"].bytes,
        tenant=f"org_{row['organization_id'].hex}/{MODES[row['mode']]}",
        metric=row["metric"],
        amount=Fraction(row["amount"]),
        customer=row["customer_id"] or "",
        time=row["event_time"],
        void=row["void"],
    )
