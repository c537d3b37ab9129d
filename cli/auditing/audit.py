"""Holds answers about usage against raw events, while both go on.

Of each metric and day: ask for the usage, read the events, ask what of the day is still on its way,
ask for the usage again. What is the same both times, in an hour of which nothing is on its way, has
to be the figure of exactly those events. What is not is tried again, and told as undecided when it
never comes to rest.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from fractions import Fraction

from cli.auditing.parts import Figures, Metric, Parts
from cli.auditing.recount import Recount, Tally

ATTEMPTS_MAX = 5
PAUSE_S = 1.0
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
# More are counted, not kept.
DIFFERENCES_KEPT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that is not what the events say. None: nothing is told, or there are no events."""

    metric: Metric
    window: str
    start: datetime
    customer_id: str
    told: Fraction | None
    counted: Fraction | None


@dataclass(slots=True)
class Outcome:
    """What an audit has found so far."""

    metrics: int = 0
    events: int = 0
    figures: int = 0
    difference_count: int = 0
    differences: list[Difference] = field(default_factory=list)
    undecided: int = 0

    def note(self, difference: Difference) -> None:
        """Count a difference, and keep it when there are not too many."""
        self.difference_count += 1
        if len(self.differences) < DIFFERENCES_KEPT_MAX:
            self.differences.append(difference)


async def audit(
    parts: Parts,
    start: datetime,
    end: datetime,
    only: Collection[str],
    progress: Callable[[str], None],
) -> Outcome:
    """Recount all metrics, or `only` those, in [start, end). StackError."""
    outcome = Outcome()
    for metric in await _metrics(parts, start, end, only):
        progress(metric.key)
        outcome.metrics += 1
        await _audit_metric(parts, metric, start, end, outcome)
    return outcome


async def _metrics(
    parts: Parts, start: datetime, end: datetime, only: Collection[str]
) -> list[Metric]:
    """Those that aggregator knows, and those that it should."""
    known = {metric.key: metric for metric in await parts.metrics()}
    for day, next_day in days(start, end):
        for key, _hour in await parts.accepted(day, next_day):
            known.setdefault(key, Metric(key, known=False))
    return [known[key] for key in sorted(known) if not only or key in only]


async def _audit_metric(
    parts: Parts, metric: Metric, start: datetime, end: datetime, outcome: Outcome
) -> None:
    before = await parts.usage(metric, start, end, "TOTAL")
    whole: dict[str, Tally] = {}
    undecided = outcome.undecided
    async for recount in _days(parts, metric, start, end, outcome):
        for customer_id, tally in recount.by_customer.items():
            _merge(whole.setdefault(customer_id, Tally()), tally)
    if outcome.undecided > undecided:
        return
    counted = _figures(metric, {(start, customer): tally for customer, tally in whole.items()})
    after = await parts.usage(metric, start, end, "TOTAL")
    at_rest = {
        key
        for key in before.keys() | after.keys() | counted.keys()
        if before.get(key) == after.get(key)
    }
    _compare(metric, "TOTAL", after, counted, at_rest, outcome)


async def _days(
    parts: Parts, metric: Metric, start: datetime, end: datetime, outcome: Outcome
) -> AsyncIterator[Recount]:
    """What the events of each day say; each is compared."""
    for day, next_day in days(start, end):
        for attempt in range(1, ATTEMPTS_MAX + 1):
            before = await parts.usage(metric, day, next_day, "HOUR")
            recount = Recount(metric.unique_by)
            async for events in parts.events(metric.key, day, next_day):
                recount.add(events)
            moving = await parts.accepted(day, next_day, metric.key)
            after = await parts.usage(metric, day, next_day, "HOUR")
            counted = _figures(metric, recount.by_hour, first=day)
            keys = before.keys() | after.keys() | counted.keys()
            at_rest = {
                key
                for key in keys
                if before.get(key) == after.get(key) and not _moves(moving, metric, key[0])
            }
            if at_rest == keys or attempt == ATTEMPTS_MAX:
                break
            await asyncio.sleep(PAUSE_S)
        _compare(metric, "HOUR", after, counted, at_rest, outcome)
        outcome.undecided += len(keys - at_rest)
        outcome.events += recount.events
        yield recount


def _moves(moving: dict[tuple[str, datetime], bool], metric: Metric, start: datetime) -> bool:
    """A window at an edge may begin within its hour."""
    hour = start.replace(minute=0, second=0, microsecond=0)
    return moving.get((metric.key, hour), False)


def _figures(
    metric: Metric, tallies: dict[tuple[datetime, str], Tally], first: datetime | None = None
) -> Figures:
    """`first`: where the first window begins, which may be within its hour."""
    return {
        (start if first is None else max(start, first), customer): tally.figure(metric.aggregation)
        for (start, customer), tally in tallies.items()
    }


def _compare(
    metric: Metric,
    window: str,
    told: Figures,
    counted: Figures,
    keys: Collection[tuple[datetime, str]],
    outcome: Outcome,
) -> None:
    for key in sorted(keys):
        outcome.figures += 1
        if told.get(key) != counted.get(key):
            outcome.note(Difference(metric, window, *key, told.get(key), counted.get(key)))


def _merge(whole: Tally, part: Tally) -> None:
    """Add what is known of other events."""
    if whole.count == 0:
        whole.smallest, whole.largest = part.smallest, part.largest
    elif part.smallest is not None and part.largest is not None:
        assert whole.smallest is not None
        assert whole.largest is not None
        whole.smallest = min(whole.smallest, part.smallest)
        whole.largest = max(whole.largest, part.largest)
    whole.count += part.count
    whole.total += part.total
    if whole.last is None or (part.last is not None and part.last > whole.last):
        whole.last, whole.last_amount = part.last, part.last_amount
    whole.values |= part.values


def days(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """[start, end) cut at the midnights of UTC."""
    while start < end:
        midnight = datetime.combine(start.date() + DAY, time(), start.tzinfo)
        yield start, min(midnight, end)
        start = midnight
