"""The SQL of what metrics are. Each function works inside the caller's transaction."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.domain import FoundMetrics, Metric, NewMetric, is_metric_key
from services.aggregator.fold import Definition
from services.aggregator.tables import metrics
from services.kit.database import TenantKey


class MetricKey(NamedTuple):
    """A metric's key and whose it is."""

    organization_id: str
    mode: str
    key: str

    @property
    def tenant(self) -> TenantKey:
        """Whose metric it is."""
        return TenantKey(self.organization_id, self.mode)


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
SELECT key, archive_time IS NOT NULL AS archived, defined OR EXISTS (
    SELECT FROM metric_rebuilds
    WHERE metric_rebuilds.metric_id = metrics.metric_id AND end_time IS NULL
) AS defined
FROM metrics
WHERE organization_id = :organization_id AND mode = :mode AND key = ANY(CAST(:keys AS text[]))
ORDER BY key
""")


async def find_defined(
    connection: AsyncConnection, tenant: TenantKey, keys: Sequence[str]
) -> FoundMetrics:
    """Those of the metrics that there are."""
    values = {**tenant._asdict(), "keys": list(keys)}
    rows = (await connection.execute(_FIND_DEFINED, values)).all()
    return FoundMetrics(
        defined=tuple(row.key for row in rows if row.defined),
        self_defined=tuple(row.key for row in rows if not row.defined),
        archived=tuple(row.key for row in rows if row.archived),
    )


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


# By which events are folded.
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
