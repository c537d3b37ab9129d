"""The SQL of metrics and of the fold. Each function works inside the caller's transaction.

Rows are always locked in the order inbox, metrics, series, customers, buckets, and in key order
within each, so that replicas wait for one another and do not deadlock.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1 import events_pb2

from services.aggregator.arrays import array_text as _array
from services.aggregator.arrays import bytes_text
from services.aggregator.bucket import Bucket
from services.aggregator.domain import Metric, NewMetric, is_metric_key
from services.aggregator.fold import Definition, Series
from services.aggregator.tables import fold_state, metrics, outbox
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.ids import new_id
from services.kit.outbox import add_to_outbox

CUSTOMERS_SEEN_SUBJECT = "usageflow.usage.customers_seen"
# 500 customer ids of at most 1,020 bytes fit into a message of NATS.
CUSTOMERS_IN_MESSAGE_MAX = 500


# Metrics


async def insert_metric(
    connection: AsyncConnection,
    tenant: TenantKey,
    new: NewMetric,
    create_time: datetime,
    dimension_values_max: int,
) -> Metric | None:
    """Store a definition; None when the key is taken (another transaction is waited for)."""
    statement = (
        upsert(metrics)
        .values(
            **_metric_values(tenant, new),
            defined=True,
            create_time=create_time,
            dimension_values_max=dimension_values_max,
        )
        .on_conflict_do_nothing()
        .returning(metrics)
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else metric_of(row)


async def get_metric(
    connection: AsyncConnection, tenant: TenantKey, key: str, *, for_update: bool = False
) -> Metric | None:
    """The metric, or None."""
    if not is_metric_key(key):
        return None
    query = select(metrics).where(
        metrics.c.organization_id == tenant.organization_id,
        metrics.c.mode == tenant.mode,
        metrics.c.key == key,
    )
    if for_update:
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else metric_of(row)


# One that is being built by what somebody has defined is as good as defined.
_FIND_DEFINED = text("""
SELECT key FROM metrics
WHERE organization_id = :organization_id AND mode = :mode AND key = ANY(CAST(:keys AS text[]))
    AND (defined OR EXISTS (
        SELECT FROM metric_rebuilds
        WHERE metric_rebuilds.metric_id = metrics.metric_id AND end_time IS NULL
    ))
ORDER BY key
""")


async def find_defined(
    connection: AsyncConnection, tenant: TenantKey, keys: Sequence[str]
) -> list[str]:
    """Those of the metrics that somebody has defined."""
    values = {**tenant._asdict(), "keys": list(keys)}
    return list((await connection.execute(_FIND_DEFINED, values)).scalars())


async def define_metric(
    connection: AsyncConnection, metric_id: int, new: NewMetric, dimension_values_max: int
) -> Metric:
    """Give a metric that defined itself a definition without dimensions and details."""
    statement = (
        update(metrics)
        .where(metrics.c.metric_id == metric_id)
        .values(
            name=new.name,
            unit=new.unit,
            aggregation=new.aggregation,
            dimension_values_max=dimension_values_max,
            defined=True,
        )
        .returning(metrics)
    )
    return metric_of((await connection.execute(statement)).one())


async def list_metrics(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    before_id: int | None,
    limit: int,
    archived: bool = False,
) -> list[Metric]:
    """Up to `limit` metrics, newest first, older than `before_id`; with archived ones if so."""
    query = select(metrics).where(
        metrics.c.organization_id == tenant.organization_id,
        metrics.c.mode == tenant.mode,
        metrics.c.key.is_not(None),
    )
    if not archived:
        query = query.where(metrics.c.archive_time.is_(None))
    if before_id is not None:
        query = query.where(metrics.c.metric_id < before_id)
    rows = await connection.execute(query.order_by(metrics.c.metric_id.desc()).limit(limit))
    return [metric_of(row) for row in rows]


# Locks nothing of what is noted already.
_NOTE_BILLED = text("""
WITH due AS (
    SELECT metric_id FROM metrics
    WHERE organization_id = :organization_id AND mode = :mode AND key = ANY (CAST(:keys AS text[]))
        AND (billed_time IS NULL OR billed_time < CAST(:now AS timestamptz) - interval '1 day')
    ORDER BY metric_id FOR NO KEY UPDATE
)
UPDATE metrics SET billed_time = :now FROM due WHERE metrics.metric_id = due.metric_id
""")


async def note_billed(
    connection: AsyncConnection, tenant: TenantKey, keys: Collection[str], now: datetime
) -> None:
    """Note that billing asks for these metrics; once a day."""
    values = {**tenant._asdict(), "keys": sorted(keys), "now": now}
    await connection.execute(_NOTE_BILLED, values)


def _metric_values(tenant: TenantKey, new: NewMetric) -> dict[str, Any]:
    return {
        "organization_id": tenant.organization_id,
        "mode": tenant.mode,
        "key": new.key,
        "name": new.name,
        "unit": new.unit,
        "aggregation": new.aggregation,
        "dimensions": list(new.dimensions),
        "unique_by": new.unique_by,
        "percentiles": new.percentiles,
    }


def metric_of(row: Row[Any]) -> Metric:
    """The metric of a row that has a key."""
    return Metric(
        metric_id=row.metric_id,
        counted_id=row.counted_id,
        tenant=TenantKey(row.organization_id, row.mode),
        definition=NewMetric(
            key=row.key,
            name=row.name,
            unit=row.unit,
            aggregation=row.aggregation,
            dimensions=tuple(row.dimensions),
            unique_by=row.unique_by,
            percentiles=row.percentiles,
        ),
        defined=row.defined,
        create_time=row.create_time,
        archive_time=row.archive_time,
        billed_time=row.billed_time,
    )


# The fold


class MetricKey(NamedTuple):
    """A metric's key and whose it is."""

    organization_id: str
    mode: str
    key: str

    @property
    def tenant(self) -> TenantKey:
        """Whose metric it is."""
        return TenantKey(self.organization_id, self.mode)


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


