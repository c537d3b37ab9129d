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
from cli.auditing.recount import Recount, Tally, merge

ATTEMPTS_MAX = 5
PAUSE_S = 1.0
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
PERCENTILES = {"P50": 50, "P95": 95, "P99": 99}
# More are counted, not kept.
DIFFERENCES_KEPT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that is not what the events say. None: nothing is told, or there are no events.

    `customer_id`: in the window DAY values of dimensions or a percentile stand there.
    """

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
            merge(whole.setdefault(customer_id, Tally()), tally)
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
            cut_before = await _cut(parts, metric, day, next_day)
            recount = Recount(metric.unique_by, metric.dimensions)
            async for events in parts.events(metric.key, day, next_day):
                recount.add(events)
            moving = await parts.accepted(day, next_day, metric.key)
            after = await parts.usage(metric, day, next_day, "HOUR")
            cut = await _cut(parts, metric, day, next_day)
            counted = _figures(metric, recount.by_hour, first=day)
            keys = before.keys() | after.keys() | counted.keys()
            at_rest = {
                key
                for key in keys
                if before.get(key) == after.get(key) and not _moves(moving, metric, key[0])
            }
            cut_rests = cut == cut_before and not any(moving.values())
            if (at_rest == keys and cut_rests) or attempt == ATTEMPTS_MAX:
                break
            await asyncio.sleep(PAUSE_S)
        _compare(metric, "HOUR", after, counted, at_rest, outcome)
        if cut_rests:
            told, cut_counted = _cut_figures(metric, day, cut, recount)
            _compare(metric, "DAY", told, cut_counted, told.keys() | cut_counted.keys(), outcome)
        else:
            outcome.undecided += 1
        outcome.undecided += len(keys - at_rest)
        outcome.events += recount.events
        yield recount


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is told of a day by values of dimensions, and in percentiles."""

    groups: dict[tuple[str, ...], Fraction]
    percentiles: dict[str, Fraction]


async def _cut(parts: Parts, metric: Metric, day: datetime, next_day: datetime) -> _Cut:
    groups = await parts.groups(metric, day, next_day) if metric.dimensions else {}
    percentiles = {}
    if metric.percentiles:
        percentiles = {
            name: await parts.percentile(metric, day, next_day, name) for name in PERCENTILES
        }
    return _Cut(groups, percentiles)


def _cut_figures(
    metric: Metric, day: datetime, cut: _Cut, recount: Recount
) -> tuple[Figures, Figures]:
    """What is told and what is counted, each by what stands in the place of a customer."""
    told = {(day, _label(metric, group)): figure for group, figure in cut.groups.items()}
    counted = {
        (day, _label(metric, group)): tally.figure(metric.aggregation)
        for group, tally in recount.groups(cut.groups.keys()).items()
    }
    # Of no events there is no percentile: 0 is told.
    if recount.events:
        for name, figure in cut.percentiles.items():
            told[day, name] = figure
            counted[day, name] = recount.percentile(PERCENTILES[name])
    return told, counted


def _label(metric: Metric, group: tuple[str, ...]) -> str:
    pairs = zip(metric.dimensions, group, strict=True)
    return ", ".join(f"{name}={value}" for name, value in pairs)


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


def days(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """[start, end) cut at the midnights of UTC."""
    while start < end:
        midnight = datetime.combine(start.date() + DAY, time(), start.tzinfo)
        yield start, min(midnight, end)
        start = midnight
