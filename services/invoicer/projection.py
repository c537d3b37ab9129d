"""What a running period will have used when it goes on as it did so far. Pure.

Linear by time: a quantity is multiplied by the seconds of the whole period over those that are
known. Only what adds up over time grows so; a maximum, an average, the latest value or a number of
different values stays as it is.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from services.invoicer.closing import OpenPeriod, Usage
from services.invoicer.exact import multiply, nearest, total
from services.invoicer.periods import QUARTER_HOUR, Period
from services.invoicer.pricing.usage import EventSums, MetricUsage

# Beyond that a product with a price may not be exact any more; less is known than projected.
PROJECTED_BELOW = Decimal("1E26")


def projected_usages(due: OpenPeriod, usages: Sequence[Usage], as_of: datetime) -> list[Usage]:
    """`usages`, which answer due.selections(), with those of the period as they will be at its end.

    As they are, when less than a quarter of an hour of it is known, or all of it.
    """
    if not usages or not due.plan.content.metrics:
        return list(usages)
    known = Period(due.period.start, max(due.period.start, min(as_of, due.period.end)))
    if known.seconds < QUARTER_HOUR.total_seconds() or known == due.period:
        return list(usages)
    first, *earlier = usages
    scaled = {
        metric: _at_end(usage, known.seconds, due.period.seconds) for metric, usage in first.items()
    }
    return [scaled, *earlier]


def _at_end(usage: MetricUsage, known_s: int, whole_s: int) -> MetricUsage:
    if not usage.adds_up or _scaled(usage.quantity, known_s, whole_s) >= PROJECTED_BELOW:
        return usage
    count = usage.event_count
    parts, sums = usage.parts, usage.event_sums
    if parts is not None:
        parts = tuple(
            replace(part, quantity=_scaled(part.quantity, known_s, whole_s)) for part in parts
        )
    return replace(
        usage,
        # The parts are the whole, also after each of them is rounded.
        quantity=_scaled(usage.quantity, known_s, whole_s)
        if parts is None
        else total(part.quantity for part in parts),
        event_count=None if count is None else _scaled_count(count, known_s, whole_s),
        parts=parts,
        event_sums=None if sums is None else _scaled_sums(sums, known_s, whole_s),
    )


def _scaled_sums(sums: EventSums, known_s: int, whole_s: int) -> EventSums:
    """Each of them: of the events to come as many are free as of those there were."""
    amounts = {
        name: _scaled(getattr(sums, name), known_s, whole_s)
        for name in ("given", "free_amount", "proportional")
    }
    counts = {
        name: _scaled_count(getattr(sums, name), known_s, whole_s)
        for name in ("count", "paid", "fixed", "at_least", "at_most")
    }
    return EventSums(**amounts, **counts)  # type: ignore[arg-type] # by their names


def _scaled_count(count: int, known_s: int, whole_s: int) -> int:
    return int(_scaled(Decimal(count), known_s, whole_s))


def _scaled(quantity: Decimal, known_s: int, whole_s: int) -> Decimal:
    """Rounded half up to as many digits after the point as it has now: a count stays whole."""
    return nearest(multiply(quantity, Decimal(whole_s)), Decimal(known_s), like=quantity)
