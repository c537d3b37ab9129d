"""Applies batches of events to the buckets, each batch once.

One transaction takes the batches that are new, folds them in memory and adds the result to the
buckets; only after its commit are the messages acknowledged. Killed anywhere before the commit,
nothing is counted and the batches come again; killed after it, they come again and are known.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import structlog
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from prometheus_client import Counter, Histogram
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1.events_pb2 import EventBatch

from services.aggregator import fold_repository, metric_repository
from services.aggregator.column_fold import NOTHING, Counted
from services.aggregator.detail_repository import add_details
from services.aggregator.fold import (
    Cells,
    Definition,
    DimensionValue,
    Fold,
    Series,
    events_in,
    metrics_of,
    overflowed,
    plain_series,
    series_of,
    values_of,
)
from services.aggregator.known_values import find_known, make_known
from services.aggregator.metric_repository import MetricKey
from services.aggregator.quotas.change_repository import Growth, note_growth
from services.aggregator.quotas.threshold_repository import Touch, insert_touches
from services.aggregator.remembered import RememberedDefinitions, RememberedSeries, RememberedValues
from services.aggregator.void_folder import BatchRefusedError, apply_voids, has_voids
from services.kit import clock, faults
from services.kit.database import Database, TenantKey
from services.kit.money import EXACT

log = structlog.get_logger()

# Messages taken at a time, and events folded in a transaction: bounds of memory and of the time
# that rows stay locked.
MESSAGES_MAX = 128
# Transactions under load are so far apart, which is less than half of what usage may lag behind.
# Buckets are met again and again in that time: from 0.03 to 0.2 s, 500 events a call cost
# aggregator 4 us an event instead of 9, and PostgreSQL 6.5 instead of 11.
GATHER_S = 0.2
EVENTS_MAX = 40_000
ATTEMPTS_MAX = 4
# deadlock_detected, serialization_failure: the same again will do.
_REPEATABLE_STATES = ("40P01", "40001")
_NO_GROWTH = Growth(0, Decimal(0))


def is_repeatable(error: DBAPIError) -> bool:
    """Whether the same transaction again may succeed."""
    return getattr(error.orig, "sqlstate", "") in _REPEATABLE_STATES


_EVENTS = Counter("usageflow_events_folded", "Events counted in buckets")
_VOIDS = Counter("usageflow_voids_folded", "Voided events taken out of buckets")
_BATCHES = Counter("usageflow_batches_received", "Batches of events received", ["outcome"])
_OVERFLOWED = Counter(
    "usageflow_dimension_values_overflowed",
    "Values, counted again in each transaction, that their full dimension did not know",
)
_SECONDS = Histogram("usageflow_fold_seconds", "Time of a transaction that folds batches")


def _nobody_waits(_batch_ids: Collection[str]) -> None:
    """In the place of what is told which batches have been counted."""


def _nobody_recounts() -> None:
    """In the place of what counts buckets anew."""


def _nobody_looks() -> None:
    """In the place of what looks whether thresholds are reached."""


def _nobody_watches(_metrics: Collection[MetricKey]) -> None:
    """In the place of what is told whose usage was counted."""


@dataclass(slots=True)
class _Applied:
    """What a transaction has done and learned; remembered only after its commit."""

    definition_version: int
    new: list[EventBatch]
    refused: list[EventBatch]
    definitions: dict[MetricKey, Definition] = field(default_factory=dict)
    series_ids: dict[Series, int] = field(default_factory=dict)
    values: set[DimensionValue] = field(default_factory=set)
    customers_told: bool = False
    buckets_marked: int = 0
    quotas_touched: bool = False


class Folder:
    """Handles the messages of the stream of event batches."""

    def __init__(
        self,
        database: Database,
        customers_told: Callable[[], None],
        *,
        batches_counted: Callable[[Collection[str]], None] = _nobody_waits,
        buckets_marked: Callable[[], None] = _nobody_recounts,
        quotas_touched: Callable[[], None] = _nobody_looks,
        usage_changed: Callable[[Collection[MetricKey]], None] = _nobody_watches,
        pause_after_commit_s: float = 0.0,
    ) -> None:
        """`customers_told` is called after a commit that put messages into the outbox,
        `batches_counted` after each commit, with the ids of batches that have been counted,
        `buckets_marked` after one that has marked buckets which are to be counted anew;
        `quotas_touched` after one that has added usage of metrics with quotas; `usage_changed`
        after one that has counted anything, with the metrics, or none when it was voids.
        """
        self._database = database
        self._customers_told = customers_told
        self._batches_counted = batches_counted
        self._buckets_marked = buckets_marked
        self._quotas_touched = quotas_touched
        self._usage_changed = usage_changed
        self._pause_after_commit_s = pause_after_commit_s
        self._definitions = RememberedDefinitions()
        self._series = RememberedSeries()
        self._values = RememberedValues()

    async def handle(self, messages: Sequence[Msg]) -> None:
        """Apply the batches in the messages; when it returns, all may be acknowledged."""
        await self.apply([batch for message in messages for batch in _decoded(message.data)])
        if self._pause_after_commit_s:
            await asyncio.sleep(self._pause_after_commit_s)

    async def apply(self, batches: Iterable[EventBatch]) -> None:
        """Count the events of those batches that were not counted before."""
        for group in _groups(batches):
            with _SECONDS.time():
                applied = await self._apply_group(group)
            self._remember(applied, group)

    async def _apply_group(self, group: Sequence[EventBatch]) -> _Applied:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self._database.transaction() as connection:
                    return await self._apply_in(connection, group)
            except BatchRefusedError as error:
                # Not recorded in the inbox: ingest sends it again, and its watermark waits.
                log.error("batch_refused", batch_id=group[0].batch_id, error=str(error))  # noqa: TRY400
                return _Applied(definition_version=0, new=[], refused=list(group))
            except DBAPIError as error:
                if not is_repeatable(error) or attempt == ATTEMPTS_MAX:
                    raise
                log.info(
                    "fold_repeated", attempt=attempt, sqlstate=getattr(error.orig, "sqlstate", "")
                )
        raise AssertionError("the last attempt returns or raises")

    async def _apply_in(self, connection: AsyncConnection, group: Sequence[EventBatch]) -> _Applied:
        applied = await _take(connection, group)
        if not applied.new:
            return applied
        if has_voids(applied.new[0]):
            applied.buckets_marked = await apply_voids(connection, applied.new[0])
            return applied
        applied.definitions = await self._find_definitions(connection, applied)
        folds = [Fold(_by_tenant(applied.definitions))]
        if building := _building(applied.definitions):
            folds.append(Fold(_by_tenant(building), others_left_out=True))
        for batch in applied.new:
            for fold in folds:
                fold.add(batch)
            # A long fold lets others have their turn.
            await asyncio.sleep(0)
        # A metric's two definitions count under ids of their own: no cell is in both.
        cells: Cells = {}
        plain = NOTHING
        for fold in folds:
            some, others = fold.counted()
            cells.update(some)
            plain = plain.plus(others)
        await self._store(connection, applied, cells, plain)
        return applied

    async def store_recounted(
        self, connection: AsyncConnection, key: MetricKey, by: Definition, cells: Cells
    ) -> None:
        """Add what was folded anew of one metric to its buckets.

        Nothing is remembered: the caller's transaction may still fail.
        """
        applied = _Applied(0, [], [], definitions={key: by})
        await self._store(connection, applied, cells)

    async def _store(
        self,
        connection: AsyncConnection,
        applied: _Applied,
        cells: Cells,
        plain: Counted = NOTHING,
    ) -> None:
        """Add what was folded to the buckets; `plain`: of metrics counted by customer alone."""
        names = {known.metric_id: known.dimensions for _key, known in _all(applied.definitions)}
        cells = await self._bound(connection, applied, cells, names)
        of_cell = series_of(cells, names)
        series = [*of_cell.values(), *plain_series(plain)]
        counted = Counted.of({cell: cells[cell] for cell in of_cell}).plus(plain)
        found = await self._find_series(connection, applied, set(series))
        applied.series_ids = found
        series_ids = [found[each] for each in series]
        await fold_repository.add_to_buckets(connection, series_ids, counted)
        await add_details(
            connection,
            [(found[each], cell[3], cells[cell]) for cell, each in of_cell.items()],
        )
        limited = {
            known.metric_id: known.limited_id
            for known in applied.definitions.values()
            if known.limited_id is not None
        }
        if limited and (grown := _grown(counted, limited)):
            await insert_touches(connection, grown.keys())
            await note_growth(connection, grown)
            applied.quotas_touched = True

    async def _find_definitions(
        self, connection: AsyncConnection, applied: _Applied
    ) -> dict[MetricKey, Definition]:
        """The definitions of all metrics that the new batches name."""
        named = {
            MetricKey(*tenant, key)
            for batch in applied.new
            for tenant, keys in metrics_of(batch).items()
            for key in keys
        }
        known = self._definitions.find(applied.definition_version, named)
        if missing := named - known.keys():
            known |= await metric_repository.find_definitions(connection, missing)
        if unknown := named - known.keys():
            await metric_repository.define_by_event(connection, unknown, clock.now())
            known |= await metric_repository.find_definitions(connection, unknown)
        return known

    async def _bound(
        self,
        connection: AsyncConnection,
        applied: _Applied,
        cells: Cells,
        names: Mapping[int, tuple[str, ...]],
    ) -> Cells:
        """The cells with those values together that their dimension has no room for."""
        unknown = self._values.unknown(values_of(cells, names))
        if not unknown:
            return cells
        applied.values = await find_known(connection, unknown)
        if missing := unknown - applied.values:
            applied.values |= await make_known(connection, missing)
        over = unknown - applied.values
        if over:
            _OVERFLOWED.inc(len(over))
        return overflowed(cells, names, over)

    async def _find_series(
        self, connection: AsyncConnection, applied: _Applied, wanted: set[Series]
    ) -> dict[Series, int]:
        """The ids of all series; those that are new are stored, and so are their customers."""
        ids = self._series.find(wanted)
        if missing := wanted - ids.keys():
            ids |= await fold_repository.find_series(connection, missing)
        new = sorted(wanted - ids.keys(), key=lambda series: (series.metric_id, series.key()))
        if new:
            ids |= await fold_repository.insert_series(connection, new)
        if waited_for := wanted - ids.keys():
            ids |= await fold_repository.find_series(connection, waited_for)
        tenants = {known.metric_id: key for key, known in _all(applied.definitions)}
        named = {
            (TenantKey(*tenants[series.metric_id][:2]), series.customer_id)
            for series in new
            if series.customer_id
        }
        if named:
            # A series that existed has told of its customer when it was stored.
            for tenant, customer_ids in (
                await fold_repository.insert_customers(connection, named)
            ).items():
                await fold_repository.tell_customers_seen(connection, tenant, customer_ids)
                applied.customers_told = True
        return ids

    def _remember(self, applied: _Applied, group: Sequence[EventBatch]) -> None:
        """The transaction is committed: what it has read and written can be relied on."""
        self._definitions.remember(applied.definition_version, applied.definitions)
        self._series.remember(applied.series_ids)
        self._values.remember(applied.values)
        if applied.customers_told:
            self._customers_told()
        if applied.buckets_marked:
            self._buckets_marked()
        if applied.quotas_touched:
            self._quotas_touched()
        if applied.new:
            self._usage_changed(applied.definitions.keys())
        refused_ids = {batch.batch_id for batch in applied.refused}
        self._batches_counted([b.batch_id for b in group if b.batch_id not in refused_ids])
        received, new, refused = len(group), len(applied.new), len(applied.refused)
        _BATCHES.labels("applied").inc(new)
        _BATCHES.labels("refused").inc(refused)
        _BATCHES.labels("known").inc(received - new - refused)
        _EVENTS.inc(sum(events_in(batch) for batch in applied.new))
        _VOIDS.inc(sum(_voids_in(batch) for batch in applied.new))


def _grown(counted: Counted, limited: Mapping[int, int]) -> dict[Touch, Growth]:
    """What customers have used more; `limited`: metrics with quotas, by their counted ids."""
    grown: dict[Touch, Growth] = {}
    for metric_id, customer_id, quarter, events, added in zip(*counted[:5], strict=True):
        if not customer_id or metric_id not in limited:
            continue
        touch = Touch(limited[metric_id], customer_id, quarter)
        count, amount = grown.get(touch, _NO_GROWTH)
        grown[touch] = Growth(count + events, EXACT.add(amount, EXACT.create_decimal(added)))
    return grown


async def _take(connection: AsyncConnection, group: Sequence[EventBatch]) -> _Applied:
    """Record the batches in the inbox and tell which of them are to be applied.

    The state is read after the inbox was written: a batch that pruning has just removed from the
    inbox lies before the horizon that is seen then.
    """
    by_id = {batch.batch_id: batch for batch in group}
    accept_times = {batch_id: _accept_time(batch) for batch_id, batch in by_id.items()}
    taken = await fold_repository.take_new_batches(connection, accept_times)
    if faults.seeded(faults.Fault.INBOX_OFF):
        taken |= by_id.keys()
    state = await fold_repository.read_fold_state(connection)
    refused = _before_horizon(accept_times, taken, state.inbox_horizon)
    if refused:
        # Nobody can tell any more whether it was applied, so it is not. If it was not, ingest
        # has no confirmation, its watermark waits, and no invoice is made without it.
        log.error("batches_before_horizon", batch_ids=sorted(refused))
        await fold_repository.untake_batches(connection, refused)
    return _Applied(
        definition_version=state.definition_version,
        new=[by_id[batch_id] for batch_id in taken - refused],
        refused=[by_id[batch_id] for batch_id in refused],
    )


def _before_horizon(
    accept_times: dict[str, datetime], taken: set[str], horizon: datetime | None
) -> set[str]:
    if horizon is None:
        return set()
    return {batch_id for batch_id in taken if accept_times[batch_id] < horizon}


def _accept_time(batch: EventBatch) -> datetime:
    return batch.accept_time.ToDatetime(tzinfo=UTC)


def _decoded(payload: bytes) -> Iterator[EventBatch]:
    try:
        yield EventBatch.FromString(payload)
    except DecodeError:
        # Not what ingest has sent: it holds the batch and sends it again.
        log.error("batch_unreadable", payload_bytes=len(payload))  # noqa: TRY400


def _groups(batches: Iterable[EventBatch]) -> Iterator[list[EventBatch]]:
    """Cut batches into groups of at most EVENTS_MAX events; a larger batch stands alone, and so
    does a batch of voids.
    """
    group: list[EventBatch] = []
    events = 0
    for batch in batches:
        if has_voids(batch):
            yield [batch]
            continue
        size = events_in(batch)
        if group and events + size > EVENTS_MAX:
            yield group
            group, events = [], 0
        group.append(batch)
        events += size
    if group:
        yield group


def _voids_in(batch: EventBatch) -> int:
    return sum(len(tenant.voided_events) for tenant in batch.tenants)


def _building(definitions: Mapping[MetricKey, Definition]) -> dict[MetricKey, Definition]:
    """What those of the metrics are counted by besides whose definition changes."""
    return {key: known.building for key, known in definitions.items() if known.building}


def _all(definitions: Mapping[MetricKey, Definition]) -> Iterator[tuple[MetricKey, Definition]]:
    yield from definitions.items()
    yield from _building(definitions).items()


def _by_tenant(
    definitions: Mapping[MetricKey, Definition],
) -> dict[TenantKey, dict[str, Definition]]:
    nested: dict[TenantKey, dict[str, Definition]] = {}
    for key, definition in definitions.items():
        tenant = TenantKey(key.organization_id, key.mode)
        nested.setdefault(tenant, {})[key.key] = definition
    return nested
