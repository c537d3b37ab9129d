"""The SQL of usage by windows: what a question's windows and groups come to."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import usage_source, windows
from services.aggregator.aggregations import KINDS, Part, average, figures_of
from services.aggregator.domain import CUSTOMER_GROUP
from services.aggregator.largest import find_candidates, may_have_candidates
from services.aggregator.questions import GRIDS_REMEMBERED_MAX, LastRow, UsageQuery
from services.aggregator.spans import BUCKETS, Piece, pieces
from services.aggregator.tables import series
from services.aggregator.usage_repository import (
    PARTS,
    STATE,
    STATES,
    QuestionState,
)
from services.aggregator.void_repository import any_recount, needs_extremes

_TIMES = ARRAY(DateTime(timezone=True))
_of = usage_source.Columns

# Without values: a statement that is kept never has those of another question.
_METRIC_ID = bindparam("asked_metric_id", type_=BigInteger)
_CUSTOMER_ID = bindparam("asked_customer_id", type_=Text)
_STARTS = bindparam("window_starts", type_=_TIMES)
_BASE_S = bindparam("window_base_s", type_=BigInteger)
_STEP_S = bindparam("window_step_s", type_=BigInteger)

# What figures are sorted by. AVG as in aggregations/average.py: integers, divided once.
_RANKS: dict[str, ColumnElement[Any]] = {
    "SUM": PARTS["amount_sum"],
    "COUNT": PARTS["event_count"],
    "MAX": PARTS["amount_max"],
    "MIN": PARTS["amount_min"],
    "AVG": func.div(
        2 * 10**average.SCALE * PARTS["amount_sum"] + func.sum(_of.event_count),
        2 * func.sum(_of.event_count),
    ),
    "LATEST": PARTS["latest_value"],
}


class WindowFigure(NamedTuple):
    """What usage of one window and one group comes to; `window`: its index in the query's
    `starts`.
    """

    window: int
    group: tuple[str, ...]
    value: Decimal


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """By window, then group (with top: by figure, largest first), as of one snapshot.

    `exact`: False while a bucket that matters is being counted anew; then the figures are nothing
    to tell.
    """

    state: QuestionState
    exact: bool
    figures: list[WindowFigure]


def takes_one_statement(query: UsageQuery, rolled_until: datetime) -> bool:
    """Whether read_windows() reads it all at once, from a snapshot of its own."""
    return not may_have_candidates(query, _pieces(query, rolled_until), rolled_until)


async def read_windows(
    connection: AsyncConnection, query: UsageQuery, rolled_until: datetime
) -> WindowFigures:
    """The figures; windows and groups without usage are left out.

    One more than query.rows_max means that there are more. `rolled_until` may have been read
    before: it never goes back.
    """
    read = _pieces(query, rolled_until)
    candidates = None
    if may_have_candidates(query, read, rolled_until):
        keys = [group_column(name) for name in query.group_by]
        candidates = await find_candidates(
            connection, query, read, rolled_until, keys, filter_conditions(query)
        )
    aggregation = query.metric.definition.aggregation
    if shape := _shape_of(query, read):
        if (statement := _statements.get(shape)) is None:
            statement = _statements[shape] = _answer_query(query, read, candidates)
    else:
        statement = _answer_query(query, read, candidates)
    row = tuple((await connection.execute(statement, _values_of(query, read))).one())
    state, (exact, *columns) = QuestionState(*row[: len(STATE)]), row[len(STATE) :]
    # Of no rows there is nothing in the place of a list.
    windows_of, *others = (column or () for column in columns)
    groups, values = others[: len(query.group_by)], others[len(query.group_by) :]
    figures = figures_of(aggregation, values)
    grouped = zip(*groups, strict=True) if groups else ((),) * len(figures)
    found = map(WindowFigure, (window - 1 for window in windows_of), grouped, figures)
    return WindowFigures(state, exact, list(found))


# Statements that differ in nothing but values, by what they differ in. To make one, and to find
# what SQLAlchemy has compiled of it, takes as long as half of the answer: of the questions that are
# asked thousands of times it is made once. There are not many shapes of them.
_Shape = tuple[str, str, bool, bool]
_statements: dict[_Shape, Select[Any]] = {}


def _shape_of(query: UsageQuery, read: Sequence[Piece]) -> _Shape | None:
    """The shape of a question about all usage of one customer; None: its statement is made anew."""
    aggregation = query.metric.definition.aggregation
    if (
        query.customer_id is None
        or query.group_by
        or query.filters
        or query.filters_any
        or query.page_size
        or query.after
        or needs_extremes(aggregation)
    ):
        return None
    of_buckets = [piece.span_hours == BUCKETS for piece in read]
    return aggregation, _cut_of(query), any(of_buckets), not all(of_buckets)


def _values_of(query: UsageQuery, read: Sequence[Piece]) -> dict[str, Any]:
    """The values of all parameters that have none of their own, by name."""
    values = {
        _METRIC_ID.key: query.metric.counted_id,
        _CUSTOMER_ID.key: query.customer_id,
        **usage_source.values_of(read),
    }
    match _cut_of(query):
        case "starts":
            values[_STARTS.key] = list(query.starts)
        case "steps":
            steps = _steps_of(tuple(query.starts))
            assert steps is not None
            values |= {_BASE_S.key: steps.base_s, _STEP_S.key: steps.step_s}
    return values


def _answer_query(
    query: UsageQuery, read: Sequence[Piece], candidates: Sequence[int] | None
) -> Select[Any]:
    """One row with the state and the answer in columns, each a list: 720 rows of two take twice as
    long on their way.
    """
    parts = KINDS[query.metric.definition.aggregation].PARTS
    windows_query = _windows_query(query, parts, read, candidates)
    rows = windows_query.subquery("found")
    # The order is that of the subquery: nothing is between. Without types, which would have
    # SQLAlchemy look at each element.
    lists: list[ColumnElement[Any]] = [
        literal_column(f"array_agg({column.name})").label(f"all_{column.name}") for column in rows.c
    ]
    answer = select(*lists).select_from(rows).subquery("answer")
    exact: ColumnElement[bool] = true()
    if needs_extremes(query.metric.definition.aggregation):
        exact = ~any_recount([query.metric.counted_id], query.start, query.end)
    return select(*STATE, exact.label("exact"), *answer.c).select_from(STATES.join(answer, true()))


# Windows that no span of four hours fits into.
_SHORT_WINDOWS = (windows.QUARTER_HOUR, windows.HOUR)


def _pieces(query: UsageQuery, rolled_until: datetime) -> Sequence[Piece]:
    begin = query.after.start if query.after else query.start
    if query.window in _SHORT_WINDOWS:
        return [Piece(BUCKETS, begin, query.end)]
    starts = [start for start in query.starts if start >= begin]
    return pieces(zip(starts, [*starts[1:], query.end], strict=True), rolled_until)


def _windows_query(
    query: UsageQuery,
    parts: Sequence[Part],
    read: Sequence[Piece],
    candidates: Sequence[int] | None = None,
) -> Select[Any]:
    """`candidates`: the only series that matter; None: all."""
    one_window = len(query.starts) == 1
    window = _window_number(query)
    keys: list[ColumnElement[Any]] = [window.label("window_number")]
    keys += [
        group_column(name).label(f"group_{number}") for number, name in enumerate(query.group_by)
    ]
    if query.customer_id is not None or candidates is not None:
        source = usage_source.of_series(read)
    else:
        combined = one_window and "latest_value" not in parts
        source = usage_source.of_metric(query.metric.counted_id, read, combined=combined)
    statement = (
        select(*keys, *(PARTS[part].label(part) for part in parts))
        .select_from(source)
        .where(
            series.c.metric_id == _METRIC_ID,
            *filter_conditions(query),
        )
    )
    if query.customer_id is not None:
        statement = statement.where(series.c.customer_id == _CUSTOMER_ID)
    if candidates is not None:
        ids = literal(list(candidates), ARRAY(BigInteger))
        statement = statement.where(series.c.series_id == func.any(ids))
    if query.after is not None:
        statement = statement.where(*rows_after(query, query.after))
    # By position: each mention of an expression would bring its own parameters.
    positions = [text(str(number + 1)) for number in range(len(keys))]
    statement = statement.group_by(*positions)
    if query.top:
        rank = _RANKS[query.metric.definition.aggregation]
        return statement.order_by(rank.desc(), *positions).limit(query.top)
    return statement.order_by(*positions).limit(query.rows_max + 1)


class _Steps(NamedTuple):
    """Windows of one length, in seconds: the second begins one length after `base_s`."""

    base_s: int
    step_s: int


@functools.lru_cache(maxsize=GRIDS_REMEMBERED_MAX)
def _steps_of(starts: tuple[datetime, ...]) -> _Steps | None:
    """None: windows are of different lengths. The first and the last may be cut off."""
    lengths = {later - earlier for earlier, later in pairwise(starts[1:])}
    if len(lengths) != 1:
        return None
    [step] = lengths
    if starts[1] - starts[0] > step or step % timedelta(seconds=1):
        return None
    return _Steps(int((starts[1] - step).timestamp()), step // timedelta(seconds=1))


def _cut_of(query: UsageQuery) -> str:
    """How a time's window is found."""
    if len(query.starts) == 1:
        return "one"
    return "starts" if _steps_of(tuple(query.starts)) is None else "steps"


