"""Folds events into buckets, in memory. Pure; the hot path of aggregator.

What is counted by customer alone is folded by column (column_fold.py); anything else in one pass, a
dictionary look-up and one exact addition an event. Folding any partition of the same events in any
order gives buckets that combine to the same figures.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import NamedTuple

from usageflow.events.v1.events_pb2 import EventBatch, EventColumns, TenantEvents, UsageEvent

from services.aggregator import details, dimensions
from services.aggregator.bucket import Bucket
from services.aggregator.column_fold import NOTHING, ColumnFold, Counted, event_count
from services.aggregator.domain import QUARTER_US
from services.kit.auth import MODE_NAMES
from services.kit.database import TenantKey
from services.kit.events import EVENT_ID_BYTES
from services.kit.money import EXACT

SERIES_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Definition:
    """What the fold has to know of a metric."""

    # Under which it is counted: Metric.counted_id.
    metric_id: int
    dimensions: tuple[str, ...]
    # The metric's own id, if it has quotas.
    limited_id: int | None = None
    # The property whose values are counted apart, or "".
    unique_by: str = ""
    percentiles: bool = False
    # What its events are counted by besides, because the definition changes.
    building: "Definition | None" = None


# By organization and mode, then by metric key.
Definitions = Mapping[TenantKey, Mapping[str, Definition]]

# Metric id, customer ("" for none), dimension values in the order of the definition, and the
# number of the quarter of an hour since 1970.
Cell = tuple[int, str, tuple[str, ...], int]


Cells = dict[Cell, Bucket]


class DimensionValue(NamedTuple):
    """A value of one of a metric's dimensions."""

    metric_id: int
    name: str
    value: str


def values_of(cells: Cells, names: Mapping[int, tuple[str, ...]]) -> set[DimensionValue]:
    """The values of all cells that a dimension needs room for."""
    seen = {(metric_id, values) for metric_id, _customer, values, _quarter in cells if values}
    return {
        DimensionValue(metric_id, name, value)
        for metric_id, values in seen
        for name, value in zip(names[metric_id], values, strict=True)
        if dimensions.needs_room(value)
    }


def overflowed(
    cells: Cells, names: Mapping[int, tuple[str, ...]], over: Collection[DimensionValue]
) -> Cells:
    """The cells with the values in `over` counted together."""
    if not over:
        return cells
    result: Cells = {}
    for (metric_id, customer_id, values, quarter), bucket in cells.items():
        kept = tuple(
            dimensions.OVERFLOW if DimensionValue(metric_id, name, value) in over else value
            for name, value in zip(names[metric_id] if values else (), values, strict=True)
        )
        cell = (metric_id, customer_id, kept, quarter)
        if cell in result:
            result[cell].merge(bucket)
        else:
            result[cell] = bucket
    return result


def tenant_of(tenant: TenantEvents) -> TenantKey:
    """Whose events they are. KeyError: a mode that no sender has."""
    return TenantKey(tenant.organization_id, MODE_NAMES[tenant.mode])


def metrics_of(batch: EventBatch) -> dict[TenantKey, set[str]]:
    """The metric keys that a batch's events name."""
    named: dict[TenantKey, set[str]] = {}
    for tenant in batch.tenants:
        keys = named.setdefault(tenant_of(tenant), set())
        keys.update(tenant.columns.metrics)
        keys.update(event.metric for event in tenant.events)
    return named


def events_in(batch: EventBatch) -> int:
    """How many events a batch has, voids aside."""
    return sum(len(tenant.events) + event_count(tenant.columns) for tenant in batch.tenants)


class Row(NamedTuple):
    """An event out of columns: what a UsageEvent has."""

    event_id: bytes
    metric: str
    amount: str
    customer_id: str
    time_unix_micros: int
    metadata_json: str


def rows_of(columns: EventColumns) -> Iterator[Row]:
    """The events one by one."""
    ids, count = columns.event_ids, event_count(columns)
    times = columns.times_unix_micros
    if not count:
        return iter(())
    return map(
        Row,
        [ids[at : at + EVENT_ID_BYTES] for at in range(0, len(ids), EVENT_ID_BYTES)],
        _values(columns.metrics, columns.metric_indexes, count),
        _values(columns.amounts, columns.amount_indexes, count),
        _values(columns.customer_ids, columns.customer_indexes, count),
        times if len(times) == count else [times[0]] * count,
        _values(columns.metadata_json or [""], columns.metadata_indexes, count),
    )


def _values(table: Sequence[str], indexes: Sequence[int], count: int) -> list[str]:
    """Each event's value of a field."""
    return [table[index] for index in indexes] if indexes else [table[0]] * count


