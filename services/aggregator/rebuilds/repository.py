"""The SQL of rebuilds. Each function works inside the caller's transaction.

Locked in this order: the definitions (lock_definitions), the metric, its rebuild, then what a fold
locks. Whoever ends a rebuild, or does a step of one, holds the lock of its row.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.domain import Metric, NewMetric, Rebuild
from services.aggregator.fold import Definition
from services.aggregator.metric_repository import MetricKey
from services.aggregator.rebuilds.domain import EVENTS, RUNNING, VOIDS
from services.aggregator.void_repository import needs_extremes
from services.aggregator.voids import VoidableMetric
from services.kit.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class Work:
    """A rebuild as whoever works on it sees it. `state` is EVENTS or VOIDS."""

    rebuild_id: int
    metric_id: int
    key: MetricKey
    building_id: int
    new: NewMetric
    state: str
    start_version: int
    voids_version: int | None
    cursor: str
    attempt: int
    events_total: int | None

    @property
    def definition(self) -> Definition:
        """What its events are counted by."""
        return Definition(
            self.building_id,
            self.new.dimensions,
            unique_by=self.new.unique_by,
            percentiles=self.new.percentiles,
        )

    @property
    def voidable(self) -> VoidableMetric:
        """What its voids are taken out of."""
        return VoidableMetric(
            self.building_id,
            self.new.dimensions,
            needs_extremes=needs_extremes(self.new.aggregation),
            counted_undefined=False,
            unique_by=self.new.unique_by,
            percentiles=self.new.percentiles,
        )

    @property
    def before_version(self) -> int:
        """Batches that were folded by an older version of the definitions are to be read."""
        version = self.start_version if self.state == EVENTS else self.voids_version
        assert version is not None
        return version


# Beginning and ending

# Folds that come meanwhile wait, too.
LOCK_TIMEOUT_MS = 3_000
RETRY_AFTER_S = 1.0
_LOCK_NOT_AVAILABLE = "55P03"

_LOCK_DEFINITIONS = text("SELECT pg_advisory_xact_lock(11, 1)")
_NEXT_VERSION = text(
    "UPDATE fold_state SET definition_version = definition_version + 1 RETURNING definition_version"
)


async def lock_definitions(connection: AsyncConnection) -> None:
    """Waits for all folds that are under way, and lets none begin until the transaction ends.

    Before any other lock: folds may wait for those. UnavailableError: some take long.
    """
    await connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
    try:
        await connection.execute(_LOCK_DEFINITIONS)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", "") != _LOCK_NOT_AVAILABLE:
            raise
        message = "Usage is being counted; try again"
        raise UnavailableError(message, retry_after_s=RETRY_AFTER_S) from error
    await connection.execute(text("SET LOCAL lock_timeout = 0"))


async def _next_version(connection: AsyncConnection) -> int:
    return int((await connection.execute(_NEXT_VERSION)).scalar_one())


_INSERT_BUILDING = text("""
INSERT INTO metrics (organization_id, mode, of_metric_id, name, unit, aggregation, dimensions,
    unique_by, percentiles, defined, dimension_values_max, create_time)
SELECT organization_id, mode, metric_id, :name, :unit, :aggregation,
    CAST(:dimensions AS text[]), :unique_by, :percentiles, true, :dimension_values_max, create_time
FROM metrics WHERE metric_id = :metric_id
RETURNING metric_id
""")

_INSERT_REBUILD = text("""
INSERT INTO metric_rebuilds (metric_id, building_id, state, start_version, cursor, attempt,
    events_done, error, due_time, start_time)