_FIND_DEFINITIONS = text("""
SELECT metrics.organization_id, metrics.mode, metrics.key, metrics.counted_id, metrics.dimensions,
    metrics.unique_by, metrics.percentiles,
    coalesce(
        (SELECT metric_id FROM quotas WHERE quotas.metric_id = metrics.metric_id LIMIT 1),
        (SELECT metric_id FROM plan_limits WHERE plan_limits.metric_id = metrics.metric_id LIMIT 1)
    ) AS limited_id,
    building_id, built.dimensions AS built_dimensions, built.unique_by AS built_unique_by,
    built.percentiles AS built_percentiles
FROM unnest(CAST(:organizations AS text[]), CAST(:modes AS text[]), CAST(:keys AS text[]))
    AS wanted (organization_id, mode, key)
JOIN metrics USING (organization_id, mode, key)
LEFT JOIN metric_rebuilds AS rebuild
    ON rebuild.metric_id = metrics.metric_id AND rebuild.end_time IS NULL
LEFT JOIN metrics AS built ON built.metric_id = building_id
""")

_DEFINE_BY_EVENT = text("""
INSERT INTO metrics (organization_id, mode, key, name, unit, aggregation, dimensions, unique_by,
    defined, create_time)
SELECT organization_id, mode, key, '', '', 'SUM', '{}', '', false, :create_time
FROM unnest(CAST(:organizations AS text[]), CAST(:modes AS text[]), CAST(:keys AS text[]))
    AS wanted (organization_id, mode, key)
ORDER BY organization_id COLLATE "C", mode COLLATE "C", key COLLATE "C"
ON CONFLICT DO NOTHING
""")


async def find_definitions(
    connection: AsyncConnection, keys: Collection[MetricKey]
) -> dict[MetricKey, Definition]:
    """The definitions of those that exist."""
    rows = await connection.execute(_FIND_DEFINITIONS, _columns_of(keys))
    return {
        MetricKey(row.organization_id, row.mode, row.key): Definition(
            row.counted_id,
            tuple(row.dimensions),
            row.limited_id,
            row.unique_by,
            row.percentiles,
            _building(row),
        )
        for row in rows
    }


def _building(row: Row[Any]) -> Definition | None:
    if row.building_id is None:
        return None
    return Definition(
        row.building_id,
        tuple(row.built_dimensions),
        unique_by=row.built_unique_by,
        percentiles=row.built_percentiles,
    )


async def define_by_event(
    connection: AsyncConnection, keys: Collection[MetricKey], create_time: datetime
) -> None:
    """Metrics that nobody defined define themselves: SUM, no dimensions."""
    await connection.execute(_DEFINE_BY_EVENT, {**_columns_of(keys), "create_time": create_time})


def _columns_of(keys: Collection[MetricKey]) -> dict[str, Any]:
    return {
        "organizations": [key.organization_id for key in keys],
        "modes": [key.mode for key in keys],
        "keys": [key.key for key in keys],
    }


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
    connection: AsyncConnection, folded: Sequence[tuple[int, int, Bucket]]
) -> None:
    """Add (series id, number of the quarter of an hour since 1970, what was folded) to the table.

    One statement; at least one cell, and each at most once.
    """
    series_ids, quarters, buckets = zip(*folded, strict=True)
    values = {
        "series_ids": _array(series_ids),
        "quarters": _array(quarters),
        "event_counts": _array([bucket.event_count for bucket in buckets]),
        "sums": _array([bucket.amount_sum for bucket in buckets]),
        "minima": _array([bucket.amount_min for bucket in buckets]),
        "maxima": _array([bucket.amount_max for bucket in buckets]),
        "latest_times_us": _array([bucket.latest_time_us for bucket in buckets]),
        "latest_event_ids": _array([bytes_text(bucket.latest_event_id) for bucket in buckets]),
        "latest_values": _array([bucket.latest_value for bucket in buckets]),
    }
    await connection.execute(_UPSERT_BUCKETS, values)


# Maintenance


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
