"""What aggregator does for its callers: metrics, and answers about usage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import repository, usage_repository
from services.aggregator.aggregations import KINDS, Tally
from services.aggregator.domain import (
    Metric,
    NewMetric,
    UsageRow,
    check_new_metric,
    metric_conflict,
)
from services.aggregator.questions import (
    ROWS_MAX,
    Selection,
    UsageQuery,
    UsageQuestion,
    check_question,
    check_selections,
    too_many_rows,
)
from services.aggregator.usage_repository import BillableMetric, TalliedGroup, Wanted
from services.aggregator.watermark import WatermarkSource
from services.aggregator.windows import TOTAL
from services.kit import clock, pages
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError, UnavailableError

log = structlog.get_logger()

_NOTHING_KNOWN = datetime(1970, 1, 1, tzinfo=UTC)


class Metrics:
    """Metrics and their definitions. Each use case is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: TenantKey, new: NewMetric) -> Metric:
        """Define a metric; the same definition again changes nothing.

        A metric that defined itself by its first event takes any definition; its earlier events
        keep the empty value of dimensions. InvalidArgumentError names all wrong fields;
        ConflictError: the key has another definition.
        """
        check_new_metric(new)
        async with self._database.transaction() as connection:
            metric = await repository.insert_metric(connection, tenant, new, clock.now())
            if metric is None:
                metric = await _define_existing(connection, tenant, new)
        log.info("metric_defined", organization_id=tenant.organization_id, metric=new.key)
        return metric

    async def get(self, tenant: TenantKey, key: str) -> Metric:
        """The metric; NotFoundError when there is none."""
        async with self._database.transaction() as connection:
            metric = await repository.get_metric(connection, tenant, key)
        if metric is None:
            raise NotFoundError("No such metric")
        return metric

    async def list(
        self, tenant: TenantKey, page_size: int, page_token: str
    ) -> tuple[list[Metric], str]:
        """A page of metrics, newest first, and the next page's token ("" after the last)."""
        limit = pages.page_limit(page_size)
        before_id = _metric_id(page_token) if page_token else None
        async with self._database.transaction() as connection:
            metrics = await repository.list_metrics(
                connection, tenant, before_id=before_id, limit=limit + 1
            )
        if len(metrics) <= limit:
            return metrics, ""
        return metrics[:limit], pages.encode_token(str(metrics[limit - 1].metric_id))


async def _define_existing(
    connection: AsyncConnection, tenant: TenantKey, new: NewMetric
) -> Metric:
    metric = await repository.get_metric(connection, tenant, new.key, for_update=True)
    assert metric is not None, "metrics are never deleted"
    if not metric.defined:
        return await repository.define_metric(connection, metric.metric_id, new)
    if not metric.same_as(new):
        raise metric_conflict(metric)
    return metric


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


@dataclass(frozen=True, slots=True)
class BilledMetric:
    """One metric's usage in a selection; unit "" when it has none."""

    metric: str
    quantity: Decimal
    unit: str


class UsageAnswers:
    """Answers about usage, each from one snapshot of the database.

    The watermark is always asked for before the snapshot is taken: what it promises was committed
    here before, so the snapshot has it.
    """

    def __init__(self, database: Database, watermark: WatermarkSource) -> None:
        self._database = database
        self._watermark = watermark

    async def query(self, tenant: TenantKey, asked: UsageQuestion) -> Usage:
        """How much, for whom, of what kind, in which window.

        InvalidArgumentError names every field that is wrong. When ingest is away the newest
        watermark that is known is told: it is still true.
        """
        as_of = await self._newest_watermark()
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            metric = await repository.get_metric(connection, tenant, asked.metric)
            query = check_question(asked, metric, clock.now())
            if as_of is None:
                as_of = (await repository.read_fold_state(connection)).watermark
            tallied = await usage_repository.tally_windows(connection, query)
        if len(tallied) > ROWS_MAX:
            raise too_many_rows(query)
        return Usage(
            metric=asked.metric,
            start=query.start,
            end=query.end,
            as_of=as_of or _NOTHING_KNOWN,
            rows=_rows(query, tallied),
        )

    async def _newest_watermark(self) -> datetime | None:
        try:
            return await self._watermark.ask()
        except UnavailableError:
            return self._watermark.last

    async def billable(
        self, tenant: TenantKey, selections: Sequence[Selection]
    ) -> tuple[datetime, list[list[BilledMetric]]]:
        """Up to when the figures are complete, and for each selection the usage of its metrics.

        InvalidArgumentError; UnavailableError when nobody knows how complete they would be.
        """
        check_selections(selections)
        as_of = await self._watermark.ask()
        keys = {key for selection in selections for key in selection.metrics}
        async with self._database.transaction() as connection:
            await usage_repository.begin_snapshot(connection)
            known = await usage_repository.find_billable_metrics(connection, tenant, keys)
            figures = await _figures(connection, _wanted(selections, known))
        return as_of, [
            [_billed(key, selection, known, figures) for key in selection.metrics]
            for selection in selections
        ]


def _rows(query: UsageQuery, tallied: Sequence[TalliedGroup]) -> list[UsageRow]:
    kind = KINDS[query.metric.definition.aggregation]
    ends = [*query.starts[1:], query.end]
    rows = [
        UsageRow(query.starts[row.window], ends[row.window], row.group, kind.figure(row.tally))
        for row in tallied
    ]
    if not rows and query.window == TOTAL and not query.group_by:
        return [UsageRow(query.start, query.end, {}, kind.figure(Tally()))]
    return rows


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


async def _figures(
    connection: AsyncConnection, wanted: dict[str, list[Wanted]]
) -> dict[Wanted, Decimal]:
    """One statement for each aggregation."""
    figures: dict[Wanted, Decimal] = {}
    for aggregation, entries in wanted.items():
        tallies = await usage_repository.tally_selections(connection, entries, aggregation)
        kind = KINDS[aggregation]
        figures |= {
            entry: kind.figure(tally) for entry, tally in zip(entries, tallies, strict=True)
        }
    return figures


def _billed(
    key: str,
    selection: Selection,
    known: dict[str, BillableMetric],
    figures: dict[Wanted, Decimal],
) -> BilledMetric:
    metric = known.get(key)
    if metric is None:
        return BilledMetric(key, Decimal(0), "")
    return BilledMetric(key, figures[_one(metric, selection)], metric.unit)
