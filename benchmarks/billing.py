"""Customers on a plan and months of their usage, written by SQL.

Each customer has usage of each metric every second day: what matters to billing is how many rows a
period has, not how many events. Subscriptions began with the first month; the last one is not
invoiced yet.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg

METRICS = 3
MONTHS = 3
DAYS_APART = 2
# In each bucket, of amount 1.
EVENTS = 10
CUSTOMERS_AT_ONCE = 100
STATEMENT_S_MAX = 600.0
# asyncpg has no annotations.
connect: Any = asyncpg.connect

_SERIES = """
INSERT INTO series (metric_id, series_key, customer_id, dimensions)
SELECT metric_id, decode(md5(number::text), 'hex'), 'user_' || to_char(number, 'FM00000'), '{}'
FROM metrics, generate_series(0, $2::int - 1) AS number
WHERE key = ANY ($1) ORDER BY number, metric_id
"""
_BUCKETS = """
INSERT INTO usage_buckets (series_id, bucket_start, event_count, amount_sum, amount_min, amount_max,
    latest_time, latest_event_id, latest_value)
SELECT series_id, start, $6::int, $6::int, 1, 1, start, decode(md5(start::text), 'hex'), 1
FROM generate_series($2::int, $3::int - 1) AS number
JOIN series ON customer_id = 'user_' || to_char(number, 'FM00000')
JOIN metrics USING (metric_id),
LATERAL generate_series(
    $4::timestamptz, $5::timestamptz - interval '1 second', make_interval(days => $7)
) AS start
WHERE key = ANY ($1)
ORDER BY series_id, start
"""
_CUSTOMERS = """
INSERT INTO customers
    (organization_id, mode, id, name, email, time_zone, metadata_json, create_time)
SELECT organization_id, mode, 'user_' || to_char(number, 'FM00000'), '', '', 'UTC', '', $2
FROM plans, generate_series(0, $3::int - 1) AS number WHERE id = $1
"""
_SUBSCRIPTIONS = """
INSERT INTO subscriptions (organization_id, mode, id, customer_id, plan_id, plan_version, status,
    billing_anchor, billing_period, time_zone, start_time, period_start, period_end, create_time)
SELECT organization_id, mode, 'sub_' || md5(number::text),
    'user_' || to_char(number, 'FM00000'), id, 1, 'ACTIVE', 'CALENDAR', 'MONTHLY', 'UTC',
    $2, $3, $4, $2
FROM plans, generate_series(0, $5::int - 1) AS number WHERE id = $1
"""
_PHASES = """
INSERT INTO subscription_phases (organization_id, mode, subscription_id, start_time, end_time, kind,
    plan_id, plan_version, billing_period, anchor_time, quantity, create_time)
SELECT organization_id, mode, id, start_time, NULL, 'BILLED', plan_id, 1, 'MONTHLY', start_time, 1,
    start_time
FROM subscriptions WHERE plan_id = $1
"""
_INVOICES = """
SELECT count(*) AS written, coalesce(sum(amount), 0)::text AS amount,
    coalesce(extract(epoch FROM max(finalize_time) - min(finalize_time)), 0)::float8 AS seconds
FROM invoices WHERE kind = 'PERIOD' AND status = 'PENDING'
"""


@dataclass(frozen=True)
class Billed:
    """What was written: customers on a plan, and where months begin. The plan began with the first;
    the last one is the end of the month that is to be closed.
    """

    customers: int
    metrics: tuple[str, ...]
    starts: tuple[datetime, ...]

    @property
    def used(self) -> list[int]:
        """What each customer has used of each metric in each month."""
        step = timedelta(days=DAYS_APART)
        count = (self.starts[-1] - self.starts[0]) // timedelta(days=1)
        times = [self.starts[0] + each * step for each in range(-(-count // DAYS_APART))]
        return [
            EVENTS * sum(start <= time < end for time in times)
            for start, end in pairwise(self.starts)
        ]


def month_starts() -> tuple[datetime, ...]:
    """Of MONTHS whole months, and the end of the last."""
    this = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    numbers = range(this.year * 12 + this.month - 1 - MONTHS, this.year * 12 + this.month)
    return tuple(this.replace(year=each // 12, month=each % 12 + 1) for each in numbers)


def write_usage(url: str, stored: Billed, report: Callable[[str], None]) -> None:
    """Usage of defined metrics that have none."""
    asyncio.run(_write_usage(url, stored))
    buckets = stored.customers * len(stored.metrics) * sum(stored.used) // EVENTS
    report(f"{buckets:,} buckets")


async def _write_usage(url: str, stored: Billed) -> None:
    connection = await connect(url, command_timeout=STATEMENT_S_MAX)
    try:
        names, start, end = list(stored.metrics), stored.starts[0], stored.starts[-1]
        await connection.execute(_SERIES, names, stored.customers)
        for first in range(0, stored.customers, CUSTOMERS_AT_ONCE):
            last = min(first + CUSTOMERS_AT_ONCE, stored.customers)
            given = (names, first, last, start, end, EVENTS, DAYS_APART)
            await connection.execute(_BUCKETS, *given)
        for table in ("series", "usage_buckets", "usage_rollups"):
            await connection.execute(f"VACUUM ANALYZE {table}")
    finally:
        await connection.close()


def write_subscriptions(url: str, plan_id: str, stored: Billed) -> None:
    """Customers with a subscription each, whose last month is over and not invoiced."""
    asyncio.run(_write_subscriptions(url, plan_id, stored))


async def _write_subscriptions(url: str, plan_id: str, stored: Billed) -> None:
    connection = await connect(url, command_timeout=STATEMENT_S_MAX)
    (start, second), *later = pairwise(stored.starts)
    count = stored.customers
    try:
        async with connection.transaction():
            await connection.execute(_CUSTOMERS, plan_id, start, count)
            # Phases are written while nothing counts as invoiced; periods follow one another.
            await connection.execute(_SUBSCRIPTIONS, plan_id, start, start, second, count)
            await connection.execute(_PHASES, plan_id)
            move = "UPDATE subscriptions SET period_start = $1, period_end = $2"
            for month in later:
                await connection.execute(move, *month)
    finally:
        await connection.close()


def invoices(url: str) -> tuple[int, str, float]:
    """How many invoices there are, what they sum to, and the seconds from first to last."""

    async def read() -> tuple[int, str, float]:
        connection = await connect(url, command_timeout=STATEMENT_S_MAX)
        try:
            row = await connection.fetchrow(_INVOICES)
            return row["written"], row["amount"], row["seconds"]
        finally:
            await connection.close()

    return asyncio.run(read())
