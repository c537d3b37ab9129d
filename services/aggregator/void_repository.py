"""The SQL of voids and recounts. Each function works inside the caller's transaction.

Locks are taken as in fold_repository.py, and of a bucket and its recount the bucket first.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, Exists, func, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.aggregations import KINDS
from services.aggregator.bucket import Bucket
from services.aggregator.metric_repository import MetricKey
from services.aggregator.tables import bucket_recounts, series
from services.aggregator.voids import BucketKey, Extremes, VoidableBucket, VoidableMetric
from services.kit.database import TenantKey

_SUBTRACTABLE = {"event_count", "amount_sum"}
_EPOCH = "'epoch'::timestamptz"

_FIND_METRICS = text("""
SELECT organization_id, mode, key, counted_id, metric_id, dimensions, aggregation, defined,
    counted_undefined, unique_by, percentiles
FROM metrics JOIN unnest(CAST(:organizations AS text[]), CAST(:modes AS text[]),
    CAST(:keys AS text[])) AS wanted (organization_id, mode, key) USING (organization_id, mode, key)
""")


async def find_metrics(
    connection: AsyncConnection, keys: Collection[MetricKey]
) -> dict[MetricKey, VoidableMetric]:
    """Those of the metrics that exist."""
    values = {
        "organizations": [key.organization_id for key in keys],
        "modes": [key.mode for key in keys],
        "keys": [key.key for key in keys],
    }
    return {
        MetricKey(row.organization_id, row.mode, row.key): _metric(row)
        for row in await connection.execute(_FIND_METRICS, values)
    }


# Of metrics whose definition changes: by what their voids are taken out besides, from voids_version
# on. Those before are read again from ingest.
_FIND_BUILT = text("""
SELECT rebuild_id, rebuild.metric_id, built.metric_id AS counted_id, built.dimensions,
    built.aggregation, built.defined, built.counted_undefined, built.unique_by, built.percentiles
FROM metric_rebuilds AS rebuild JOIN metrics AS built ON built.metric_id = building_id
WHERE state = 'VOIDS' AND rebuild.metric_id = ANY (CAST(:metric_ids AS bigint[]))
""")


@dataclass(frozen=True, slots=True)
class Built:
    """What a metric is being built by, and the metric's own id."""

    rebuild_id: int
    of_metric_id: int
    metric: VoidableMetric


async def find_built(connection: AsyncConnection, metric_ids: Collection[int]) -> list[Built]:
    """Of those of the metrics from which voids are taken out while they are built."""
    rows = await connection.execute(_FIND_BUILT, {"metric_ids": sorted(metric_ids)})
    return [Built(row.rebuild_id, row.metric_id, _metric(row)) for row in rows]


def _metric(row: Any) -> VoidableMetric:
    return VoidableMetric(
        metric_id=row.counted_id,
        dimensions=tuple(row.dimensions),
        needs_extremes=not row.defined or needs_extremes(row.aggregation),
        counted_undefined=row.counted_undefined,
        unique_by=row.unique_by,
        percentiles=row.percentiles,
        own_id=row.metric_id,
    )


def needs_extremes(aggregation: str) -> bool:
    """Whether figures of this aggregation are made of more than count and sum."""
    kind = KINDS.get(aggregation)
    return kind is None or not set(kind.PARTS) <= _SUBTRACTABLE


_LOCK_BUCKETS = text(f"""
SELECT series_id, quarter, event_count, amount_sum, extremes_exact,
    CASE WHEN extremes_exact THEN amount_min END AS amount_min,
    CASE WHEN extremes_exact THEN amount_max END AS amount_max,
    CASE WHEN extremes_exact
        THEN CAST(extract(epoch FROM latest_time) * 1000000 AS bigint) END AS latest_time_us,
    latest_event_id
FROM usage_buckets AS bucket
JOIN unnest(CAST(:series_ids AS bigint[]), CAST(:quarters AS bigint[]))
    AS wanted (series_id, quarter) USING (series_id)
WHERE bucket_start = {_EPOCH} + quarter * interval '15 minutes'
ORDER BY series_id, bucket_start
FOR UPDATE OF bucket
""")  # noqa: S608 (no value is pasted in)


async def lock_buckets(
    connection: AsyncConnection, wanted: Mapping[BucketKey, bool]
) -> dict[BucketKey, VoidableBucket]:
    """Those of the buckets that exist, locked; `wanted` tells whether extremes matter there."""
    rows = await connection.execute(_LOCK_BUCKETS, _columns_of(wanted))
    return {bucket.key: bucket for bucket in (_bucket(row, wanted) for row in rows)}


def _bucket(row: Any, wanted: Mapping[BucketKey, bool]) -> VoidableBucket:
    key = BucketKey(row.series_id, row.quarter)
    extremes = None
    if row.extremes_exact:
        extremes = Extremes(
            row.amount_min, row.amount_max, row.latest_time_us, bytes(row.latest_event_id)
        )
    return VoidableBucket(key, wanted[key], row.event_count, row.amount_sum, extremes)


