"""The SQL of the fold. Each function works inside the caller's transaction.

Rows are always locked in the order inbox, metrics, series, customers, buckets, and in key order
within each, so that replicas wait for one another and do not deadlock.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1 import events_pb2

from services.aggregator.arrays import array_text as _array
from services.aggregator.arrays import bytes_text
from services.aggregator.column_fold import Counted
from services.aggregator.fold import Series
from services.aggregator.tables import fold_state, outbox
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.ids import new_id
from services.kit.outbox import add_to_outbox

CUSTOMERS_SEEN_SUBJECT = "usageflow.usage.customers_seen"
# 500 customer ids of at most 1,020 bytes fit into a message of NATS.
CUSTOMERS_IN_MESSAGE_MAX = 500


@dataclass(frozen=True, slots=True)
class FoldState:
    """The row of fold_state."""

    definition_version: int
    inbox_horizon: datetime | None
    watermark: datetime | None


async def read_fold_state(connection: AsyncConnection) -> FoldState:
    """What the fold relies on."""
    row = (await connection.execute(select(fold_state))).one()
    return FoldState(row.definition_version, row.inbox_horizon, row.watermark)


# From here until the commit nobody begins to build a metric, or to take voids out of one (0011).
_FOLDING = text("SELECT pg_advisory_xact_lock_shared(11, 1)")

_TAKE_BATCHES = text("""
INSERT INTO inbox (message_id, accept_time, definition_version)
SELECT message_id, accept_time, definition_version
FROM unnest(CAST(:ids AS text[]), CAST(:accept_times AS timestamptz[]))
    AS taken (message_id, accept_time), fold_state
ORDER BY message_id
ON CONFLICT DO NOTHING
RETURNING message_id
""")


async def take_new_batches(
    connection: AsyncConnection, accept_times: dict[str, datetime]
) -> set[str]:
    """Record batches in the inbox; returns those that were not there before.

    As kit.inbox.take_new, with the time of acceptance, by which the inbox is pruned, and the
    version of the definitions that they are folded by.
    """
    await connection.execute(_FOLDING)
    ids = sorted(accept_times)
    values = {"ids": ids, "accept_times": [accept_times[batch_id] for batch_id in ids]}
    return set((await connection.execute(_TAKE_BATCHES, values)).scalars())


async def untake_batches(connection: AsyncConnection, batch_ids: Collection[str]) -> None:
    """Take back what take_new_batches has recorded in this transaction."""
    await connection.execute(
        text("DELETE FROM inbox WHERE message_id = ANY (CAST(:ids AS text[]))"),
        {"ids": list(batch_ids)},
    )


_FIND_SERIES = text("""
SELECT metric_id, series_key, series_id FROM series
JOIN unnest(CAST(:metric_ids AS bigint[]), CAST(:series_keys AS bytea[]))
    AS wanted (metric_id, series_key) USING (metric_id, series_key)
""")

_INSERT_SERIES = text("""
INSERT INTO series (metric_id, series_key, customer_id, dimensions)
SELECT metric_id, series_key, customer_id, CAST(dimensions AS jsonb)
FROM unnest(CAST(:metric_ids AS bigint[]), CAST(:series_keys AS bytea[]),
    CAST(:customer_ids AS text[]), CAST(:dimensions AS text[]))
    AS wanted (metric_id, series_key, customer_id, dimensions)
ORDER BY metric_id, series_key
ON CONFLICT DO NOTHING
RETURNING metric_id, series_key, series_id
""")


async def find_series(connection: AsyncConnection, wanted: Iterable[Series]) -> dict[Series, int]:
    """The ids of those that exist."""
    by_key = {(series.metric_id, series.key()): series for series in wanted}
    values = {
        "metric_ids": [metric_id for metric_id, _ in by_key],
        "series_keys": [series_key for _, series_key in by_key],
    }
    rows = await connection.execute(_FIND_SERIES, values)
    return {by_key[row.metric_id, row.series_key]: row.series_id for row in rows}


async def insert_series(connection: AsyncConnection, wanted: Iterable[Series]) -> dict[Series, int]:
    """Store those that do not exist yet and return their ids.

    Another transaction that is just storing the same is waited for: find_series finds those.
    """
    by_key = {(series.metric_id, series.key()): series for series in wanted}
    values = {
        "metric_ids": [metric_id for metric_id, _ in by_key],
        "series_keys": [series_key for _, series_key in by_key],
        "customer_ids": [series.customer_id for series in by_key.values()],
        "dimensions": [series.dimensions_json for series in by_key.values()],
    }
    rows = await connection.execute(_INSERT_SERIES, values)
    return {by_key[row.metric_id, row.series_key]: row.series_id for row in rows}


_INSERT_CUSTOMERS = text("""
INSERT INTO customers_seen (organization_id, mode, customer_id)
SELECT organization_id, mode, customer_id
FROM unnest(CAST(:organizations AS text[]), CAST(:modes AS text[]), CAST(:customers AS text[]))
    AS named (organization_id, mode, customer_id)