VALUES (:metric_id, :building_id, 'EVENTS', :version, '', 1, 0, '', '-infinity', :now)
""")


async def begin_rebuild(
    connection: AsyncConnection,
    metric_id: int,
    new: NewMetric,
    dimension_values_max: int,
    now: datetime,
) -> None:
    """From the commit on events are counted by both definitions. The definitions are locked."""
    building_id = await _insert_building(connection, metric_id, new, dimension_values_max)
    version = await _next_version(connection)
    values = {"metric_id": metric_id, "building_id": building_id, "version": version, "now": now}
    await connection.execute(_INSERT_REBUILD, values)


async def _insert_building(
    connection: AsyncConnection, metric_id: int, new: NewMetric, dimension_values_max: int
) -> int:
    values = {
        "metric_id": metric_id,
        "name": new.name,
        "unit": new.unit,
        "aggregation": new.aggregation,
        "dimensions": list(new.dimensions),
        "unique_by": new.unique_by,
        "percentiles": new.percentiles,
        "dimension_values_max": dimension_values_max,
    }
    return int((await connection.execute(_INSERT_BUILDING, values)).scalar_one())


_CANCEL = text("""
UPDATE metric_rebuilds SET state = 'CANCELLED', end_time = :now
WHERE metric_id = :metric_id AND end_time IS NULL
""")

_FAIL = text("""
UPDATE metric_rebuilds SET state = 'FAILED', error = :error, end_time = :now
WHERE rebuild_id = :rebuild_id AND end_time IS NULL
""")


async def cancel_rebuild(connection: AsyncConnection, metric_id: int, now: datetime) -> None:
    """End what runs of the metric; the old definition stays."""
    await connection.execute(_CANCEL, {"metric_id": metric_id, "now": now})


async def fail_rebuild(
    connection: AsyncConnection, rebuild_id: int, error: str, now: datetime
) -> None:
    """End it if it runs; the old definition stays."""
    await connection.execute(_FAIL, {"rebuild_id": rebuild_id, "error": error, "now": now})


_RENAME = text("""
UPDATE metrics SET name = :name, unit = :unit
WHERE metric_id = :metric_id AND defined OR metric_id IN (
    SELECT building_id FROM metric_rebuilds WHERE metric_id = :metric_id AND end_time IS NULL
)
""")


async def rename(connection: AsyncConnection, metric_id: int, name: str, unit: str) -> None:
    """Change what a metric, and what is being built for it, is called."""
    await connection.execute(_RENAME, {"metric_id": metric_id, "name": name, "unit": unit})


async def set_archive_time(
    connection: AsyncConnection, metric_id: int, time: datetime | None
) -> None:
    """Archive a metric, or list it again (None)."""
    statement = text("UPDATE metrics SET archive_time = :time WHERE metric_id = :metric_id")
    await connection.execute(statement, {"metric_id": metric_id, "time": time})


_HAS_QUOTAS = text("""
SELECT EXISTS (SELECT FROM quotas WHERE metric_id = :metric_id)
    OR EXISTS (SELECT FROM plan_limits WHERE metric_id = :metric_id)
""")


async def has_quotas(connection: AsyncConnection, metric_id: int) -> bool:
    """Whether the metric has any, those of plans included."""
    found: bool = (await connection.execute(_HAS_QUOTAS, {"metric_id": metric_id})).scalar_one()
    return found


_LATEST = text("""
SELECT DISTINCT ON (rebuild.metric_id) rebuild.metric_id, rebuild_id, state, events_done,
    events_total, error, start_time, end_time, metrics.key, built.metric_id AS built_id, built.name,
    built.unit, built.aggregation, built.dimensions, built.unique_by, built.percentiles
FROM metric_rebuilds AS rebuild JOIN metrics USING (metric_id)
LEFT JOIN metrics AS built ON built.metric_id = building_id
WHERE rebuild.metric_id = ANY (CAST(:metric_ids AS bigint[]))
ORDER BY rebuild.metric_id, rebuild_id DESC
""")


async def with_rebuilds(connection: AsyncConnection, found: Sequence[Metric]) -> list[Metric]:
    """The metrics with the last rebuild of each."""
    ids = [metric.metric_id for metric in found]
    rows = await connection.execute(_LATEST, {"metric_ids": ids})
    rebuilds = {row.metric_id: _rebuild(row) for row in rows}
    return [replace(metric, rebuild=rebuilds.get(metric.metric_id)) for metric in found]


def _rebuild(row: Row[Any]) -> Rebuild:
    return Rebuild(
        rebuild_id=row.rebuild_id,
        new=None if row.built_id is None else _definition(row),
        state=RUNNING if row.end_time is None else row.state,
        events_done=row.events_done,
        events_total=row.events_total,
        error=row.error,
        start_time=row.start_time,
        end_time=row.end_time,
    )


def _definition(row: Row[Any]) -> NewMetric:
    return NewMetric(
        key=row.key,
        name=row.name,
        unit=row.unit,
        aggregation=row.aggregation,
        dimensions=tuple(row.dimensions),
        unique_by=row.unique_by,
        percentiles=row.percentiles,
    )


# Working

_WORK = """
SELECT rebuild_id, rebuild.metric_id, metrics.organization_id, metrics.mode, metrics.key,
    building_id, built.name, built.unit, built.aggregation, built.dimensions, built.unique_by,
    built.percentiles, state, start_version, voids_version, cursor, attempt, events_total
