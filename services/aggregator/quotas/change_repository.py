"""The SQL of quota_changes: what has changed what is left of quotas, since a snapshot.

Each function works inside the caller's transaction.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.arrays import array_text
from services.aggregator.quotas.repository import Holder
from services.aggregator.quotas.threshold_repository import Touch

# Far longer than between two looks of a replica (checking.LOOK_PAUSE_MAX_S) and any transaction.
CHANGES_KEEP_S = 600


class Snapshot:
    """What a transaction sees, from the text of a pg_snapshot: "xmin:xmax:xip,xip"."""

    __slots__ = ("_running", "_xmax", "_xmin", "text")

    def __init__(self, snapshot: str) -> None:
        self.text = snapshot
        xmin, xmax, running = snapshot.split(":")
        self._xmin, self._xmax = int(xmin), int(xmax)
        self._running = frozenset(map(int, running.split(","))) if running else frozenset()

    def sees(self, transaction_id: int) -> bool:
        """Whether what this transaction has committed is seen."""
        if transaction_id < self._xmin:
            return True
        return transaction_id < self._xmax and transaction_id not in self._running


class Growth(NamedTuple):
    """What a quarter of an hour has more."""

    event_count: int
    amount_sum: Decimal


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction has changed, in columns: usage that has grown by so much, in the quarters
    of an hour (numbers since 1970); or anything (`quarters` None), of all customers of the metric
    where the customer is "".
    """

    transaction_id: int
    metric_ids: Sequence[int]
    customer_ids: Sequence[str]
    quarters: Sequence[int] | None
    event_counts: Sequence[int] = ()
    amount_sums: Sequence[Decimal] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What has been committed since a snapshot, as of a later one. `definition_version`: as of
    then.
    """

    snapshot: Snapshot
    definition_version: int
    changes: Sequence[Change]


_NOTE = text("""
INSERT INTO quota_changes (metric_ids, customer_ids)
VALUES (CAST(:metric_ids AS bigint[]), CAST(:customer_ids AS text[]))
""")


async def note_changes(connection: AsyncConnection, holders: Collection[Holder]) -> None:
    """Anything of these may have changed in this transaction."""
    ordered = sorted(holders)
    values = {
        "metric_ids": [holder.metric_id for holder in ordered],
        "customer_ids": [holder.customer_id for holder in ordered],
    }
    await connection.execute(_NOTE, values)


_NOTE_GROWTH = text("""
INSERT INTO quota_changes (metric_ids, customer_ids, quarters, event_counts, amount_sums)
VALUES (CAST(CAST(:metric_ids AS text) AS bigint[]), CAST(:customer_ids AS text[]),
    CAST(CAST(:quarters AS text) AS bigint[]), CAST(CAST(:event_counts AS text) AS bigint[]),
    CAST(CAST(:amount_sums AS text) AS numeric[]))
""")


async def note_growth(connection: AsyncConnection, grown: Mapping[Touch, Growth]) -> None:
    """So much usage has been added in this transaction, and nothing else has changed."""
    values = {
        "metric_ids": array_text(touch.metric_id for touch in grown),
        "customer_ids": [touch.customer_id for touch in grown],
        "quarters": array_text(touch.quarter for touch in grown),
        "event_counts": array_text(growth.event_count for growth in grown.values()),
        "amount_sums": array_text(growth.amount_sum for growth in grown.values()),
    }
    await connection.execute(_NOTE_GROWTH, values)


# One statement, so one snapshot: what it does not see is in the answer of the next.
_FIND = """
SELECT CAST(pg_current_snapshot() AS text), definition_version, transaction_id, metric_ids,
    customer_ids, quarters, event_counts, amount_sums
FROM fold_state LEFT JOIN quota_changes
    ON transaction_id >= CAST(CAST(pg_snapshot_xmin(CAST(CAST($1 AS text) AS pg_snapshot))
        AS text) AS bigint)
    AND NOT pg_visible_in_snapshot(CAST(CAST(transaction_id AS text) AS xid8),
        CAST(CAST($1 AS text) AS pg_snapshot))
"""


async def find_changes(driver: Any, seen: Snapshot | None) -> Changes:
    """What was committed since the snapshot `seen`; None: only which snapshot is now.

    `driver`: of Database.driving(); asyncpg has the statement prepared.
    """
    rows = await driver.fetch(_FIND, seen.text if seen else None)
    snapshot, definition_version, *_ = rows[0]
    changes = [Change(*row[2:]) for row in rows if row[2] is not None]
    return Changes(Snapshot(snapshot), definition_version, changes)


_READ_STATE = text("""
SELECT CAST(pg_current_snapshot() AS text) AS snapshot, definition_version FROM fold_state
""")


async def read_state(connection: AsyncConnection) -> Changes:
    """What the caller's transaction sees, which has one snapshot for all of its statements."""
    row = (await connection.execute(_READ_STATE)).one()
    return Changes(Snapshot(row.snapshot), row.definition_version, [])


# By the database's clock: some may be committed a while after they were written.
_PRUNE = text("""
DELETE FROM quota_changes WHERE create_time < now() - make_interval(secs => :keep_s)
""")


async def prune_changes(connection: AsyncConnection, keep_s: int) -> int:
    """Forget changes that all replicas have seen; returns how many."""
    return (await connection.execute(_PRUNE, {"keep_s": keep_s})).rowcount
