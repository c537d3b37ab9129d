"""Folds events into buckets, in memory. Pure; the hot path of aggregator.

It works on the messages as they are, one pass, a dictionary look-up and one exact addition an
event. Folding any partition of the same events in any order gives buckets that combine to the
same figures.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import NamedTuple, TypeVar

from usageflow.events.v1.events_pb2 import EventBatch, TenantEvents

from services.aggregator import details, dimensions
from services.aggregator.domain import QUARTER_US
from services.kit.auth import MODE_NAMES
from services.kit.database import TenantKey
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


class Bucket:
    """The usage of a cell: mutable, because it is added to for every event."""

    __slots__ = (
        "amount_max",
        "amount_min",
        "amount_sum",
        "amounts",
        "event_count",
        "latest_event_id",
        "latest_time_us",
        "latest_value",
        "values",
    )

    def __init__(self, amount: Decimal, time_us: int, event_id: bytes) -> None:
        self.event_count = 1
        self.amount_sum = self.amount_min = self.amount_max = self.latest_value = amount
        self.latest_time_us = time_us
        self.latest_event_id = event_id
        # Events by key of their value, and by rounded amount (details.py); None: not kept.
        self.values: dict[bytes, int] | None = None
        self.amounts: dict[Decimal, int] | None = None

    def add(self, amount: Decimal, time_us: int, event_id: bytes) -> None:
        """Count one more event."""
        self.event_count += 1
        self.amount_sum += amount
        if amount < self.amount_min:
            self.amount_min = amount
        elif amount > self.amount_max:
            self.amount_max = amount
        if time_us >= self.latest_time_us and (
            time_us > self.latest_time_us or event_id > self.latest_event_id
        ):
            self.latest_time_us = time_us
            self.latest_event_id = event_id
            self.latest_value = amount

    def merge(self, other: "Bucket") -> None:
        """Count all that another bucket of the same quarter of an hour has counted."""
        self.event_count += other.event_count
        self.amount_sum = EXACT.add(self.amount_sum, other.amount_sum)
        self.amount_min = min(self.amount_min, other.amount_min)
        self.amount_max = max(self.amount_max, other.amount_max)
        if (other.latest_time_us, other.latest_event_id) > (
            self.latest_time_us,
            self.latest_event_id,
        ):
            self.latest_time_us = other.latest_time_us
            self.latest_event_id = other.latest_event_id
            self.latest_value = other.latest_value
        self.values = _added(self.values, other.values)
        self.amounts = _added(self.amounts, other.amounts)

    def add_value(self, key: bytes) -> None:
        """Count the value of the event that was added last."""
        if self.values is None:
            self.values = {}
        self.values[key] = self.values.get(key, 0) + 1

    def add_amount(self, amount: Decimal) -> None:
        """Count the rounded amount of the event that was added last."""
        if self.amounts is None:
            self.amounts = {}
        self.amounts[amount] = self.amounts.get(amount, 0) + 1


_Key = TypeVar("_Key")


def _added(one: dict[_Key, int] | None, other: dict[_Key, int] | None) -> dict[_Key, int] | None:
    if one is None or other is None:
        return one or other
    return {key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()}


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
        keys.update(tenant.metrics or [event.metric for event in tenant.events])
    return named


def only_of(batch: EventBatch, definitions: Definitions) -> EventBatch:
    """The batch's events of these metrics alone."""
    kept = EventBatch()
    for tenant in batch.tenants:
        if known := definitions.get(tenant_of(tenant)):
            kept.tenants.add(
                organization_id=tenant.organization_id,
                mode=tenant.mode,
                events=[event for event in tenant.events if event.metric in known],
            )
    return kept


def fold(cells: Cells, batch: EventBatch, definitions: Definitions) -> None:
    """Add a batch's events to `cells`. Sums are exact: 60 digits, or decimal.Inexact."""
    with localcontext(EXACT):
        for tenant in batch.tenants:
            _fold_tenant(cells, tenant, definitions[tenant_of(tenant)])


def _fold_tenant(cells: Cells, tenant: TenantEvents, definitions: Mapping[str, Definition]) -> None:
    known = {
        key: (
            definition.metric_id,
            dimensions.reader(definition.dimensions),
            definition if definition.unique_by or definition.percentiles else None,
        )
        for key, definition in definitions.items()
    }
    for event in tenant.events:
        metric_id, read, detailed = known[event.metric]
        values = read(event.metadata_json) if read else ()
        time_us = event.time_unix_micros
        amount = Decimal(event.amount)
        cell = (metric_id, event.customer_id, values, time_us // QUARTER_US)
        bucket = cells.get(cell)
        if bucket is None:
            bucket = cells[cell] = Bucket(amount, time_us, event.event_id)
        else:
            bucket.add(amount, time_us, event.event_id)
        if detailed is None:
            continue
        if detailed.unique_by:
            bucket.add_value(dimensions.key_of(detailed.unique_by, event.metadata_json))
        if detailed.percentiles:
            bucket.add_amount(details.rounded(amount))


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