FROM metric_rebuilds AS rebuild JOIN metrics USING (metric_id)
JOIN metrics AS built ON built.metric_id = building_id
WHERE {which}
"""

_CLAIM = text(f"""
WITH due AS (
    SELECT rebuild_id FROM metric_rebuilds WHERE end_time IS NULL AND due_time <= now()
    ORDER BY due_time, rebuild_id LIMIT 1 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE metric_rebuilds SET due_time = now() + CAST(:lease AS interval)
    WHERE rebuild_id IN (SELECT rebuild_id FROM due) RETURNING rebuild_id
)
{_WORK.format(which="rebuild_id IN (SELECT rebuild_id FROM claimed)")}
""")  # noqa: S608 (no value is pasted in)

_LOCK_STEP = text("""
SELECT true FROM metric_rebuilds
WHERE rebuild_id = :rebuild_id AND building_id = :building_id AND state = :state
    AND cursor = :cursor
FOR UPDATE
""")

_SAVE_STEP = text("""
UPDATE metric_rebuilds SET cursor = :cursor, events_done = events_done + :events,
    due_time = now() + CAST(:lease AS interval)
WHERE rebuild_id = :rebuild_id
""")

_RELEASE = text("""
UPDATE metric_rebuilds SET due_time = now() + CAST(:pause AS interval)
WHERE rebuild_id = :rebuild_id AND end_time IS NULL
""")


async def claim(connection: AsyncConnection, lease: timedelta) -> Work | None:
    """A rebuild that nobody works on, kept from others for `lease`."""
    row = (await connection.execute(_CLAIM, {"lease": lease})).one_or_none()
    if row is None:
        return None
    return Work(
        rebuild_id=row.rebuild_id,
        metric_id=row.metric_id,
        key=MetricKey(row.organization_id, row.mode, row.key),
        building_id=row.building_id,
        new=_definition(row),
        state=row.state,
        start_version=row.start_version,
        voids_version=row.voids_version,
        cursor=row.cursor,
        attempt=row.attempt,
        events_total=row.events_total,
    )


async def lock_step(connection: AsyncConnection, work: Work) -> bool:
    """False: it has ended, or somebody else has gone on with it."""
    values = {
        "rebuild_id": work.rebuild_id,
        "building_id": work.building_id,
        "state": work.state,
        "cursor": work.cursor,
    }
    return (await connection.execute(_LOCK_STEP, values)).first() is not None


async def save_step(
    connection: AsyncConnection, work: Work, cursor: str, events: int, lease: timedelta
) -> None:
    """How far it has got."""
    values = {"rebuild_id": work.rebuild_id, "cursor": cursor, "events": events, "lease": lease}
    await connection.execute(_SAVE_STEP, values)


async def release(connection: AsyncConnection, work: Work, pause: timedelta) -> None:
    """Let anybody go on with it after `pause`."""
    await connection.execute(_RELEASE, {"rebuild_id": work.rebuild_id, "pause": pause})


# Whole days as far as they were rolled up, and the buckets since.
_COUNT_EVENTS = text("""
WITH rolled AS (
    SELECT counted_id, date_bin('24 hours', rolled_until, 'epoch'::timestamptz) AS until
    FROM metrics, rollup_state WHERE metric_id = :metric_id
)
SELECT coalesce((
    SELECT sum(event_count) FROM rolled JOIN usage_rollups ON metric_id = counted_id
    WHERE span_hours = 24 AND span_start < until
), 0) + coalesce((
    SELECT sum(event_count) FROM rolled JOIN series ON metric_id = counted_id
    JOIN usage_buckets USING (series_id) WHERE bucket_start >= until
), 0)
""")
_NOTE_TOTAL = text(
    "UPDATE metric_rebuilds SET events_total = :total WHERE rebuild_id = :rebuild_id"
)


async def note_total(connection: AsyncConnection, work: Work) -> None:
    """Note how many events the metric has counted."""
    counted = await connection.execute(_COUNT_EVENTS, {"metric_id": work.metric_id})
    total = int(counted.scalar_one())
    await connection.execute(_NOTE_TOTAL, {"rebuild_id": work.rebuild_id, "total": total})


# One statement: what leaves the inbox moves the horizon in the same transaction.
_FIND_VERSIONS = text("""
SELECT inbox_horizon, message_id, inbox.definition_version
FROM fold_state LEFT JOIN inbox ON message_id = ANY (CAST(:ids AS text[]))
""")


@dataclass(frozen=True, slots=True)
class FoldedBatches:
    """By which version of the definitions batches were folded; those before the horizon that are
    not among them were folded long ago.
    """

    versions: dict[str, int]
    horizon: datetime | None

    def was_before(self, version: int, batch_id: str, accept_time: datetime) -> bool:
        """Whether the batch was folded before `version`. One that was not folded was not."""
        if (known := self.versions.get(batch_id)) is not None:
            return known < version
        return self.horizon is not None and accept_time < self.horizon


async def find_folded(connection: AsyncConnection, batch_ids: Collection[str]) -> FoldedBatches:
    """What the inbox knows of these batches."""
    rows = (await connection.execute(_FIND_VERSIONS, {"ids": sorted(batch_ids)})).all()
    versions = {row[1]: row[2] for row in rows if row[1] is not None}
    return FoldedBatches(versions, rows[0].inbox_horizon)


_BEGIN_VOIDS = text("""
UPDATE metric_rebuilds SET state = 'VOIDS', voids_version = :version, cursor = ''
WHERE rebuild_id = :rebuild_id
""")

_BEGIN_AGAIN = text("""
UPDATE metric_rebuilds SET state = 'EVENTS', building_id = :building_id, start_version = :version,
    voids_version = NULL, cursor = '', events_done = 0, attempt = attempt + 1,
    due_time = now() + CAST(:pause AS interval)
