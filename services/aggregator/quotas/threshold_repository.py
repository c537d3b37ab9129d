"""The SQL of thresholds. Each function works inside the caller's transaction."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.quotas.domain import Customer
from services.kit.database import TenantKey


class Touch(NamedTuple):
    """Usage of a metric that has quotas has grown in a quarter of an hour (number since 1970)."""

    metric_id: int
    customer_id: str
    quarter: int


_INSERT_TOUCHES = text("""
INSERT INTO quota_touches (metric_id, customer_id, bucket_start)
SELECT metric_id, customer_id, 'epoch'::timestamptz + quarter * interval '15 minutes'
FROM unnest(CAST(:metric_ids AS bigint[]), CAST(:customers AS text[]), CAST(:quarters AS bigint[]))
    AS touched (metric_id, customer_id, quarter)
""")


async def insert_touches(connection: AsyncConnection, touches: Collection[Touch]) -> None:
    """Note what has grown in this transaction. Nothing is locked: rows are only ever added."""
    values = {
        "metric_ids": [touch.metric_id for touch in touches],
        "customers": [touch.customer_id for touch in touches],
        "quarters": [touch.quarter for touch in touches],
    }
    await connection.execute(_INSERT_TOUCHES, values)


# A fold that began before the quota was set may not know of it: what it adds is looked at later.
_TOUCH_AFTER_SETTING = text("""
INSERT INTO quota_touches (metric_id, customer_id, bucket_start, due_time)
SELECT CAST(:metric_id AS bigint), customer_id, CAST(:now AS timestamptz), now() + delay
FROM (
    SELECT CAST(:customer_id AS text) AS customer_id WHERE CAST(:customer_id AS text) <> ''
    UNION
    SELECT customer_id FROM series
    WHERE metric_id = (SELECT counted_id FROM metrics WHERE metric_id = CAST(:metric_id AS bigint))
        AND customer_id <> ''
        AND CAST(:customer_id AS text) = ''
) AS limited, unnest(ARRAY[interval '0', CAST(:delay AS interval)]) AS delay
""")


async def touch_after_setting(
    connection: AsyncConnection, metric_id: int, customer_id: str, now: datetime, delay: timedelta
) -> None:
    """A quota was set, of a customer or ("") of all: look now, and once more after `delay`."""
    values = {"metric_id": metric_id, "customer_id": customer_id, "now": now, "delay": delay}
    await connection.execute(_TOUCH_AFTER_SETTING, values)


_TAKE_TOUCHES = text("""
WITH due AS (
    SELECT touch_id FROM quota_touches WHERE due_time <= now()
    ORDER BY touch_id LIMIT :rows_max FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM quota_touches USING due WHERE quota_touches.touch_id = due.touch_id
    RETURNING metric_id, customer_id, bucket_start
)
SELECT organization_id, mode, key, customer_id, array_agg(DISTINCT bucket_start) AS instants,
    count(*) AS touches
FROM taken JOIN metrics USING (metric_id)
GROUP BY organization_id, mode, key, customer_id
""")


@dataclass(frozen=True, slots=True)
class Touched:
    """A customer, and when usage of theirs has grown."""

    customer: Customer
    instants: Sequence[datetime]
    touches: int


async def take_touches(connection: AsyncConnection, rows_max: int) -> list[Touched]:
    """Take up to `rows_max` that are due off the queue; those that others are taking are left."""
    return [
        Touched(
            Customer(TenantKey(row.organization_id, row.mode), row.key, row.customer_id),
            row.instants,
            row.touches,
        )
        for row in await connection.execute(_TAKE_TOUCHES, {"rows_max": rows_max})
    ]


class Reached(NamedTuple):
    """A threshold that the usage of a customer has reached in a period."""

    quota_id: str
    customer_id: str
    period_start: datetime
    threshold: str
    period_end: datetime


_INSERT_REACHED = text("""
INSERT INTO quota_thresholds_reached
    (quota_id, customer_id, period_start, threshold, period_end)
SELECT * FROM unnest(CAST(:quota_ids AS text[]), CAST(:customers AS text[]),
    CAST(:starts AS timestamptz[]), CAST(:thresholds AS text[]), CAST(:ends AS timestamptz[]))
    AS reached (quota_id, customer_id, period_start, threshold, period_end)
ORDER BY quota_id COLLATE "C", customer_id COLLATE "C", period_start, threshold COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING quota_id, customer_id, period_start, threshold, period_end
""")


async def insert_reached(connection: AsyncConnection, reached: Iterable[Reached]) -> set[Reached]:
    """Record thresholds; returns those that were not recorded before."""
    rows = list(reached)
    values = {
        "quota_ids": [row.quota_id for row in rows],
        "customers": [row.customer_id for row in rows],
        "starts": [row.period_start for row in rows],
        "thresholds": [row.threshold for row in rows],
        "ends": [row.period_end for row in rows],
    }
    return {Reached(*row) for row in await connection.execute(_INSERT_REACHED, values)}


_PRUNE = text("""
WITH old AS (
    SELECT quota_id, customer_id, period_start, threshold FROM quota_thresholds_reached
    WHERE period_end < :before ORDER BY period_end LIMIT :rows_max FOR UPDATE SKIP LOCKED
)
DELETE FROM quota_thresholds_reached AS pruned USING old
WHERE (pruned.quota_id, pruned.customer_id, pruned.period_start, pruned.threshold)
    = (old.quota_id, old.customer_id, old.period_start, old.threshold)
""")


async def prune_reached(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget up to `rows_max` of periods that ended before; returns how many."""
    values = {"before": before, "rows_max": rows_max}
    return (await connection.execute(_PRUNE, values)).rowcount
