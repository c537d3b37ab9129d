"""How many events were counted, whatever the figures of their metrics are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import spans, usage_repository
from services.aggregator.usage_source import read_rolled_until
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldProblem, InvalidArgumentError

RANGE_MAX: Final = timedelta(days=31)
METRICS_MAX: Final = 1_000
_QUARTER: Final = timedelta(minutes=15)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Whole days and spans of four hours are read as such, what lies beside them from buckets.
_COUNT: Final = text(f"""
WITH own AS (
    SELECT counted_id AS metric_id, key FROM metrics
    WHERE organization_id = :organization_id AND mode = :mode AND key IS NOT NULL
), counted AS (
    SELECT metric_id, event_count FROM usage_rollups JOIN own USING (metric_id)
    WHERE span_hours = {spans.DAYS} AND span_start >= :days_start AND span_start < :days_end
    UNION ALL
    SELECT metric_id, event_count FROM usage_rollups JOIN own USING (metric_id)
    WHERE span_hours = {spans.BLOCKS}
        AND (span_start >= :blocks_start AND span_start < :days_start
            OR span_start >= :days_end AND span_start < :blocks_end)
    UNION ALL
    SELECT metric_id, event_count
    FROM usage_buckets JOIN series USING (series_id) JOIN own USING (metric_id)
    WHERE bucket_start >= :start AND bucket_start < :blocks_start
        OR bucket_start >= :blocks_end AND bucket_start < :end
)
SELECT key, CAST(sum(event_count) AS bigint) AS event_count
FROM counted JOIN own USING (metric_id) GROUP BY key
""")  # noqa: S608 (only constants are pasted in)


@dataclass(frozen=True, slots=True)
class Activity:
    """Events that happened in [start, end), of all metrics, and of those with the most by key."""

    start: datetime
    end: datetime
    event_count: int
    metrics: Sequence[tuple[str, int]]


class Activities:
    """Answers about activity, each from one snapshot of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(
        self, tenant: TenantKey, start: datetime | None, end: datetime | None
    ) -> Activity:
        """How many events there were. InvalidArgumentError names what is wrong with the range."""
        now = clock.now()
        start = start or now.replace(hour=0, minute=0, second=0, microsecond=0)
        end = _quarter_after(end or now)
        _check(start, end)
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            counts = await _counts(connection, tenant, start, end)
        most = sorted(counts, key=lambda each: (-each[1], each[0]))[:METRICS_MAX]
        return Activity(start, end, sum(count for _key, count in counts), sorted(most))


def _check(start: datetime, end: datetime) -> None:
    problems = []
    if (start - _EPOCH) % _QUARTER:
        problems.append(FieldProblem("from", "must be the start of a quarter of an hour"))
    if end < start or end - start > RANGE_MAX:
        problems.append(FieldProblem("to", f"must be up to {RANGE_MAX.days} days after from"))
    if problems:
        raise InvalidArgumentError(problems)


def _quarter_after(instant: datetime) -> datetime:
    return _EPOCH - (_EPOCH - instant) // _QUARTER * _QUARTER


async def _counts(
    connection: AsyncConnection, tenant: TenantKey, start: datetime, end: datetime
) -> list[tuple[str, int]]:
    parts = spans.cut(start, end, await read_rolled_until(connection))
    values = parts._asdict() | {
        "organization_id": tenant.organization_id,
        "mode": tenant.mode,
    }
    rows = await connection.execute(_COUNT, values)
    return [(row.key, row.event_count) for row in rows]
