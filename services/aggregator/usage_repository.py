"""The SQL of usage questions. Each function works inside the caller's transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    Text,
    cast,
    column,
    func,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.aggregations import KINDS, Part, Tally
from services.aggregator.domain import CUSTOMER_GROUP
from services.aggregator.questions import ROWS_MAX, UsageQuery
from services.aggregator.tables import metrics, series, usage_buckets
from services.kit.database import TenantKey

_TIMES = ARRAY(DateTime(timezone=True))
_of = usage_buckets.c
_last_first = (_of.latest_time.desc(), _of.latest_event_id.desc())
# How each part of a tally is combined from buckets.
_PARTS: dict[Part, ColumnElement[Any]] = {
    "event_count": cast(func.sum(_of.event_count), BigInteger),
    "amount_sum": func.sum(_of.amount_sum),
    "amount_min": func.min(_of.amount_min),
    "amount_max": func.max(_of.amount_max),
    "latest_value": func.array_agg(aggregate_order_by(_of.latest_value, *_last_first))[1],
}


async def begin_snapshot(connection: AsyncConnection) -> None:
    """All that this transaction reads is of one instant; has to be its first statement."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


@dataclass(frozen=True, slots=True)
class TalliedGroup:
    """What buckets of one window and one group come to."""

    window: int
    """Index of the window in the query's `starts`."""
    group: dict[str, str]
    tally: Tally


async def tally_windows(connection: AsyncConnection, query: UsageQuery) -> list[TalliedGroup]:
    """By window, then group; windows and groups without usage are left out.

    One more than ROWS_MAX means that there are too many.
    """
    parts = KINDS[query.metric.definition.aggregation].PARTS
    rows = await connection.execute(_windows_query(query, parts))
    groups = len(query.group_by)
    return [
        TalliedGroup(
            window=row[0] - 1,
            group=dict(zip(query.group_by, row[1 : 1 + groups], strict=True)),
            tally=Tally(**dict(zip(parts, row[1 + groups :], strict=True))),
        )
        for row in rows
    ]


def _windows_query(query: UsageQuery, parts: Sequence[Part]) -> Select[Any]:
    # A binary search in the sorted starts: 1 for the first window.
    window = func.width_bucket(_of.bucket_start, literal(query.starts, _TIMES))
    keys = [window.label("window")]
    keys += [_group(name).label(f"group_{number}") for number, name in enumerate(query.group_by)]
    statement = (
        select(*keys, *(_PARTS[part] for part in parts))
        .join_from(series, usage_buckets)
        .where(
            series.c.metric_id == query.metric.metric_id,
            _of.bucket_start >= query.start,
            _of.bucket_start < query.end,
            *(_dimension(name) == value for name, value in query.filters.items()),
        )
    )
    if query.customer_id is not None:
        statement = statement.where(series.c.customer_id == query.customer_id)
    # By position: each mention of an expression would bring its own parameters.
    positions = [text(str(number + 1)) for number in range(len(keys))]
    return statement.group_by(*positions).order_by(*positions).limit(ROWS_MAX + 1)


def _group(name: str) -> ColumnElement[str]:
    value = series.c.customer_id if name == CUSTOMER_GROUP else _dimension(name)
    # The same order everywhere, whatever the database's locale.
    return value.collate("C")


def _dimension(name: str) -> ColumnElement[str]:
    return func.coalesce(series.c.dimensions[name].astext, "")


@dataclass(frozen=True, slots=True)
class BillableMetric:
    """What billing has to know of a metric."""

    metric_id: int
    unit: str
    aggregation: str


async def find_billable_metrics(
    connection: AsyncConnection, tenant: TenantKey, keys: Collection[str]
) -> dict[str, BillableMetric]:
    """Those of the metrics that exist, by key."""
    query = select(metrics.c.key, metrics.c.metric_id, metrics.c.unit, metrics.c.aggregation).where(
        metrics.c.organization_id == tenant.organization_id,
        metrics.c.mode == tenant.mode,
        metrics.c.key == func.any(literal(list(keys), ARRAY(Text))),
    )
    return {row.key: BillableMetric(*row[1:]) for row in await connection.execute(query)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A figure to compute: one metric of one customer over [start, end)."""

    metric_id: int
    customer_id: str
    start: datetime
    end: datetime


async def tally_selections(
    connection: AsyncConnection, wanted: Sequence[Wanted], aggregation: str
) -> list[Tally]:
    """A tally for each, in order, in one statement; all metrics are of one aggregation."""
    parts = KINDS[aggregation].PARTS
    one = (
        func.unnest(
            literal(list(range(len(wanted))), ARRAY(Integer)),
            literal([entry.metric_id for entry in wanted], ARRAY(BigInteger)),
            literal([entry.customer_id for entry in wanted], ARRAY(Text)),
            literal([entry.start for entry in wanted], _TIMES),
            literal([entry.end for entry in wanted], _TIMES),
        )
        .table_valued(
            column("number", Integer),
            column("metric_id", BigInteger),
            column("customer_id", Text),
            column("range_start", DateTime(timezone=True)),
            column("range_end", DateTime(timezone=True)),
        )
        .render_derived("wanted")
    )
    # LATERAL, so that each is a walk along two indexes, whatever the planner thinks of the rest.
    tally = (
        select(*(_PARTS[part].label(part) for part in parts))
        .join_from(series, usage_buckets)
        .where(
            series.c.metric_id == one.c.metric_id,
            series.c.customer_id == one.c.customer_id,
            _of.bucket_start >= one.c.range_start,
            _of.bucket_start < one.c.range_end,
        )
        .lateral("tally")
    )
    query = select(*tally.c).join_from(one, tally, true()).order_by(one.c.number)
    rows = await connection.execute(query)
    return [_tally(parts, row) for row in rows]


def _tally(parts: Sequence[Part], values: Sequence[int | Decimal | None]) -> Tally:
    """Without any bucket every part is NULL, and stays as it is."""
    known = {part: value for part, value in zip(parts, values, strict=True) if value is not None}
    return Tally(**known)  # type: ignore[arg-type] # the columns have the parts' types