def _columns_of(keys: Iterable[BucketKey]) -> dict[str, Any]:
    ordered = sorted(keys)
    return {
        "series_ids": [key.series_id for key in ordered],
        "quarters": [key.quarter for key in ordered],
    }


_SUBTRACT = text(f"""
UPDATE usage_buckets AS bucket SET event_count = new.event_count, amount_sum = new.amount_sum,
    extremes_exact = new.extremes_exact
FROM unnest(CAST(:series_ids AS bigint[]), CAST(:quarters AS bigint[]),
    CAST(:event_counts AS bigint[]), CAST(:sums AS numeric[]), CAST(:exact AS boolean[]))
    AS new (series_id, quarter, event_count, amount_sum, extremes_exact)
WHERE bucket.series_id = new.series_id
    AND bucket.bucket_start = {_EPOCH} + new.quarter * interval '15 minutes'
""")  # noqa: S608 (no value is pasted in)

_DELETE_EMPTY = text(f"""
DELETE FROM usage_buckets AS bucket
USING unnest(CAST(:series_ids AS bigint[]), CAST(:quarters AS bigint[]))
    AS gone (series_id, quarter)
WHERE bucket.series_id = gone.series_id
    AND bucket.bucket_start = {_EPOCH} + gone.quarter * interval '15 minutes'
""")  # noqa: S608 (no value is pasted in)

_MARK = text(f"""
INSERT INTO bucket_recounts AS old (series_id, bucket_start)
SELECT series_id, {_EPOCH} + quarter * interval '15 minutes'
FROM unnest(CAST(:series_ids AS bigint[]), CAST(:quarters AS bigint[])) AS new (series_id, quarter)
ORDER BY 1, 2
ON CONFLICT (series_id, bucket_start)
    DO UPDATE SET mark = excluded.mark, attempt_time = excluded.attempt_time
""")  # noqa: S608 (no value is pasted in)


async def write_buckets(connection: AsyncConnection, buckets: Collection[VoidableBucket]) -> int:
    """Store what was taken out of locked buckets; returns how many are to be counted anew."""
    left = {bucket.key: bucket for bucket in buckets if bucket.event_count > 0}
    empty = [bucket.key for bucket in buckets if bucket.event_count == 0]
    if left:
        ordered = [left[key] for key in sorted(left)]
        values = {
            **_columns_of(left),
            "event_counts": [bucket.event_count for bucket in ordered],
            "sums": [bucket.amount_sum for bucket in ordered],
            "exact": [bucket.extremes is not None for bucket in ordered],
        }
        await connection.execute(_SUBTRACT, values)
    if empty:
        # Its recount goes with it.
        await connection.execute(_DELETE_EMPTY, _columns_of(empty))
    marked = [bucket.key for bucket in buckets if bucket.to_be_recounted]
    if marked:
        await connection.execute(_MARK, _columns_of(marked))
    return len(marked)


# Recounts


@dataclass(frozen=True, slots=True)
class Recount:
    """A bucket that is to be counted anew, and what of."""

    series_id: int
    bucket_start: datetime
    tenant: TenantKey
    metric_key: str
    metric: VoidableMetric
    customer_id: str
    series_key: bytes


_FIND_DUE = text("""
SELECT recount.series_id, bucket_start, counted.organization_id, counted.mode, metric.key,
    metric.metric_id, counted.metric_id AS counted_id, counted.dimensions, counted.aggregation,
    counted.defined, counted.counted_undefined, counted.unique_by, counted.percentiles,
    customer_id, series_key
FROM bucket_recounts AS recount JOIN series USING (series_id)
JOIN metrics AS counted USING (metric_id)
JOIN metrics AS metric
    ON metric.metric_id = coalesce(counted.of_metric_id, counted.metric_id)
-- What a metric no longer counts by is about to be deleted.
WHERE attempt_time <= now() AND (
    counted.of_metric_id IS NOT NULL OR counted.counted_id = counted.metric_id
)
ORDER BY attempt_time, recount.series_id, bucket_start LIMIT :limit
""")


async def find_due_recounts(connection: AsyncConnection, limit: int) -> list[Recount]:
    """Up to `limit` buckets that nobody is counting anew."""
    return [
        Recount(
            series_id=row.series_id,
            bucket_start=row.bucket_start,
            tenant=TenantKey(row.organization_id, row.mode),
            metric_key=row.key,
            metric=_metric(row),
            customer_id=row.customer_id,
            series_key=bytes(row.series_key),
        )
        for row in await connection.execute(_FIND_DUE, {"limit": limit})
    ]


_LOCK_BUCKET = text("""
SELECT FROM usage_buckets WHERE series_id = :series_id AND bucket_start = :bucket_start FOR UPDATE
""")

