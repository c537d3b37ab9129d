"""What taking voided events out of buckets does to them. Pure.

Count and sum are subtracted. Smallest, largest and last can't be: when the voided event may be one
of these, the bucket's extremes are no longer exact, and it is counted anew (recounter.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from usageflow.events.v1.events_pb2 import UsageEvent

from services.aggregator import details, dimensions
from services.aggregator.dimensions import Full
from services.aggregator.domain import QUARTER_US
from services.aggregator.fold import Series
from services.kit.errors import NotYetError
from services.kit.money import EXACT

RETRY_AFTER_S = 1.0

NO_DIMENSIONS = dimensions.canonical((), ())


class BucketKey(NamedTuple):
    """A series' id and the number of the quarter of an hour since 1970."""

    series_id: int
    quarter: int


@dataclass(frozen=True, slots=True)
class VoidableMetric:
    """What voids have to know of a metric. `metric_id`: under which it is counted.

    `needs_extremes`: its figure is made of them, or may be once somebody defines it.
    `counted_undefined`: it counted events before it was defined; theirs lie under no dimensions.
    `full`: dimensions that have no room for more values.
    """

    metric_id: int
    dimensions: tuple[str, ...]
    needs_extremes: bool
    counted_undefined: bool
    # As in fold.Definition.
    unique_by: str = ""
    percentiles: bool = False
    full: Full = field(default_factory=dict)
    # The metric's own id, by which quotas know it.
    own_id: int = 0


@dataclass(frozen=True, slots=True)
class Extremes:
    """Smallest and largest amount of a bucket, and which event happened last."""

    amount_min: Decimal
    amount_max: Decimal
    latest_time_us: int
    latest_event_id: bytes


@dataclass(slots=True)
class VoidableBucket:
    """A bucket that events are taken out of. `extremes` None: they are not exact."""

    key: BucketKey
    needs_extremes: bool
    event_count: int
    amount_sum: Decimal
    extremes: Extremes | None
    touched: bool = False

    def may_hold(self, event: UsageEvent) -> bool:
        """Whether count and sum leave room for the event."""
        rest = EXACT.subtract(self.amount_sum, Decimal(event.amount))
        # Amounts are never negative: nothing is left of the sum with the last event.
        return rest >= 0 if self.event_count > 1 else (self.event_count == 1 and rest == 0)

    def spans(self, event: UsageEvent) -> bool:
        """Whether the extremes include the event.

        They need not, if it was voided before a recount read the events and is taken out after.
        """
        extremes = self.extremes
        return extremes is None or (
            extremes.amount_min <= Decimal(event.amount) <= extremes.amount_max
            and (event.time_unix_micros, event.event_id)
            <= (extremes.latest_time_us, extremes.latest_event_id)
        )

    def take_out(self, event: UsageEvent) -> None:
        """Count one event less."""
        amount = Decimal(event.amount)
        self.touched = True
        self.event_count -= 1
        self.amount_sum = EXACT.subtract(self.amount_sum, amount)
        if self.extremes is not None and _was_extreme(self.extremes, event, amount):
            self.extremes = None

    @property
    def to_be_recounted(self) -> bool:
        """Whether its extremes are wanted and not exact.

        Also when they were not exact before: a recount that is running may have read the event.
        """
        return self.needs_extremes and self.extremes is None and self.event_count > 0


def _was_extreme(extremes: Extremes, event: UsageEvent, amount: Decimal) -> bool:
    if event.event_id == extremes.latest_event_id:
        return True
    if extremes.amount_min == extremes.amount_max:
        # All that are left have this amount too.
        return False
    return amount in (extremes.amount_min, extremes.amount_max)


def possible_series(metric: VoidableMetric, event: UsageEvent) -> Sequence[Series]:
    """The series that the event may have been counted in, the likeliest first."""
    read = dimensions.reader(metric.dimensions)
    values = read(event.metadata_json) if read else ()
    values = dimensions.bounded(metric.dimensions, values, metric.full) if values else values
    named = dimensions.canonical(metric.dimensions, values)
    found = [Series(metric.metric_id, event.customer_id, named)]
    if metric.counted_undefined and named != NO_DIMENSIONS:
        found.append(Series(metric.metric_id, event.customer_id, NO_DIMENSIONS))
    return found


def details_of(metric: VoidableMetric, event: UsageEvent) -> Sequence[bytes | Decimal]:
    """What the event was counted under in its bucket's details."""
    found: list[bytes | Decimal] = []
    if metric.unique_by:
        found.append(dimensions.key_of(metric.unique_by, event.metadata_json))
    if metric.percentiles:
        found.append(details.rounded(Decimal(event.amount)))
    return found


def quarter_number(event: UsageEvent) -> int:
    """The number of the quarter of an hour since 1970 in which the event happened."""
    return event.time_unix_micros // QUARTER_US


def being_recounted() -> NotYetError:
    """The error of a question whose figure is not known until a bucket has been counted anew."""
    message = "Events were voided and their usage is being counted anew; try again"
    return NotYetError(message, reason="being_recounted", retry_after_s=RETRY_AFTER_S)