ORDER BY organization_id COLLATE "C", mode COLLATE "C", customer_id COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING organization_id, mode, customer_id
""")


async def insert_customers(
    connection: AsyncConnection, named: Collection[tuple[TenantKey, str]]
) -> dict[TenantKey, list[str]]:
    """Record customers that events have named; returns those that were new."""
    values = {
        "organizations": [tenant.organization_id for tenant, _ in named],
        "modes": [tenant.mode for tenant, _ in named],
        "customers": [customer_id for _, customer_id in named],
    }
    new: dict[TenantKey, list[str]] = {}
    for row in await connection.execute(_INSERT_CUSTOMERS, values):
        new.setdefault(TenantKey(row.organization_id, row.mode), []).append(row.customer_id)
    return new


async def tell_customers_seen(
    connection: AsyncConnection, tenant: TenantKey, customer_ids: Sequence[str]
) -> None:
    """Put customers that are new into the outbox."""
    for start in range(0, len(customer_ids), CUSTOMERS_IN_MESSAGE_MAX):
        message = events_pb2.CustomersSeen(
            organization_id=tenant.organization_id,
            mode=MODE_NUMBERS[tenant.mode],
            customer_ids=customer_ids[start : start + CUSTOMERS_IN_MESSAGE_MAX],
        )
        await add_to_outbox(
            connection,
            outbox,
            message_id=new_id("seen"),
            subject=CUSTOMERS_SEEN_SUBJECT,
            payload=message.SerializeToString(),
        )


# The arrays come as their text form: putting it together takes 2 us a row, where the driver's
# encoding of numbers one by one took 13.
_UPSERT_BUCKETS = text("""
INSERT INTO usage_buckets AS old (series_id, bucket_start, event_count, amount_sum, amount_min,
    amount_max, latest_time, latest_event_id, latest_value)
SELECT series_id, 'epoch'::timestamptz + quarter * interval '15 minutes', event_count,
    amount_sum, amount_min, amount_max,
    'epoch'::timestamptz + latest_time_us * interval '1 microsecond', latest_event_id, latest_value
FROM unnest(CAST(CAST(:series_ids AS text) AS bigint[]),
    CAST(CAST(:quarters AS text) AS bigint[]),
    CAST(CAST(:event_counts AS text) AS bigint[]),
    CAST(CAST(:sums AS text) AS numeric[]),
    CAST(CAST(:minima AS text) AS numeric[]),
    CAST(CAST(:maxima AS text) AS numeric[]),
    CAST(CAST(:latest_times_us AS text) AS bigint[]),
    CAST(CAST(:latest_event_ids AS text) AS bytea[]),
    CAST(CAST(:latest_values AS text) AS numeric[]))
    AS folded (series_id, quarter, event_count, amount_sum, amount_min, amount_max,
        latest_time_us, latest_event_id, latest_value)
ORDER BY series_id, quarter
ON CONFLICT (series_id, bucket_start) DO UPDATE SET
    event_count = old.event_count + excluded.event_count,
    amount_sum = old.amount_sum + excluded.amount_sum,
    amount_min = least(old.amount_min, excluded.amount_min),
    amount_max = greatest(old.amount_max, excluded.amount_max),
    latest_time = CASE WHEN (excluded.latest_time, excluded.latest_event_id)
        > (old.latest_time, old.latest_event_id)
        THEN excluded.latest_time ELSE old.latest_time END,
    latest_event_id = CASE WHEN (excluded.latest_time, excluded.latest_event_id)
        > (old.latest_time, old.latest_event_id)
        THEN excluded.latest_event_id ELSE old.latest_event_id END,
    latest_value = CASE WHEN (excluded.latest_time, excluded.latest_event_id)
        > (old.latest_time, old.latest_event_id)
        THEN excluded.latest_value ELSE old.latest_value END
""")


async def add_to_buckets(
    connection: AsyncConnection, series_ids: Sequence[int], counted: Counted
) -> None:
    """Add what was counted, each cell under its series, to the table.

    One statement; at least one cell, and each at most once.
    """
    values = {
        "series_ids": _array(series_ids),
        "quarters": _array(counted.quarters),
        "event_counts": _array(counted.event_counts),
        "sums": _array(counted.sums),
        "minima": _array(counted.minima),
        "maxima": _array(counted.maxima),
        "latest_times_us": _array(counted.latest_times_us),
        "latest_event_ids": _array(map(bytes_text, counted.latest_event_ids)),
        "latest_values": _array(counted.latest_values),
    }
    await connection.execute(_UPSERT_BUCKETS, values)


async def note_watermark(connection: AsyncConnection, watermark: datetime) -> None:
    """Remember the newest watermark that ingest told."""
    statement = text(
        "UPDATE fold_state SET watermark = :watermark "
        "WHERE watermark IS NULL OR watermark < :watermark"
    )
    await connection.execute(statement, {"watermark": watermark})


# What was folded since a metric began to be built stays: it is not to be counted there again.
_PRUNE_INBOX = text("""
WITH old AS (
    SELECT message_id, accept_time FROM inbox
    WHERE accept_time < :before AND definition_version < coalesce(
        (SELECT min(start_version) FROM metric_rebuilds WHERE end_time IS NULL), 9e18)
    ORDER BY accept_time LIMIT :rows_max FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE fold_state
    SET inbox_horizon = greatest(inbox_horizon, (SELECT max(accept_time) FROM old)
        + interval '1 microsecond')
    WHERE EXISTS (SELECT FROM old)
)
DELETE FROM inbox USING old WHERE inbox.message_id = old.message_id
""")


async def prune_inbox(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget up to `rows_max` batches accepted before `before`; returns how many.

    The horizon moves in the same transaction: a fold either still finds a batch in the inbox, or
    sees a horizon that lies after it.
    """
    values = {"before": before, "rows_max": rows_max}
    return (await connection.execute(_PRUNE_INBOX, values)).rowcount
