"""Usage of many customers, written into aggregator's database by SQL.

Of every ten customers one has events in each quarter of an hour of 30 days, 9 in each bucket; the
others 4 in each hour. 10,000 customers: 51.84 million events in 9.36 million buckets. The triggers
keep rollups meanwhile, as they do when events come late.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from benchmarks.errors import BenchmarkError

# Usage that no event stands behind would be taken out again, hour by hour, and each time all
# customers of the metric would have to be read again for CheckQuota.
WITHOUT_REPAIRS = {"USAGEFLOW_RECONCILE": "false"}
DAYS = 30
CUSTOMERS_AT_ONCE = 100
STATEMENT_S_MAX = 600.0
ROLLED_S_MAX = 300.0
POLL_S = 0.2
# asyncpg has no annotations.
connect: Any = asyncpg.connect

_SERIES = """
INSERT INTO series (metric_id, series_key, customer_id, dimensions)
SELECT metric_id, decode(md5(number::text), 'hex'), 'user_' || to_char(number, 'FM0000'), '{}'
FROM metrics, generate_series(0, $2::int - 1) AS number WHERE key = $1 ORDER BY number
"""
_BUCKETS = """
INSERT INTO usage_buckets (series_id, bucket_start, event_count, amount_sum, amount_min, amount_max,
    latest_time, latest_event_id, latest_value)
SELECT series_id, start, events, events, 1, 1, start, decode(md5(start::text), 'hex'), 1
FROM (
    SELECT series_id, number % 10 = 0 AS busy
    FROM generate_series($2::int, $3::int - 1) AS number JOIN series
        ON customer_id = 'user_' || to_char(number, 'FM0000')
    JOIN metrics USING (metric_id) WHERE key = $1
) AS customer,
LATERAL (SELECT CASE WHEN busy THEN 9 ELSE 4 END AS events) AS amount,
LATERAL generate_series($4::timestamptz, $5::timestamptz - interval '15 minutes',
    CASE WHEN busy THEN interval '15 minutes' ELSE interval '1 hour' END) AS start
ORDER BY series_id, start
"""
_TOTALS = """
SELECT count(*), sum(event_count) FROM usage_buckets JOIN series USING (series_id)
JOIN metrics USING (metric_id) WHERE key = $1
"""


@dataclass(frozen=True)
class Aggregated:
    """What was written: usage of [start, end), each event of amount 1."""

    metric: str
    customers: int
    start: datetime
    end: datetime
    buckets: int
    events: int


def aggregate(
    database_url: str, metric: str, customers: int, report: Callable[[str], None]
) -> Aggregated:
    """Write usage of a metric that is defined and has none."""
    return asyncio.run(_aggregate(database_url, metric, customers, report))


async def _aggregate(
    database_url: str, metric: str, customers: int, report: Callable[[str], None]
) -> Aggregated:
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = end - timedelta(days=DAYS)
    connection = await connect(database_url, command_timeout=STATEMENT_S_MAX)
    try:
        await connection.execute(_SERIES, metric, customers)
        for first in range(0, customers, CUSTOMERS_AT_ONCE):
            last = first + CUSTOMERS_AT_ONCE
            await connection.execute(_BUCKETS, metric, first, last, start, end)
        for table in ("series", "usage_buckets", "usage_rollups"):
            await connection.execute(f"VACUUM ANALYZE {table}")
        await _rolled_up(connection, end)
        buckets, events = await connection.fetchrow(_TOTALS, metric)
    finally:
        await connection.close()
    report(f"{int(events):,} events of {customers:,} customers in {buckets:,} buckets")
    return Aggregated(metric, customers, start, end, buckets, int(events))


async def _rolled_up(connection: Any, until: datetime) -> None:
    """Wait until all of it may be read from rollups."""
    for _ in range(round(ROLLED_S_MAX / POLL_S)):
        rolled_until: datetime = await connection.fetchval("SELECT rolled_until FROM rollup_state")
        # The last spans are rolled up an hour after their end.
        if rolled_until >= until - timedelta(hours=4):
            return
        await asyncio.sleep(POLL_S)
    raise BenchmarkError("usage is not rolled up")
