"""The SQL of reconciliation. Each function works inside the caller's transaction.

Buckets are locked in key order, as everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.reconciliation.domain import HOUR, NOTHING, Difference, HourKey, Totals

# Figures

_COUNT = """
SELECT organization_id, mode, key AS metric,
    date_bin('1 hour', bucket_start, 'epoch'::timestamptz) AS hour,
    CAST(sum(event_count) AS bigint) AS event_count, sum(amount_sum) AS amount_sum
FROM usage_buckets JOIN series USING (series_id) JOIN metrics ON counted_id = series.metric_id
WHERE bucket_start >= :start AND bucket_start < :end {only}
GROUP BY organization_id, mode, key, hour
"""
_COUNT_ALL = text(_COUNT.format(only=""))
_COUNT_METRIC = text(
    _COUNT.format(only="AND organization_id = :organization_id AND mode = :mode AND key = :metric")
)


async def count(
    connection: AsyncConnection, start: datetime, end: datetime
) -> dict[HourKey, Totals]:
    """What is counted of all metrics in the hours of [start, end)."""
    return _hours(await connection.execute(_COUNT_ALL, {"start": start, "end": end}))


async def count_hour(connection: AsyncConnection, key: HourKey) -> Totals:
    """What is counted of one metric's hour."""
    found = _hours(await connection.execute(_COUNT_METRIC, _named(key)))
    return found.get(key, NOTHING)


def _hours(rows: Any) -> dict[HourKey, Totals]:
    return {
        HourKey(row.organization_id, row.mode, row.metric, row.hour): Totals(
            row.event_count, row.amount_sum
        )
        for row in rows
    }


def _named(key: HourKey) -> dict[str, object]:
    return {
        "organization_id": key.organization_id,
        "mode": key.mode,
        "metric": key.metric,
        "start": key.hour,
        "end": key.hour + HOUR,
    }


# Recounts

# A bucket and the transaction that has written it last.
Versions = Mapping[tuple[int, datetime], str]

_VERSIONS = """
SELECT series_id, bucket_start, CAST(bucket.xmin AS text) AS version
FROM usage_buckets AS bucket JOIN series USING (series_id)
WHERE metric_id = :metric_id AND bucket_start >= :start AND bucket_start < :end
ORDER BY series_id, bucket_start
"""
_READ_VERSIONS = text(_VERSIONS)
_LOCK_VERSIONS = text(f"{_VERSIONS} FOR UPDATE OF bucket")

_DELETE = text("""
DELETE FROM usage_buckets AS bucket USING series
WHERE series.series_id = bucket.series_id AND metric_id = :metric_id
    AND bucket_start >= :start AND bucket_start < :end
""")

_ANY_RECOUNT = text("""
SELECT EXISTS (
    SELECT FROM bucket_recounts JOIN series USING (series_id)
    WHERE metric_id = :metric_id AND bucket_start >= :start AND bucket_start < :end
)
""")


async def versions(
    connection: AsyncConnection, metric_id: int, hour: datetime, *, lock: bool = False
) -> Versions:
    """All buckets of the metric's hour; every change of one gives it another version."""
    rows = await connection.execute(
        _LOCK_VERSIONS if lock else _READ_VERSIONS, _buckets(metric_id, hour)
    )
    return {(row.series_id, row.bucket_start): row.version for row in rows}


async def delete_buckets(connection: AsyncConnection, metric_id: int, hour: datetime) -> None:
    """Delete all buckets of the metric's hour, which the caller has locked, and their recounts."""
    await connection.execute(_DELETE, _buckets(metric_id, hour))


async def is_recounted(connection: AsyncConnection, metric_id: int, hour: datetime) -> bool:
    """Whether extremes of some of the hour's buckets are being found anew."""
    found: bool = (await connection.execute(_ANY_RECOUNT, _buckets(metric_id, hour))).scalar_one()
    return found


def _buckets(metric_id: int, hour: datetime) -> dict[str, object]:
    return {"metric_id": metric_id, "start": hour, "end": hour + HOUR}


