"""What aggregator answers about usage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import metric_repository, usage_repository
from services.aggregator.aggregations import KINDS, Tally
from services.aggregator.counted import CountedBatches, find_counted_batches
from services.aggregator.domain import UsageRow
from services.aggregator.figures import (
    figures_of_parts,
    figures_of_windows,
    takes_one_snapshot,
    tallies_of,
)
from services.aggregator.metric_repository import MetricKey
from services.aggregator.overflow import Place, find_overflowed, parts_of_events
from services.aggregator.questions import (
    LastRow,
    Selection,
    UsageQuery,
    UsageQuestion,
    check_question,
    check_selections,
    page_token,
    too_many_rows,
)
from services.aggregator.recounter import ReplaySource
from services.aggregator.remembered import RememberedMetrics
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_repository import BillableMetric, Split, Wanted
from services.aggregator.voids import being_recounted
from services.aggregator.watermark import (
    RECENT_S,
    RecentWatermark,
    WatermarkSource,
    newest_watermark,
)
from services.aggregator.window_repository import WindowFigure, WindowFigures
from services.aggregator.windows import TOTAL
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import InvalidArgumentError
from services.kit.usage_token import UsageToken

_NOTHING_KNOWN = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Usage:
    """The answer to a usage question."""

    metric: str
    start: datetime
    end: datetime
    as_of: datetime
    rows: Sequence[UsageRow]
    # Where windows begin, with usage or without.
    starts: Sequence[datetime] = ()
    next_page_token: str = ""
    # The figures are percentiles of rounded amounts.
    approximate: bool = False


# Aggregations whose figures of consecutive times sum to that of the whole.
ADDING_UP = frozenset({"SUM", "COUNT"})


@dataclass(frozen=True, slots=True)
class BilledMetric:
    """One metric's usage in a selection; unit "" when it has none.

    `amount_sum`: of its events, however it counts. `parts`: a figure for each match of a split,
    and for the rest. `adds_up`: whether figures of consecutive times sum to that of the whole.
    """

    metric: str
    quantity: Decimal
    unit: str
    event_count: int = 0
    amount_sum: Decimal = Decimal(0)
    parts: tuple[Decimal, ...] = ()
    adds_up: bool = True


@dataclass(frozen=True, slots=True)
class BillableReading:
    """For each selection the usage of its metrics; everything accepted before `as_of` is in.

    `counted`: what is in, exactly; None: nobody asked.
    """

    as_of: datetime
    answers: list[list[BilledMetric]]
    counted: CountedBatches | None


class UsageAnswers:
    """Answers about usage, each from one snapshot of the database.

    The watermark is always asked for before the snapshot is taken: what it promises was committed
    here before, so the snapshot has it.
    """

    def __init__(
        self,
        database: Database,
        watermark: WatermarkSource,
        waits: TokenWait,
        replay: ReplaySource,
        *,
        watermark_recent_s: float = RECENT_S,
    ) -> None:
        """`replay`: has the events of customers whose usage lies under dimensions.OVERFLOW.

        `watermark_recent_s`: so old the watermark may be that questions are told.
        """
        self._database = database
        self._watermark = watermark
        self._recent = RecentWatermark(watermark, watermark_recent_s)
        self._waits = waits
        self._replay = replay
        self._remembered = RememberedMetrics()

    async def query(
        self, tenant: TenantKey, asked: UsageQuestion, token: UsageToken | None = None
    ) -> Usage:
        """How much, for whom, of what kind, in which window; all that `token` stands for is in.

        InvalidArgumentError names every field that is wrong. NotYetError: it did not get there in
        time. When ingest is away the newest watermark that is known is told: it is still true.
        """
        if token is not None:
            await self._waits.until_counted(tenant, token)
        as_of = await newest_watermark(self._recent)
        query, found = await self._read_remembering(tenant, asked) or await self._read(
            tenant, asked
        )
        if not found.exact:
            raise being_recounted()
        figures = found.figures
        next_page_token = ""
        if len(figures) > query.rows_max and not query.top:
            if not query.page_size:
                raise too_many_rows(query)
            figures = figures[: query.page_size]
            last = LastRow(query.starts[figures[-1].window], figures[-1].group)
            next_page_token = page_token(last)
        return Usage(
            metric=asked.metric,
            start=query.start,
            end=query.end,
            as_of=as_of or found.state.watermark or _NOTHING_KNOWN,
            rows=_rows(query, figures),
            starts=query.starts,
            next_page_token=next_page_token,
            approximate=bool(query.percentile),
        )

    async def _read_remembering(
        self, tenant: TenantKey, asked: UsageQuestion
    ) -> tuple[UsageQuery, WindowFigures] | None:
        """By one statement, relying on what is remembered of the metric; None: that is nothing, or
        was no longer so in the statement's snapshot, or the question takes more.
        """
        known = self._remembered.find(MetricKey(*tenant, asked.metric))
        if known is None:
            return None
        metric, state = known
        try:
            query = check_question(asked, metric, clock.now())
        except InvalidArgumentError:
            # It may be right of what the metric has become.
            return None
        if not takes_one_snapshot(query, state.rolled_until):
            return None
        async with self._database.reading() as connection:
            found = await figures_of_windows(connection, query, state)
        if found.state.definition_version != state.definition_version:
            return None
        self._remembered.remember(found.state, metric)
        return query, found

    async def _read(
        self, tenant: TenantKey, asked: UsageQuestion
    ) -> tuple[UsageQuery, WindowFigures]:
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            metric = await metric_repository.get_metric(connection, tenant, asked.metric)
            query = check_question(asked, metric, clock.now())
            state = await usage_repository.read_state(connection)
            found = await figures_of_windows(connection, query, state)
        self._remembered.remember(state, query.metric)
        return query, found

    async def billable(
        self, tenant: TenantKey, selections: Sequence[Selection]
    ) -> tuple[datetime, list[list[BilledMetric]]]:
        """Up to when the figures are complete, and the figures, as billable_reading() tells."""
        told = await self.billable_reading(tenant, selections)
        return told.as_of, told.answers

    async def billable_reading(
        self, tenant: TenantKey, selections: Sequence[Selection], *, tell_counted: bool = False
    ) -> BillableReading:
        """For each selection the usage of its metrics, and what is in it.

        InvalidArgumentError; UnavailableError when nobody knows how complete the figures would be,
        what the parts of a full dimension are (overflow.py), or which batches were counted.
        """
        check_selections(selections)
        as_of = await self._watermark.ask()
        keys = {key for selection in selections for key in selection.metrics}
        async with self._database.transaction() as connection:
            # Before the figures are read: whoever changes a metric from now on knows.
            await metric_repository.note_billed(connection, tenant, keys, clock.now())
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            known = await usage_repository.find_billable_metrics(connection, tenant, keys)
            tallies = await tallies_of(connection, _wanted(selections, known))
            splits = _splits(selections, known)
            parts = await _parts(connection, splits, known)
            overflowed = await find_overflowed(connection, tenant, splits, selections, tallies)
            counted = await find_counted_batches(connection, as_of) if tell_counted else None
        for place, each in overflowed.items():
            parts[place] = await parts_of_events(self._replay, each)
        answers = [
            [
                _billed(key, selection, known, tallies, parts.get((key, number), ()))
                for key in selection.metrics
            ]
            for number, selection in enumerate(selections)
        ]
        return BillableReading(as_of, answers, counted)


def _rows(query: UsageQuery, figures: Sequence[WindowFigure]) -> list[UsageRow]:
    if not figures and query.window == TOTAL and not query.group_by and query.after is None:
        # Whatever the aggregation, nothing comes to 0.
        return [UsageRow(query.start, query.end, {}, Decimal(0))]
    starts, ends, names = query.starts, [*query.starts[1:], query.end], query.group_by
    if not names:
        return [UsageRow(starts[window], ends[window], {}, value) for window, _, value in figures]
    return [
        UsageRow(starts[window], ends[window], dict(zip(names, group, strict=True)), value)
        for window, group, value in figures
    ]


# A metric's aggregation and what to compute of it.
_Selected = tuple[str, Wanted]


def _wanted(
    selections: Sequence[Selection], known: dict[str, BillableMetric]
) -> dict[str, list[Wanted]]:
    """By aggregation, each figure once."""
    wanted: dict[str, dict[Wanted, None]] = {}
    for selection in selections:
        for key in selection.metrics:
            if metric := known.get(key):
                entry = _one(metric, selection)
                wanted.setdefault(metric.aggregation, {})[entry] = None
    return {aggregation: list(entries) for aggregation, entries in wanted.items()}


def _one(metric: BillableMetric, selection: Selection) -> Wanted:
    return Wanted(metric.metric_id, selection.customer_id, selection.start, selection.end)


def _splits(
    selections: Sequence[Selection], known: dict[str, BillableMetric]
) -> dict[Place, Split]:
    """The splits that were asked for of metrics that exist."""
    return {
        (key, number): Split(_one(known[key], selection), matches)
        for number, selection in enumerate(selections)
        for key, matches in selection.splits.items()
        if key in known
    }


async def _parts(
    connection: AsyncConnection, splits: dict[Place, Split], known: dict[str, BillableMetric]
) -> dict[Place, tuple[Decimal, ...]]:
    """The figures of their parts; one statement for each aggregation."""
    by_aggregation: dict[str, dict[Place, Split]] = {}
    for place, split in splits.items():
        by_aggregation.setdefault(known[place[0]].aggregation, {})[place] = split
    parts: dict[Place, tuple[Decimal, ...]] = {}
    for aggregation, asked in by_aggregation.items():
        found = await figures_of_parts(connection, list(asked.values()), aggregation)
        parts |= zip(asked, found, strict=True)
    return parts


def _billed(
    key: str,
    selection: Selection,
    known: dict[str, BillableMetric],
    tallies: dict[Wanted, Tally],
    parts: tuple[Decimal, ...],
) -> BilledMetric:
    nothing = Decimal(0)
    metric = known.get(key)
    if metric is None:
        count = len(selection.splits[key]) + 1 if key in selection.splits else 0
        return BilledMetric(key, nothing, "", parts=(nothing,) * count)
    tally = tallies[_one(metric, selection)]
    return BilledMetric(
        metric=key,
        quantity=KINDS[metric.aggregation].figure(tally),
        unit=metric.unit,
        event_count=tally.event_count,
        amount_sum=tally.amount_sum,
        parts=parts,
        adds_up=metric.aggregation in ADDING_UP,
    )
