"""The SQL that deletes what no metric counts by any more, inside the caller's transaction."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# A transaction that knows it as what a metric counts by may be running for a while after the end.
_FIND_LEFT_OVER = text("""
SELECT metric_id FROM metrics AS old
WHERE NOT EXISTS (SELECT FROM metrics AS metric WHERE metric.counted_id = old.metric_id)
    AND (key IS NULL OR EXISTS (SELECT FROM series WHERE series.metric_id = old.metric_id))
    AND NOT EXISTS (
        SELECT FROM metric_rebuilds AS rebuild
        WHERE rebuild.metric_id = coalesce(old.of_metric_id, old.metric_id)
            AND (end_time > :before OR end_time IS NULL AND building_id = old.metric_id)
    )
ORDER BY metric_id LIMIT 1
""")

_DELETE_BUCKETS = text("""
WITH piece AS (
    SELECT series_id, bucket_start FROM series JOIN usage_buckets USING (series_id)
    WHERE metric_id = :metric_id LIMIT :limit
)
DELETE FROM usage_buckets AS bucket USING piece
WHERE bucket.series_id = piece.series_id AND bucket.bucket_start = piece.bucket_start
""")

_DELETE_SERIES = text("""
DELETE FROM series WHERE series_id = ANY (
    ARRAY(SELECT series_id FROM series WHERE metric_id = :metric_id LIMIT :limit)
)
""")

_DELETE_VALUES = text("DELETE FROM dimension_values WHERE metric_id = :metric_id")
_DELETE_METRIC = text("DELETE FROM metrics WHERE metric_id = :metric_id AND key IS NULL")


async def find_left_over(connection: AsyncConnection, before: datetime) -> int | None:
    """Under what something was counted that no metric counts by since `before`."""
    found: int | None = (
        await connection.execute(_FIND_LEFT_OVER, {"before": before})
    ).scalar_one_or_none()
    return found


async def delete_left_over(connection: AsyncConnection, metric_id: int, limit: int) -> bool:
    """Delete up to `limit` rows of it; whether that was all."""
    values = {"metric_id": metric_id, "limit": limit}
    for statement in (_DELETE_BUCKETS, _DELETE_SERIES):
        if (await connection.execute(statement, values)).rowcount:
            return False
    await connection.execute(_DELETE_VALUES, {"metric_id": metric_id})
    await connection.execute(_DELETE_METRIC, {"metric_id": metric_id})
    return True
