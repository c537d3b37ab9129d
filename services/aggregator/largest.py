"""Who may be among the largest: to leave out the others before anybody's buckets are read.

Where a range does not begin and end with days of UTC its edges are in buckets, of each series
elsewhere on the disk. What a group comes to is at least the days inside of the range and at most
the days that hold it, as no amount is below 0. Whoever comes to less at most than so many others at
least is not among the largest.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Numeric, Select, column, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import spans, usage_source
from services.aggregator.questions import UsageQuery
from services.aggregator.spans import DAYS, Piece
from services.aggregator.tables import series

# To read the buckets of so many is cheaper than to read all; of more, all are read together.
CANDIDATES_MAX = 2_000
# Aggregations whose figure never shrinks with more usage, by what they sum.
_GROWING: Mapping[str, str] = {"SUM": "amount_sum", "COUNT": "event_count"}


def may_have_candidates(query: UsageQuery, read: Sequence[Piece], rolled_until: datetime) -> bool:
    """Whether to look for them is worth a statement. `read`: what the question is answered from."""
    if not query.top or query.customer_id is not None:
        return False
    if query.metric.definition.aggregation not in _GROWING:
        return False
    around = spans.days_around(query.start, query.end, rolled_until)
    inside = _days_inside(read)
    return around is not None and len(inside) == 1 and inside != [around]


def _days_inside(read: Sequence[Piece]) -> list[Piece]:
    return [piece for piece in read if piece.span_hours == DAYS]


async def find_candidates(
    connection: AsyncConnection,
    query: UsageQuery,
    read: Sequence[Piece],
    rolled_until: datetime,
    keys: Sequence[ColumnElement[str]],
    conditions: Sequence[ColumnElement[bool]],
) -> list[int] | None:
    """The series of the groups that may be among the query.top largest; None: of all groups.

    Only when may_have_candidates(). `keys` and `conditions`: how series are grouped, and which
    ones.
    """
    value = _GROWING[query.metric.definition.aggregation]
    around = spans.days_around(query.start, query.end, rolled_until)
    [inside] = _days_inside(read)
    assert around is not None
    # A plan for any range takes the rows of days one by one, and reads whole series for their
    # edges: 3 s in place of 0.15.
    await connection.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    bounds = usage_source.bounds_of_metric(query.metric.counted_id, value, inside, around)
    statement = _candidates_query(query, bounds, keys, conditions)
    candidates = list((await connection.execute(statement)).scalars())
    return candidates if len(candidates) <= CANDIDATES_MAX else None


def _candidates_query(
    query: UsageQuery,
    bounds: FromClause,
    keys: Sequence[ColumnElement[str]],
    conditions: Sequence[ColumnElement[bool]],
) -> Select[Any]:
    labelled = [key.label(f"group_{number}") for number, key in enumerate(keys)]
    at_least: ColumnElement[Any] = column("at_least", Numeric)
    at_most: ColumnElement[Any] = column("at_most", Numeric)
    groups = (
        select(
            *labelled,
            func.coalesce(func.sum(at_least), 0).label("at_least"),
            func.sum(at_most).label("at_most"),
            func.array_agg(series.c.series_id).label("series_ids"),
        )
        .select_from(bounds)
        .where(series.c.metric_id == query.metric.counted_id, *conditions)
        # By position: each mention of an expression would bring its own parameters.
        .group_by(*(text(str(number + 1)) for number in range(len(labelled))))
        .cte("groups")
    )
    last = (
        select(groups.c.at_least)
        .order_by(groups.c.at_least.desc())
        .offset(query.top - 1)
        .limit(1)
        .scalar_subquery()
    )
    return (
        select(func.unnest(groups.c.series_ids))
        .where(groups.c.at_most >= func.coalesce(last, 0))
        .limit(CANDIDATES_MAX + 1)
    )
