"""What aggregator does for its callers: metrics, and answers about usage."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from time import monotonic

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import metric_repository, usage_repository
from services.aggregator.aggregations import KINDS, Tally
from services.aggregator.audited import note, note_metric
from services.aggregator.counted import CountedBatches, find_counted_batches
from services.aggregator.domain import (
    DIMENSION_VALUES_MAX,
    FoundMetrics,
    Metric,
    NewMetric,
    UsageRow,
    check_new_metric,
    is_metric_key,
    metric_conflict,
)
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
from services.aggregator.rebuilds.changes import (
    change_definition,
    define_later,
    is_built_as,
    with_rebuild,
)
from services.aggregator.rebuilds.domain import RUNNING, MetricChange, check_archive
from services.aggregator.rebuilds.repository import (
    lock_definitions,
    set_archive_time,
    with_rebuilds,
)
from services.aggregator.recounter import ReplaySource
from services.aggregator.remembered import RememberedMetrics
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_repository import (
    BillableMetric,
    Split,
    Wanted,
    WindowFigure,
    WindowFigures,
)
from services.aggregator.voids import being_recounted
from services.aggregator.watermark import (
    RECENT_S,
    RecentWatermark,
    WatermarkSource,
    newest_watermark,
)
from services.aggregator.windows import TOTAL
from services.kit import clock, pages
from services.kit.database import Database, TenantKey, commits_later, wake_after_commit
from services.kit.errors import FieldChecks, InvalidArgumentError, NotFoundError
from services.kit.etag import Expectation
from services.kit.usage_token import UsageToken

log = structlog.get_logger()

REBUILD_POLL_S = 0.05
# As many metrics as an ingest call has events.
FIND_KEYS_MAX = 10_000
_NOTHING_KNOWN = datetime(1970, 1, 1, tzinfo=UTC)


def _nobody_builds() -> None:
    """In the place of what builds metrics anew."""


class Metrics:
    """Metrics and their definitions. Each use case is one transaction."""

    def __init__(
        self,
        database: Database,
        dimension_values_max: int = DIMENSION_VALUES_MAX,
        *,
        rebuild_begun: Callable[[], None] = _nobody_builds,
        rebuild_wait_s: float = 0.0,
    ) -> None:
        """`dimension_values_max`: how many values each dimension of a new metric may know.

        `rebuild_begun` is called after a commit that has begun a rebuild; `rebuild_wait_s`: so long
        the answer waits for its end.
        """
        self._database = database
        self._dimension_values_max = dimension_values_max
        self._rebuild_begun = rebuild_begun
        self._rebuild_wait_s = rebuild_wait_s

    async def create(self, tenant: TenantKey, new: NewMetric, by_key: str = "") -> Metric:
        """Define a metric; the same definition again changes nothing.

        A metric that defined itself by its first event takes any definition: what can't be told
        of what was counted of it is built from its stored events (rebuilds/), and until that is
        done it stays as it was. InvalidArgumentError names all wrong fields; ConflictError: the key
        has another definition, or billing or quotas rely on the one it has.
        """
        check_new_metric(new)
        async with self._database.transaction() as connection:
            metric = await metric_repository.insert_metric(
                connection, tenant, new, clock.now(), self._dimension_values_max
            )
            if metric is None:
                metric = await self._define_existing(connection, tenant, new, by_key)
            else:
                await note_metric(connection, None, metric, by_key)
        log.info("metric_defined", organization_id=tenant.organization_id, metric=new.key)
        return await self._built(metric)

    async def get(self, tenant: TenantKey, key: str) -> Metric:
        """The metric; NotFoundError when there is none."""
        async with self._database.transaction() as connection:
            metric = await metric_repository.get_metric(connection, tenant, key)
            if metric is None:
                raise NotFoundError("No such metric")
            return await with_rebuild(connection, metric)

    async def update(
        self,
        tenant: TenantKey,
        key: str,
        change: MetricChange,
        expect: Expectation[Metric] | None = None,
        by_key: str = "",
    ) -> Metric:
        """Change a metric's definition. What is counted by another one is built from the stored
        events, in the background: until it is done the metric stays as it was.

        A change while one runs is a change of what is being built; back to what the metric is ends
        that. InvalidArgumentError, NotFoundError; ConflictError: billing or quotas rely on it;
        StaleError when it is not as `expect` has it.
        """
        async with self._database.transaction() as connection:
            await lock_definitions(connection)
            metric = await with_rebuild(connection, await self._locked(connection, tenant, key))
            if expect is not None:
                expect(metric)
            before = metric
            metric = await change_definition(
                connection, metric, change, self._dimension_values_max, clock.now()
            )
            await note_metric(connection, before, metric, by_key)
        log.info("metric_changed", organization_id=tenant.organization_id, metric=key)
        return await self._built(metric)

    async def archive(
        self, tenant: TenantKey, key: str, *, archived: bool, by_key: str = ""
    ) -> Metric:
        """Leave a metric out of lists, or list it again; events are counted all the same.

        NotFoundError; ConflictError: a plan in use prices it.
        """
        now = clock.now()
        async with self._database.transaction() as connection:
            metric = await self._locked(connection, tenant, key)
            if archived != (metric.archive_time is not None):
                if archived:
                    check_archive(metric, now)
                await set_archive_time(connection, metric.metric_id, now if archived else None)
                action = "metric.archived" if archived else "metric.unarchived"
                await note(connection, tenant, action, key, by_key, {})
                metric = await self._locked(connection, tenant, key)
            return await with_rebuild(connection, metric)

    async def _locked(self, connection: AsyncConnection, tenant: TenantKey, key: str) -> Metric:
        metric = await metric_repository.get_metric(connection, tenant, key, for_update=True)
        if metric is None:
            raise NotFoundError("No such metric")
        return metric

    async def _built(self, metric: Metric) -> Metric:
        """The metric, after a while in which a rebuild of few events has ended."""
        if metric.rebuild is None or metric.rebuild.state != RUNNING:
            return metric
        wake_after_commit(self._rebuild_begun)
        if commits_later():
            return metric
        until_s = monotonic() + self._rebuild_wait_s
        while metric.rebuild is not None and metric.rebuild.state == RUNNING:
            if monotonic() >= until_s:
                break
            await asyncio.sleep(REBUILD_POLL_S)
            metric = await self.get(metric.tenant, metric.definition.key)
        return metric

    async def find_defined(self, tenant: TenantKey, keys: Collection[str]) -> FoundMetrics:
        """Those that there are, in order. InvalidArgumentError: too many."""
        checks = FieldChecks()
        message = f"must be at most {FIND_KEYS_MAX:,}"
        checks.require(len(keys) <= FIND_KEYS_MAX, "keys", message)
        checks.done()
        wanted = [key for key in keys if is_metric_key(key)]
        async with self._database.transaction() as connection:
            return await metric_repository.find_defined(connection, tenant, wanted)

    async def list(
        self, tenant: TenantKey, page_size: int, page_token: str, *, archived: bool = False
    ) -> tuple[list[Metric], str]:
        """A page of metrics, newest first, and the next page's token ("" after the last).

        `archived`: with those that are.
        """
        limit = pages.page_limit(page_size)
        before_id = _metric_id(page_token) if page_token else None
        async with self._database.transaction() as connection:
            metrics = await metric_repository.list_metrics(
                connection, tenant, before_id=before_id, limit=limit + 1, archived=archived
            )
            metrics = await with_rebuilds(connection, metrics)
        if len(metrics) <= limit:
            return metrics, ""
        return metrics[:limit], pages.encode_token(str(metrics[limit - 1].metric_id))

    async def _define_existing(
        self, connection: AsyncConnection, tenant: TenantKey, new: NewMetric, by_key: str
    ) -> Metric:
        known = await metric_repository.get_metric(connection, tenant, new.key)
        assert known is not None, "metrics are never deleted"
        if not known.defined:
            await lock_definitions(connection)
            known = await self._locked(connection, tenant, new.key)
        metric = await with_rebuild(connection, known)
        if metric.defined and not metric.same_as(new):
            raise metric_conflict(metric)
        if metric.defined or is_built_as(metric, new):
            return metric
        made = await define_later(connection, metric, new, self._dimension_values_max, clock.now())
        await note_metric(connection, None, made, by_key)
        return made


def _metric_id(page_token: str) -> int:
    part = pages.decode_token(page_token, 1)[0]
    # A bigint has at most 19 digits.
    if not (part.isascii() and part.isdigit() and len(part) < 19):
        raise pages.invalid_token()
    return int(part)


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
