"""Metrics, and what is known of the usage of an interval. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from services.aggregator.aggregations import KINDS
from services.kit.database import TenantKey
from services.kit.errors import ConflictError, FieldChecks

# Every offset that an IANA zone has had since 2000 is a multiple of a quarter of an hour, so the
# days of any zone are made of whole buckets.
QUARTER = timedelta(minutes=15)
QUARTER_US = 15 * 60 * 1_000_000

KEY_CHARS_MAX = 128
NAME_CHARS_MAX = 200
UNIT_CHARS_MAX = 50
CUSTOMER_ID_CHARS_MAX = 255
DIMENSIONS_MAX = 8
# Values that a dimension of a metric knows, unless a setting says otherwise.
DIMENSION_VALUES_MAX = 1_000
# The word of the API for splitting by customer; no dimension may be called so.
CUSTOMER_GROUP = "customerId"
# How a metric that nobody defined counts.
SELF_DEFINED_AGGREGATION = "SUM"
UNIQUE_COUNT = "UNIQUE_COUNT"
REBUILD_DONE = "DONE"

_match_key = re.compile(r"[A-Za-z0-9_.:\-]{1,128}", re.ASCII).fullmatch
_has_control = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search


def is_metric_key(text: str) -> bool:
    """Whether `text` can be the key of a metric, or the name of a dimension."""
    return _match_key(text) is not None


def is_customer_id(text: str) -> bool:
    """Whether `text` can be a customer's id."""
    return 1 <= len(text) <= CUSTOMER_ID_CHARS_MAX and not _has_control(text)


@dataclass(frozen=True, slots=True)
class NewMetric:
    """A definition: what is counted, and how. `aggregation` is for example "SUM"."""

    key: str
    name: str = ""
    unit: str = ""
    aggregation: str = SELF_DEFINED_AGGREGATION
    dimensions: tuple[str, ...] = ()
    unique_by: str = ""
    percentiles: bool = False

    @property
    def is_detailed(self) -> bool:
        """Whether each bucket counts more than sums: values, or rounded amounts."""
        return bool(self.unique_by) or self.percentiles


@dataclass(frozen=True, slots=True)
class Rebuild:
    """How far a change of a definition has got.

    `state` is RUNNING, DONE, FAILED or CANCELLED, `new` what it changes to. `events_total` is how
    many had been counted when it began, None until that is known; more may come meanwhile.
    `error`: why it failed.
    """

    rebuild_id: int
    new: NewMetric | None
    state: str
    events_done: int
    events_total: int | None
    error: str
    start_time: datetime
    end_time: datetime | None

    @property
    def progress_percent(self) -> int:
        """0 to 100; 100 only once it is done."""
        if self.state == REBUILD_DONE:
            return 100
        if not self.events_total:
            return 0
        return min(self.events_done * 100 // self.events_total, 99)


class FoundMetrics(NamedTuple):
    """Keys of metrics that somebody has defined, that have defined themselves by their first event,
    and that are archived, of either kind.
    """

    defined: tuple[str, ...]
    self_defined: tuple[str, ...]
    archived: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as stored. `defined` is False when it defined itself by its first event.

    `counted_id`: under which its usage is counted. `archive_time`: it is not listed since then.
    `billed_time`: when billing last asked for its usage, give or take a day. `rebuild`: the last
    change of its definition that had to count its events anew.
    """

    metric_id: int
    counted_id: int
    tenant: TenantKey
    definition: NewMetric
    defined: bool
    create_time: datetime
    archive_time: datetime | None = None
    billed_time: datetime | None = None
    rebuild: Rebuild | None = None

    def same_as(self, new: NewMetric) -> bool:
        """Whether `new` defines the same; the order of dimensions does not matter."""
        old = self.definition
        return (
            (old.name, old.unit, old.aggregation, old.unique_by, old.percentiles)
            == (new.name, new.unit, new.aggregation, new.unique_by, new.percentiles)
        ) and set(old.dimensions) == set(new.dimensions)


def check_new_metric(new: NewMetric) -> None:
    """InvalidArgumentError names every field that is wrong and what is allowed."""
    checks = FieldChecks()
    allowed = f"1-{KEY_CHARS_MAX} characters of A-Z a-z 0-9 _ . : -"
    checks.require(is_metric_key(new.key), "key", f"must be {allowed}")
    _check_text(checks, new.name, "name", NAME_CHARS_MAX)
    _check_text(checks, new.unit, "unit", UNIT_CHARS_MAX)
    checks.require(
        new.aggregation in KINDS, "aggregation", f"must be one of {', '.join(sorted(KINDS))}"
    )
    if new.aggregation == UNIQUE_COUNT:
        needed = f"must name the metadata property whose values are counted: {allowed}"
        checks.require(is_metric_key(new.unique_by), "uniqueBy", needed)
    else:
        unwanted = "must be left out: only UNIQUE_COUNT counts a property"
        checks.require(not new.unique_by, "uniqueBy", unwanted)
    _check_dimensions(checks, new.dimensions, allowed)
    checks.done()


def _check_text(checks: FieldChecks, text: str, field: str, chars_max: int) -> None:
    checks.require(
        len(text) <= chars_max and not _has_control(text),
        field,
        f"must be at most {chars_max} characters without control characters",
    )


def _check_dimensions(checks: FieldChecks, names: Sequence[str], allowed: str) -> None:
    checks.require(len(names) <= DIMENSIONS_MAX, "dimensions", f"must be at most {DIMENSIONS_MAX}")
    checks.require(len(set(names)) == len(names), "dimensions", "must not name a property twice")
    checks.require(
        all(is_metric_key(name) for name in names), "dimensions", f"each must be {allowed}"
    )
    checks.require(
        CUSTOMER_GROUP not in names,
        "dimensions",
        f'must not name "{CUSTOMER_GROUP}": usage can always be grouped by it',
    )


def metric_conflict(metric: Metric) -> ConflictError:
    """The error of another definition for a key that is taken."""
    old = metric.definition
    return ConflictError(
        f'The metric "{old.key}" has another definition: aggregation {old.aggregation}, '
        f"dimensions [{', '.join(old.dimensions)}]; change it, or use another key",
        reason="metric_exists",
    )


def quarter_of(time: datetime) -> datetime:
    """Start of the UTC-aligned quarter of an hour that `time` lies in."""
    return time - timedelta(
        minutes=time.minute % 15, seconds=time.second, microseconds=time.microsecond
    )


def is_quarter(time: datetime) -> bool:
    """Whether `time` (UTC) lies on a quarter of an hour."""
    return quarter_of(time) == time


class UsageRow(NamedTuple):
    """The usage of one group in [start, end).

    An answer has thousands: a tuple is made in half the time of a frozen dataclass.
    """

    start: datetime
    end: datetime
    group: dict[str, str]
    value: Decimal
