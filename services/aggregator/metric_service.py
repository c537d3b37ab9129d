"""What aggregator does for its callers with metrics: define, change, find, list."""

import asyncio
from collections.abc import Callable, Collection
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import metric_repository
from services.aggregator.audited import note, note_metric
from services.aggregator.domain import (
    DIMENSION_VALUES_MAX,
    FoundMetrics,
    Metric,
    NewMetric,
    check_new_metric,
    is_metric_key,
    metric_conflict,
)
from services.aggregator.rebuilds.changes import (
    change_definition,
    define_later,
    is_built_as,
    with_rebuild,
)
from services.aggregator.rebuilds.domain import RUNNING, MetricChange, check_archive
from services.aggregator.rebuilds.repository import (
    lock_definitions,
    set_archive_time,
    with_rebuilds,
)
from services.kit import clock, pages
from services.kit.database import Database, TenantKey, commits_later, wake_after_commit
from services.kit.errors import FieldChecks, NotFoundError
from services.kit.etag import Expectation

log = structlog.get_logger()

REBUILD_POLL_S = 0.05
# As many metrics as an ingest call has events.
FIND_KEYS_MAX = 10_000


def _nobody_builds() -> None:
    """In the place of what builds metrics anew."""


class Metrics:
    """Metrics and their definitions. Each use case is one transaction."""

    def __init__(
        self,
        database: Database,
        dimension_values_max: int = DIMENSION_VALUES_MAX,
        *,
        rebuild_begun: Callable[[], None] = _nobody_builds,
        rebuild_wait_s: float = 0.0,
    ) -> None:
        """`dimension_values_max`: how many values each dimension of a new metric may know.

        `rebuild_begun` is called after a commit that has begun a rebuild; `rebuild_wait_s`: so long
        the answer waits for its end.
        """
        self._database = database
        self._dimension_values_max = dimension_values_max
        self._rebuild_begun = rebuild_begun
        self._rebuild_wait_s = rebuild_wait_s

    async def create(self, tenant: TenantKey, new: NewMetric, by_key: str = "") -> Metric:
        """Define a metric; the same definition again changes nothing.

        A metric that defined itself by its first event takes any definition: what can't be told
        of what was counted of it is built from its stored events (rebuilds/), and until that is
        done it stays as it was. InvalidArgumentError names all wrong fields; ConflictError: the key
        has another definition, or billing or quotas rely on the one it has.
        """
        check_new_metric(new)
        async with self._database.transaction() as connection:
            metric = await metric_repository.insert_metric(
                connection, tenant, new, clock.now(), self._dimension_values_max
            )
            if metric is None:
                metric = await self._define_existing(connection, tenant, new, by_key)
            else:
                await note_metric(connection, None, metric, by_key)
        log.info("metric_defined", organization_id=tenant.organization_id, metric=new.key)
        return await self._built(metric)

    async def get(self, tenant: TenantKey, key: str) -> Metric:
        """The metric; NotFoundError when there is none."""
        async with self._database.transaction() as connection:
            metric = await metric_repository.get_metric(connection, tenant, key)
            if metric is None:
                raise NotFoundError("No such metric")
            return await with_rebuild(connection, metric)

    async def update(
        self,
        tenant: TenantKey,
        key: str,
        change: MetricChange,
        expect: Expectation[Metric] | None = None,
        by_key: str = "",
    ) -> Metric:
        """Change a metric's definition. What is counted by another one is built from the stored
        events, in the background: until it is done the metric stays as it was.

        A change while one runs is a change of what is being built; back to what the metric is ends
        that. InvalidArgumentError, NotFoundError; ConflictError: billing or quotas rely on it;
        StaleError when it is not as `expect` has it.
        """
        async with self._database.transaction() as connection:
            await lock_definitions(connection)
            metric = await with_rebuild(connection, await self._locked(connection, tenant, key))
            if expect is not None:
                expect(metric)
            before = metric
            metric = await change_definition(
                connection, metric, change, self._dimension_values_max, clock.now()
            )
            await note_metric(connection, before, metric, by_key)
        log.info("metric_changed", organization_id=tenant.organization_id, metric=key)
        return await self._built(metric)

    async def archive(
        self, tenant: TenantKey, key: str, *, archived: bool, by_key: str = ""
    ) -> Metric:
        """Leave a metric out of lists, or list it again; events are counted all the same.

        NotFoundError; ConflictError: a plan in use prices it.
        """
        now = clock.now()
        async with self._database.transaction() as connection:
            metric = await self._locked(connection, tenant, key)
            if archived != (metric.archive_time is not None):
                if archived:
                    check_archive(metric, now)
                await set_archive_time(connection, metric.metric_id, now if archived else None)
                action = "metric.archived" if archived else "metric.unarchived"
                await note(connection, tenant, action, key, by_key, {})
                metric = await self._locked(connection, tenant, key)
            return await with_rebuild(connection, metric)

    async def _locked(self, connection: AsyncConnection, tenant: TenantKey, key: str) -> Metric:
        metric = await metric_repository.get_metric(connection, tenant, key, for_update=True)
        if metric is None:
            raise NotFoundError("No such metric")
        return metric

    async def _built(self, metric: Metric) -> Metric:
        """The metric, after a while in which a rebuild of few events has ended."""
        if metric.rebuild is None or metric.rebuild.state != RUNNING:
            return metric
        wake_after_commit(self._rebuild_begun)
        if commits_later():
            return metric
        until_s = monotonic() + self._rebuild_wait_s
        while metric.rebuild is not None and metric.rebuild.state == RUNNING:
            if monotonic() >= until_s:
                break
            await asyncio.sleep(REBUILD_POLL_S)
            metric = await self.get(metric.tenant, metric.definition.key)
        return metric

    async def find_defined(self, tenant: TenantKey, keys: Collection[str]) -> FoundMetrics:
        """Those that there are, in order. InvalidArgumentError: too many."""
        checks = FieldChecks()
        message = f"must be at most {FIND_KEYS_MAX:,}"
        checks.require(len(keys) <= FIND_KEYS_MAX, "keys", message)
        checks.done()
        wanted = [key for key in keys if is_metric_key(key)]
        async with self._database.transaction() as connection:
            return await metric_repository.find_defined(connection, tenant, wanted)

    async def list(
        self, tenant: TenantKey, page_size: int, page_token: str, *, archived: bool = False
    ) -> tuple[list[Metric], str]:
        """A page of metrics, newest first, and the next page's token ("" after the last).

        `archived`: with those that are.
        """
        limit = pages.page_limit(page_size)
        before_id = _metric_id(page_token) if page_token else None
        async with self._database.transaction() as connection:
            metrics = await metric_repository.list_metrics(
                connection, tenant, before_id=before_id, limit=limit + 1, archived=archived
            )
            metrics = await with_rebuilds(connection, metrics)
        if len(metrics) <= limit:
            return metrics, ""
        return metrics[:limit], pages.encode_token(str(metrics[limit - 1].metric_id))

    async def _define_existing(
        self, connection: AsyncConnection, tenant: TenantKey, new: NewMetric, by_key: str
    ) -> Metric:
        known = await metric_repository.get_metric(connection, tenant, new.key)
        assert known is not None, "metrics are never deleted"
        if not known.defined:
            await lock_definitions(connection)
            known = await self._locked(connection, tenant, new.key)
        metric = await with_rebuild(connection, known)
        if metric.defined and not metric.same_as(new):
            raise metric_conflict(metric)
        if metric.defined or is_built_as(metric, new):
            return metric
        made = await define_later(connection, metric, new, self._dimension_values_max, clock.now())
        await note_metric(connection, None, made, by_key)
        return made


def _metric_id(page_token: str) -> int:
    part = pages.decode_token(page_token, 1)[0]
    # A bigint has at most 19 digits.
    if not (part.isascii() and part.isdigit() and len(part) < 19):
        raise pages.invalid_token()
    return int(part)
