"""Whether the rollups of a database are what its buckets come to."""

from typing import Any

from sqlalchemy import text

from services.kit.database import Database

_COLUMNS = """series_id, span_hours, span_start, metric_id, event_count, amount_sum,
    extremes_exact"""
# Extremes count only where they are exact.
_EXTREMES = "amount_min, amount_max, latest_time, latest_event_id, latest_value"
_SPANS = "(VALUES (4), (24)) AS spans (span_hours)"
# Plainly, and not as the database makes them.
_EXPECTED = f"""
SELECT series_id, span_hours, to_timestamp(floor(extract(epoch FROM bucket_start)
        / (span_hours * 3600)) * span_hours * 3600) AS span_start, metric_id,
    sum(event_count) AS event_count, sum(amount_sum) AS amount_sum,
    count(*) FILTER (WHERE NOT extremes_exact) = 0 AS extremes_exact,
    min(amount_min) AS amount_min, max(amount_max) AS amount_max,
    max(latest_time) AS latest_time
FROM usage_buckets JOIN series USING (series_id) CROSS JOIN {_SPANS}
GROUP BY 1, 2, 3, 4
HAVING to_timestamp(floor(extract(epoch FROM min(bucket_start)) / (span_hours * 3600))
    * span_hours * 3600) + span_hours * interval '1 hour'
    <= (SELECT kept_until FROM rollup_state)
"""
_LATEST = """
SELECT DISTINCT ON (series_id, span_hours, span_start) series_id, span_hours, span_start,
    bucket.latest_event_id, bucket.latest_value
FROM expected JOIN usage_buckets AS bucket USING (series_id)
WHERE bucket_start >= span_start AND bucket_start < span_start + span_hours * interval '1 hour'
ORDER BY series_id, span_hours, span_start, bucket.latest_time DESC, bucket.latest_event_id DESC
"""
_DIFFERENCES = f"""
WITH expected AS ({_EXPECTED}), latest AS ({_LATEST}), whole AS (
    SELECT {_COLUMNS}, CASE WHEN extremes_exact THEN ({_EXTREMES})::text END AS extremes
    FROM expected JOIN latest USING (series_id, span_hours, span_start)
), kept AS (
    SELECT {_COLUMNS}, CASE WHEN extremes_exact THEN ({_EXTREMES})::text END AS extremes
    FROM usage_rollups
)
(SELECT 'missing', * FROM whole EXCEPT ALL SELECT 'missing', * FROM kept)
UNION ALL (SELECT 'wrong', * FROM kept EXCEPT ALL SELECT 'wrong', * FROM whole)
"""


async def rollup_differences(database: Database) -> list[Any]:
    """Spans before kept_until that are missing or wrong. Only when no pass is half done."""
    async with database.transaction() as connection:
        return list(await connection.execute(text(_DIFFERENCES)))