class Fold:
    """Folds batches. Sums are exact: 60 digits, or decimal.Inexact."""

    def __init__(self, definitions: Definitions, *, others_left_out: bool = False) -> None:
        """`definitions` have all metrics of the batches; if not, the events of others may be
        `others_left_out`.
        """
        self._others_left_out = others_left_out
        self._known = {
            tenant: {key: _Known.of(definition) for key, definition in metrics.items()}
            for tenant, metrics in definitions.items()
        }
        self._cells: Cells = {}
        self._columns = ColumnFold()

    def add(self, batch: EventBatch) -> None:
        """Count a batch's events."""
        with localcontext(EXACT):
            for tenant in batch.tenants:
                self._add(tenant)

    def _add(self, tenant: TenantEvents) -> None:
        known = self._known.get(tenant_of(tenant), {})
        columns = tenant.columns
        metrics = [known.get(metric) for metric in columns.metrics]
        if metrics and all(metric is not None and metric.is_plain for metric in metrics):
            ids = {key: metric.metric_id for key, metric in known.items()}
            self._columns.add(columns, ids)
        else:
            self._add_rows(rows_of(columns), known)
        self._add_rows(tenant.events, known)

    def _add_rows(self, rows: Iterable[Row | UsageEvent], known: Mapping[str, "_Known"]) -> None:
        cells = self._cells
        if self._others_left_out:
            rows = [row for row in rows if row.metric in known]
        for event in rows:
            metric_id, read, detailed = known[event.metric]
            metadata = event.metadata_json
            values = read(metadata) if read else ()
            time_us = event.time_unix_micros
            amount = Decimal(event.amount)
            cell = (metric_id, event.customer_id, values, time_us // QUARTER_US)
            bucket = cells.get(cell)
            if bucket is None:
                bucket = cells[cell] = Bucket.of(amount, time_us, event.event_id)
            else:
                bucket.add(amount, time_us, event.event_id)
            if detailed is None:
                continue
            if detailed.unique_by:
                bucket.add_value(dimensions.key_of(detailed.unique_by, metadata))
            if detailed.percentiles:
                bucket.add_amount(details.rounded(amount))

    @property
    def size(self) -> int:
        """How many cells there are; of events that came by column, how many customers."""
        return len(self._cells) + self._columns.size

    def cells(self) -> Cells:
        """What was counted; the fold is over."""
        with localcontext(EXACT):
            for (metric_id, customer_id, quarter), bucket in self._columns.counted().buckets():
                cell = (metric_id, customer_id, (), quarter)
                if cell in self._cells:
                    self._cells[cell].merge(bucket)
                else:
                    self._cells[cell] = bucket
        return self._cells

    def counted(self) -> tuple[Cells, Counted]:
        """What was counted, some as cells and some, which takes a third of the time, as columns:
        no metric is among both. The fold is over.
        """
        if self._columns.metric_ids & {cell[0] for cell in self._cells}:
            return self.cells(), NOTHING
        return self._cells, self._columns.counted()


class _Known(NamedTuple):
    """A metric, made ready."""

    metric_id: int
    read: dimensions.Reader | None
    detailed: Definition | None

    @classmethod
    def of(cls, definition: Definition) -> "_Known":
        detailed = definition.unique_by or definition.percentiles
        reader = dimensions.reader(definition.dimensions)
        return cls(definition.metric_id, reader, definition if detailed else None)

    @property
    def is_plain(self) -> bool:
        """Whether it is counted by customer alone."""
        return self.read is None and self.detailed is None


def fold(batches: Iterable[EventBatch], definitions: Definitions) -> Cells:
    """What the events of batches are counted as; `definitions` have all their metrics."""
    folded = Fold(definitions)
    for batch in batches:
        folded.add(batch)
    return folded.cells()


NO_DIMENSIONS = dimensions.canonical((), ())


class Series(NamedTuple):
    """What is counted apart. `dimensions_json` is canonical (dimensions.canonical)."""

    metric_id: int
    customer_id: str
    dimensions_json: str

    def key(self) -> bytes:
        """16 bytes that stand for customer and dimensions under the metric.

        A hash (BLAKE2b) because values are too long for an index. A customer has no control
        characters, so NUL cannot be part of one and no two series have the same input.
        """
        content = f"{self.customer_id}\0{self.dimensions_json}".encode()
        return hashlib.blake2b(content, digest_size=SERIES_KEY_BYTES).digest()


def plain_series(counted: Counted) -> list[Series]:
    """The series of every cell of what is counted by customer alone."""
    return [
        Series(metric_id, customer_id, NO_DIMENSIONS)
        for metric_id, customer_id in zip(counted.metric_ids, counted.customer_ids, strict=True)
    ]


def series_of(cells: Cells, names: Mapping[int, tuple[str, ...]]) -> dict[Cell, Series]:
    """The series of every cell; `names` are the dimensions of each metric id."""
    made: dict[tuple[int, str, tuple[str, ...]], Series] = {}
    found: dict[Cell, Series] = {}
    for cell in cells:
        metric_id, customer_id, values, _quarter = cell
        series = made.get(cell[:3])
        if series is None:
            text = dimensions.canonical(names[metric_id], values)
            series = made[cell[:3]] = Series(metric_id, customer_id, text)
        found[cell] = series
    return found