def _window_number(query: UsageQuery) -> ColumnElement[int]:
    """1 for the first window."""
    match _cut_of(query):
        case "one":
            return literal(1, Integer)
        case "starts":
            # A binary search in the sorted starts.
            return func.width_bucket(_of.bucket_start, _STARTS)
        case _:
            # Without a list of a thousand times, which costs more than all else of the question.
            # The second of a time is a whole number, however it is told.
            second = cast(func.date_part("epoch", _of.bucket_start), BigInteger)
            return 1 + (second - _BASE_S) // _STEP_S


def rows_after(
    query: UsageQuery,
    last: LastRow,
    bucket_start: ColumnElement[datetime] = _of.bucket_start,
) -> list[ColumnElement[bool]]:
    """What comes behind the row: in later windows, or later in the order of groups."""
    later = [start for start in query.starts if start > last.start]
    behind = [bucket_start >= later[0]] if later else []
    if query.group_by:
        groups = tuple_(*(group_column(name) for name in query.group_by))
        behind.append(groups > tuple_(*last.group))
    return [bucket_start >= last.start, or_(false(), *behind)]


def filter_conditions(query: UsageQuery) -> list[ColumnElement[bool]]:
    """Which series the filters of a question let through."""
    return [
        *(_dimension(name) == value for name, value in query.filters.items()),
        *(_dimension(name).in_(values) for name, values in query.filters_any.items()),
    ]


def group_column(name: str) -> ColumnElement[str]:
    """What usage is grouped by: the customer, or a dimension's value."""
    value = series.c.customer_id if name == CUSTOMER_GROUP else _dimension(name)
    # The same order everywhere, whatever the database's locale.
    return value.collate("C")


def _dimension(name: str) -> ColumnElement[str]:
    return func.coalesce(series.c.dimensions[name].astext, "")