WHERE rebuild_id = :rebuild_id
""")


async def begin_voids(connection: AsyncConnection, work: Work) -> Work | None:
    """All events are in. From the commit on voids are taken out of both; None as in lock_step."""
    await lock_definitions(connection)
    if not await lock_step(connection, work):
        return None
    version = await _next_version(connection)
    await connection.execute(_BEGIN_VOIDS, {"rebuild_id": work.rebuild_id, "version": version})
    return replace(work, state=VOIDS, voids_version=version, cursor="")


async def begin_again(
    connection: AsyncConnection, work: Work, dimension_values_max: int, pause: timedelta
) -> None:
    """Build it anew from the beginning; what was built is left to be deleted."""
    await lock_definitions(connection)
    if not await lock_step(connection, work):
        return
    building_id = await _insert_building(connection, work.metric_id, work.new, dimension_values_max)
    values = {
        "rebuild_id": work.rebuild_id,
        "building_id": building_id,
        "version": await _next_version(connection),
        "pause": pause,
    }
    await connection.execute(_BEGIN_AGAIN, values)


_SWAP = text("""
UPDATE metrics SET counted_id = built.metric_id, name = built.name, unit = built.unit,
    aggregation = built.aggregation, dimensions = built.dimensions, unique_by = built.unique_by,
    percentiles = built.percentiles, dimension_values_max = built.dimension_values_max,
    defined = true, counted_undefined = false
FROM metrics AS built
WHERE metrics.metric_id = :metric_id AND built.metric_id = :building_id
""")

_END = text("""
UPDATE metric_rebuilds SET state = 'DONE', end_time = :now WHERE rebuild_id = :rebuild_id
""")


async def swap(connection: AsyncConnection, work: Work, now: datetime) -> None:
    """From the commit on the metric is what was built. Metric and rebuild are locked."""
    values = {"metric_id": work.metric_id, "building_id": work.building_id}
    await connection.execute(_SWAP, values)
    await connection.execute(_END, {"rebuild_id": work.rebuild_id, "now": now})


async def count_running(connection: AsyncConnection) -> int:
    """How many rebuilds there are."""
    count = await connection.execute(
        text("SELECT count(*) FROM metric_rebuilds WHERE end_time IS NULL")
    )
    return int(count.scalar_one())
