"""Changes of a metric's definition, and how far one has got. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.aggregator.domain import Metric, NewMetric
from services.kit.errors import ConflictError

# What is being read from ingest, and so the state of a rebuild that runs.
EVENTS = "EVENTS"
VOIDS = "VOIDS"
RUNNING = "RUNNING"

# A quota is of a sum: units set aside can be added to nothing else.
LIMITABLE = frozenset({"SUM", "COUNT"})
# A plan that is in use is billed at least once a month; some days for what holds billing up.
BILLED_LATELY = timedelta(days=40)


@dataclass(frozen=True, slots=True)
class MetricChange:
    """What is to be different; None: stays as it is."""

    name: str | None = None
    unit: str | None = None
    aggregation: str | None = None
    dimensions: tuple[str, ...] | None = None
    unique_by: str | None = None
    percentiles: bool | None = None

    def of(self, old: NewMetric) -> NewMetric:
        """The changed definition. The property of UNIQUE_COUNT goes with it."""
        fields: Mapping[str, object] = {
            "name": self.name,
            "unit": self.unit,
            "aggregation": self.aggregation,
            "dimensions": self.dimensions,
            "unique_by": self.unique_by,
            "percentiles": self.percentiles,
        }
        new = replace(old, **{name: value for name, value in fields.items() if value is not None})  # type: ignore[arg-type]
        if self.unique_by is None and new.aggregation != old.aggregation:
            new = replace(new, unique_by="")
        return new


def same_counting(old: NewMetric, new: NewMetric) -> bool:
    """Whether what is counted for one is right for the other: only names differ, or the order."""
    return _counting(old) == _counting(new) and set(old.dimensions) == set(new.dimensions)


def _counting(metric: NewMetric) -> tuple[str, str, bool]:
    return metric.aggregation, metric.unique_by, metric.percentiles


def needs_rebuild(metric: Metric, new: NewMetric) -> bool:
    """Whether the stored events have to be counted anew for `new`.

    Every bucket of a metric that defined itself has all that SUM to LATEST are made of.
    """
    if metric.defined:
        return not same_counting(metric.definition, new)
    return bool(new.dimensions) or new.is_detailed


def changes_prices(old: NewMetric, new: NewMetric) -> bool:
    """Whether what is billed may become another figure, or lose what a price is told by."""
    return (old.aggregation, old.unique_by) != (new.aggregation, new.unique_by) or not set(
        old.dimensions
    ) <= set(new.dimensions)


def check_change(metric: Metric, new: NewMetric, *, has_quotas: bool) -> None:
    """ConflictError: invoices or quotas rely on what would change."""
    key = metric.definition.key
    if metric.billed_time is not None and changes_prices(metric.definition, new):
        raise ConflictError(
            f'The metric "{key}" has been billed: its aggregation and uniqueBy stay, and no '
            "dimension goes; define another metric under another key",
            reason="metric_is_billed",
        )
    if has_quotas and new.aggregation not in LIMITABLE:
        raise ConflictError(
            f'The metric "{key}" has quotas, which limit SUM or COUNT only: delete these first',
            reason="metric_has_quotas",
        )


def check_archive(metric: Metric, now: datetime) -> None:
    """ConflictError: a plan in use prices the metric."""
    billed = metric.billed_time
    if billed is not None and billed > now - BILLED_LATELY:
        raise ConflictError(
            f'The metric "{metric.definition.key}" is priced by a plan in use: it was billed on '
            f"{billed:%Y-%m-%d}; {BILLED_LATELY.days} days after the last time it can be archived",
            reason="metric_is_billed",
        )
