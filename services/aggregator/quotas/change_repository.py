"""The SQL of quota_changes: what may have changed what is left of quotas, since a snapshot.

Each function works inside the caller's transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.quotas.repository import Holder

# Far longer than between two looks of a replica (checking.LOOK_PAUSE_MAX_S) and any transaction.
CHANGES_KEEP_S = 600


@dataclass(frozen=True, slots=True)
class Changes:
    """Whose quotas were changed by what has been committed since a snapshot, as of a later one.

    A holder without a customer stands for all of the metric. `definition_version`: as of then.
    """

    snapshot: str
    definition_version: int
    holders: frozenset[Holder]


_NOTE = text("""
INSERT INTO quota_changes (metric_ids, customer_ids)
VALUES (CAST(:metric_ids AS bigint[]), CAST(:customer_ids AS text[]))
""")


async def note_changes(connection: AsyncConnection, holders: Collection[Holder]) -> None:
    """Usage of these has changed in this transaction."""
    ordered = sorted(holders)
    values = {
        "metric_ids": [holder.metric_id for holder in ordered],
        "customer_ids": [holder.customer_id for holder in ordered],
    }
    await connection.execute(_NOTE, values)


# One statement, so one snapshot: what it does not see is in the answer of the next.
_FIND = text("""
SELECT CAST(pg_current_snapshot() AS text), definition_version, metric_ids, customer_ids
FROM fold_state LEFT JOIN quota_changes
    ON transaction_id >= CAST(CAST(pg_snapshot_xmin(CAST(CAST(:seen AS text) AS pg_snapshot))
        AS text) AS bigint)
    AND NOT pg_visible_in_snapshot(CAST(CAST(transaction_id AS text) AS xid8),
        CAST(CAST(:seen AS text) AS pg_snapshot))
""")


async def find_changes(connection: AsyncConnection, seen: str | None) -> Changes:
    """What was committed since the snapshot `seen`; None: only which snapshot is now."""
    rows = (await connection.execute(_FIND, {"seen": seen})).all()
    holders = {
        Holder(*holder)
        for row in rows
        if row.metric_ids is not None
        for holder in zip(row.metric_ids, row.customer_ids, strict=True)
    }
    return Changes(rows[0][0], rows[0].definition_version, frozenset(holders))


# By the database's clock: some may be committed a while after they were written.
_PRUNE = text("""
DELETE FROM quota_changes WHERE create_time < now() - make_interval(secs => :keep_s)
""")


async def prune_changes(connection: AsyncConnection, keep_s: int) -> int:
    """Forget changes that all replicas have seen; returns how many."""
    return (await connection.execute(_PRUNE, {"keep_s": keep_s})).rowcount
