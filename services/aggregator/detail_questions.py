"""The SQL of questions about different values and percentiles, inside the caller's transaction.

Both are counted over all buckets of a window and group together. What voids leave is exact at
once, so these questions never wait for a recount.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Label,
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
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.details import NO_VALUE
from services.aggregator.questions import UsageQuery
from services.aggregator.tables import amount_counts, series, unique_values
from services.aggregator.usage_repository import Split, Wanted, match_index
from services.aggregator.window_repository import (
    WindowFigure,
    filter_conditions,
    group_column,
    rows_after,
)

_TIMES = ARRAY(DateTime(timezone=True))

_values = unique_values.c
_amounts = amount_counts.c
_UNIQUE: ColumnElement[int] = func.count(_values.value_key.distinct()).filter(
    _values.value_key != NO_VALUE
)


async def count_windows(connection: AsyncConnection, query: UsageQuery) -> list[WindowFigure]:
    """Different values by window, then group, as window_repository.read_windows."""
    keys = _window_keys(query, _values.bucket_start)
    statement = (
        select(*keys, _UNIQUE.label("figure"))
        .join_from(series, unique_values, _values.series_id == series.c.series_id)
        .where(*_asked_of(query, _values.bucket_start))
        .group_by(*_positions(query))
    )
    rows = await connection.execute(_ordered(query, statement))
    return [_figure(row) for row in rows]


async def rank_windows(
    connection: AsyncConnection, query: UsageQuery, percent: int
) -> list[WindowFigure]:
    """The smallest rounded amount that `percent` of the events of a window and group do not exceed
    (the nearest rank), by window, then group.
    """
    keys = _window_keys(query, _amounts.bucket_start)
    counts = (
        select(*keys, _amounts.amount, func.sum(_amounts.event_count).label("events"))
        .join_from(series, amount_counts, _amounts.series_id == series.c.series_id)
        .where(*_asked_of(query, _amounts.bucket_start))
        .group_by(*_positions(query), _amounts.amount)
        .subquery("counts")
    )
    group = [counts.c[key.name] for key in keys]
    events = func.sum(counts.c.events)
    ranks = select(
        *group,
        counts.c.amount,
        events.over(partition_by=group, order_by=counts.c.amount).label("up_to"),
        events.over(partition_by=group).label("all_events"),
    ).subquery("ranks")
    statement = (
        select(*(ranks.c[key.name] for key in keys), func.min(ranks.c.amount).label("figure"))
        .where(ranks.c.up_to * 100 >= ranks.c.all_events * percent)
        .group_by(*_positions(query))
    )
    rows = await connection.execute(_ordered(query, statement))
    return [_figure(row) for row in rows]


def _window_keys(query: UsageQuery, bucket_start: ColumnElement[datetime]) -> list[Label[Any]]:
    """The number of the window (1 for the first), and the groups."""
    window = func.width_bucket(bucket_start, literal(query.starts, _TIMES))
    groups = [
        group_column(name).label(f"group_{number}") for number, name in enumerate(query.group_by)
    ]
    return [window.label("window"), *groups]


def _asked_of(
    query: UsageQuery, bucket_start: ColumnElement[datetime]
) -> list[ColumnElement[bool]]:
    """What series and details have to be like for a question."""
    conditions = [
        series.c.metric_id == query.metric.counted_id,
        bucket_start >= query.start,
        bucket_start < query.end,
        *filter_conditions(query),
    ]
    if query.customer_id is not None:
        conditions.append(series.c.customer_id == query.customer_id)
    if query.after is not None:
        conditions += rows_after(query, query.after, bucket_start)
    return conditions


def _positions(query: UsageQuery) -> list[Any]:
    # By position: each mention of an expression would bring its own parameters.
    return [text(str(number + 1)) for number in range(1 + len(query.group_by))]


def _ordered(query: UsageQuery, statement: Select[Any]) -> Select[Any]:
    """One more row than query.rows_max means that there are more."""
    if query.top:
        return statement.order_by(text("figure DESC"), *_positions(query)).limit(query.top)
    return statement.order_by(*_positions(query)).limit(query.rows_max + 1)


def _figure(row: Any) -> WindowFigure:
    window, *group, figure = row
    return WindowFigure(window - 1, tuple(group), Decimal(figure))


async def count_selections(connection: AsyncConnection, wanted: Sequence[Wanted]) -> list[int]:
    """Different values of each, in order, in one statement."""
    one = _wanted_table([Split(entry, ()) for entry in wanted])
    counted = (
        select(_UNIQUE.label("figure"))
        .join_from(series, unique_values, _values.series_id == series.c.series_id)
        .where(*_buckets_of(one))
        .lateral("counted")
    )
    query = select(counted.c.figure).join_from(one, counted, true()).order_by(one.c.number)
    return list((await connection.execute(query)).scalars())


async def count_parts(connection: AsyncConnection, splits: Sequence[Split]) -> list[list[int]]:
    """Different values of each match and of the rest, as usage_repository.tally_parts."""
    one = _wanted_table(splits)
    index = match_index(one.c.matches).label("part")
    counted = (
        select(index, _UNIQUE.label("figure"))
        .join_from(series, unique_values, _values.series_id == series.c.series_id)
        .where(*_buckets_of(one))
        .group_by(text("1"))
        .lateral("counted")
    )
    query = select(one.c.number, *counted.c).join_from(one, counted, true())
    counts = [[0] * (len(split.matches) + 1) for split in splits]
    for number, part, count in await connection.execute(query):
        counts[number][-1 if part is None else part] = count
    return counts


def _buckets_of(one: Any) -> tuple[ColumnElement[bool], ...]:
    return (
        series.c.metric_id == one.c.metric_id,
        series.c.customer_id == one.c.customer_id,
        _values.bucket_start >= one.c.range_start,
        _values.bucket_start < one.c.range_end,
    )


def _wanted_table(splits: Sequence[Split]) -> Any:
    """What is wanted as a table, by number."""
    wanted = [split.wanted for split in splits]
    matches = [json.dumps([dict(match) for match in split.matches]) for split in splits]
    return (
        func.unnest(
            literal(list(range(len(wanted))), ARRAY(Integer)),
            literal([entry.metric_id for entry in wanted], ARRAY(BigInteger)),
            literal([entry.customer_id for entry in wanted], ARRAY(Text)),
            literal([entry.start for entry in wanted], _TIMES),
            literal([entry.end for entry in wanted], _TIMES),
            cast(literal(matches, ARRAY(Text)), ARRAY(JSONB)),
        )
        .table_valued(
            column("number", Integer),
            column("metric_id", BigInteger),
            column("customer_id", Text),
            column("range_start", DateTime(timezone=True)),
            column("range_end", DateTime(timezone=True)),
            column("matches", JSONB),
        )
        .render_derived("wanted")
    )