_CLAIM = text("""
UPDATE bucket_recounts SET mark = DEFAULT, attempt_time = now() + CAST(:lease AS interval)
WHERE series_id = :series_id AND bucket_start = :bucket_start AND attempt_time <= now()
RETURNING mark
""")

# What changes no other value when it is combined with it: from here on the extremes are those of
# the events that are counted from here on.
_BEGIN_ANEW = text("""
UPDATE usage_buckets SET extremes_exact = false, amount_min = 'Infinity', amount_max = '-Infinity',
    latest_time = '-infinity', latest_event_id = '', latest_value = 0
WHERE series_id = :series_id AND bucket_start = :bucket_start
RETURNING event_count
""")


class Claim(NamedTuple):
    """A recount that is ours: its mark, and how many events its bucket had counted then."""

    mark: int
    event_count: int


async def claim_recount(
    connection: AsyncConnection, recount: Recount, lease: timedelta
) -> Claim | None:
    """Keep others off a recount for `lease`, and begin the bucket's extremes anew.

    None: somebody else has claimed it or is done with it. Every claim changes the mark, so of two
    that overlap only the later one can end.
    """
    key = {"series_id": recount.series_id, "bucket_start": recount.bucket_start}
    await connection.execute(_LOCK_BUCKET, key)
    mark: int | None = (
        await connection.execute(_CLAIM, {**key, "lease": lease})
    ).scalar_one_or_none()
    if mark is None:
        return None
    counted: int | None = (await connection.execute(_BEGIN_ANEW, key)).scalar_one_or_none()
    return Claim(mark, counted or 0)


_RELEASE = text("""
UPDATE bucket_recounts SET attempt_time = now() + CAST(:pause AS interval)
WHERE series_id = :series_id AND bucket_start = :bucket_start AND mark = :mark
""")


async def release_recount(
    connection: AsyncConnection, recount: Recount, mark: int, pause: timedelta
) -> None:
    """Let a claimed recount be claimed again after `pause`."""
    key = {"series_id": recount.series_id, "bucket_start": recount.bucket_start}
    await connection.execute(_RELEASE, {**key, "mark": mark, "pause": pause})


_END_RECOUNT = text("""
DELETE FROM bucket_recounts
WHERE series_id = :series_id AND bucket_start = :bucket_start AND mark = :mark
RETURNING mark
""")

_ADD_EXTREMES = text("""
UPDATE usage_buckets SET extremes_exact = true,
    amount_min = least(amount_min, :amount_min),
    amount_max = greatest(amount_max, :amount_max),
    latest_time = new.latest_time, latest_event_id = new.latest_event_id,
    latest_value = new.latest_value
FROM (
    SELECT latest_time, latest_event_id, latest_value FROM usage_buckets
    WHERE series_id = :series_id AND bucket_start = :bucket_start
    UNION ALL
    SELECT 'epoch'::timestamptz + CAST(:latest_time_us AS bigint) * interval '1 microsecond',
        CAST(:latest_event_id AS bytea), CAST(:latest_value AS numeric)
    ORDER BY 1 DESC, 2 DESC LIMIT 1
) AS new
WHERE series_id = :series_id AND bucket_start = :bucket_start
""")


async def end_recount(
    connection: AsyncConnection, recount: Recount, mark: int, found: Bucket
) -> bool:
    """Add the extremes that were `found`; False: the bucket was marked again, and nothing is done.

    They are then those of the events that were found and of all that were counted since the claim.
    """
    key = {"series_id": recount.series_id, "bucket_start": recount.bucket_start}
    await connection.execute(_LOCK_BUCKET, key)
    ended = await connection.execute(_END_RECOUNT, {**key, "mark": mark})
    if ended.scalar_one_or_none() is None:
        return False
    values = {
        **key,
        "amount_min": found.amount_min,
        "amount_max": found.amount_max,
        "latest_time_us": found.latest_time_us,
        "latest_event_id": found.latest_event_id,
        "latest_value": found.latest_value,
    }
    await connection.execute(_ADD_EXTREMES, values)
    return True


def any_recount(metric_ids: Sequence[int], start: datetime, end: datetime) -> Exists:
    """Whether a bucket of these metrics in [start, end) waits to be counted anew."""
    return (
        select(bucket_recounts.c.series_id)
        .join_from(bucket_recounts, series, series.c.series_id == bucket_recounts.c.series_id)
        .where(
            series.c.metric_id == func.any(literal(list(metric_ids), ARRAY(BigInteger))),
            bucket_recounts.c.bucket_start >= start,
            bucket_recounts.c.bucket_start < end,
        )
        # Of its own, whatever the statement around it reads.
        .correlate(None)
        .exists()
    )


async def count_recounts(connection: AsyncConnection) -> int:
    """How many buckets are to be counted anew."""
    count = await connection.execute(text("SELECT count(*) FROM bucket_recounts"))
    return int(count.scalar_one())