# Progress


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reconciliation has got; None: it has not begun.

    All hours up to `closed_hour` were looked at after their end. The running sweep has begun at
    `sweep_start_time` and goes on with `sweep_hour`.
    """

    closed_hour: datetime | None
    sweep_hour: datetime | None
    sweep_start_time: datetime | None


_TAKE_LEASE = text("""
UPDATE reconciliation_state SET holder = :holder, lease_until = now() + CAST(:lease AS interval)
WHERE lease_until < now() OR holder = :holder
RETURNING closed_hour, sweep_hour, sweep_start_time
""")

_SAVE = text("""
UPDATE reconciliation_state SET closed_hour = :closed_hour, sweep_hour = :sweep_hour,
    sweep_start_time = :sweep_start_time
WHERE holder = :holder
""")


async def take_lease(connection: AsyncConnection, holder: str, lease: timedelta) -> Progress | None:
    """Keep other replicas off for `lease`; None: another one is at it."""
    row = (await connection.execute(_TAKE_LEASE, {"holder": holder, "lease": lease})).one_or_none()
    return None if row is None else Progress(*row)


async def save(connection: AsyncConnection, holder: str, progress: Progress) -> None:
    """Note how far the holder of the lease has got."""
    await connection.execute(
        _SAVE,
        {
            "holder": holder,
            "closed_hour": progress.closed_hour,
            "sweep_hour": progress.sweep_hour,
            "sweep_start_time": progress.sweep_start_time,
        },
    )


# Differences

_NOTE = text("""
INSERT INTO reconciliation_differences AS old (organization_id, mode, metric, hour, accepted_count,
    accepted_sum, counted_count, counted_sum, find_time, check_time)
VALUES (:organization_id, :mode, :metric, :hour, :accepted_count, :accepted_sum, :counted_count,
    :counted_sum, :now, :now)
ON CONFLICT (organization_id, mode, metric, hour) WHERE repair_time IS NULL DO UPDATE SET
    accepted_count = excluded.accepted_count, accepted_sum = excluded.accepted_sum,
    counted_count = excluded.counted_count, counted_sum = excluded.counted_sum,
    check_time = excluded.check_time
RETURNING find_time = check_time
""")

_CLOSE = text("""
UPDATE reconciliation_differences SET repair_time = :now
WHERE organization_id = :organization_id AND mode = :mode AND metric = :metric AND hour = :hour
    AND repair_time IS NULL
""")

_OPEN = text("""
SELECT organization_id, mode, metric, hour FROM reconciliation_differences
WHERE repair_time IS NULL ORDER BY check_time LIMIT :limit
""")

_COUNT_OPEN = text("SELECT count(*) FROM reconciliation_differences WHERE repair_time IS NULL")

_PRUNE = text("""
DELETE FROM reconciliation_differences WHERE difference_id = ANY (
    ARRAY(SELECT difference_id FROM reconciliation_differences WHERE repair_time < :before
        LIMIT :limit)
)
""")


async def note_difference(
    connection: AsyncConnection, difference: Difference, now: datetime
) -> bool:
    """Record a difference, or that an open one is still there; whether it is new."""
    noted = await connection.execute(
        _NOTE,
        {
            **_of_hour(difference.key),
            "accepted_count": difference.accepted.event_count,
            "accepted_sum": difference.accepted.amount_sum,
            "counted_count": difference.counted.event_count,
            "counted_sum": difference.counted.amount_sum,
            "now": now,
        },
    )
    return bool(noted.scalar_one())


async def close_difference(connection: AsyncConnection, key: HourKey, now: datetime) -> bool:
    """Note that there is no difference any more; False: there was none."""
    closed = await connection.execute(_CLOSE, {**_of_hour(key), "now": now})
    return bool(closed.rowcount)


async def open_differences(connection: AsyncConnection, limit: int) -> list[HourKey]:
    """Where there are differences, those first that were looked at longest ago."""
    return [HourKey(*row) for row in await connection.execute(_OPEN, {"limit": limit})]


async def count_open(connection: AsyncConnection) -> int:
    """How many hours of metrics differ, as far as is known."""
    return int((await connection.execute(_COUNT_OPEN)).scalar_one())


async def prune_differences(connection: AsyncConnection, before: datetime, limit: int) -> int:
    """Forget up to `limit` differences that were repaired before; how many."""
    pruned = await connection.execute(_PRUNE, {"before": before, "limit": limit})
    return int(pruned.rowcount)


def _of_hour(key: HourKey) -> dict[str, object]:
    return {
        "organization_id": key.organization_id,
        "mode": key.mode,
        "metric": key.metric,
        "hour": key.hour,
    }
