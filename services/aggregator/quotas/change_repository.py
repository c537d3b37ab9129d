"""The SQL of quota_changes: what may have changed what is left of quotas, since a snapshot.

Each function works inside the caller's transaction.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

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
_FIND = """
SELECT CAST(pg_current_snapshot() AS text), definition_version, metric_ids, customer_ids
FROM fold_state LEFT JOIN quota_changes
    ON transaction_id >= CAST(CAST(pg_snapshot_xmin(CAST(CAST($1 AS text) AS pg_snapshot))
        AS text) AS bigint)
    AND NOT pg_visible_in_snapshot(CAST(CAST(transaction_id AS text) AS xid8),
        CAST(CAST($1 AS text) AS pg_snapshot))
"""


async def find_changes(driver: Any, seen: str | None) -> Changes:
    """What was committed since the snapshot `seen`; None: only which snapshot is now.

    `driver`: of Database.driving(); asyncpg has the statement prepared.
    """
    rows = await driver.fetch(_FIND, seen)
    snapshot, definition_version, *_ = rows[0]
    holders = {
        Holder(*holder)
        for _, _, metric_ids, customer_ids in rows
        if metric_ids is not None
        for holder in zip(metric_ids, customer_ids, strict=True)
    }
    return Changes(snapshot, definition_version, frozenset(holders))


# By the database's clock: some may be committed a while after they were written.
_PRUNE = text("""
DELETE FROM quota_changes WHERE create_time < now() - make_interval(secs => :keep_s)
""")


async def prune_changes(connection: AsyncConnection, keep_s: int) -> int:
    """Forget changes that all replicas have seen; returns how many."""
    return (await connection.execute(_PRUNE, {"keep_s": keep_s})).rowcount
