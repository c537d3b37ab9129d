"""Where questions read usage: from days, spans of four hours and buckets, as one relation.

Its rows have the columns of usage_buckets that figures are made of, whatever they stand for;
`bucket_start` is when the span begins, and no span lies in two windows of a question.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    DateTime,
    FromClause,
    LargeBinary,
    Numeric,
    SmallInteger,
    bindparam,
    column,
    select,
    text,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import spans
from services.aggregator.spans import BLOCKS, BUCKETS, DAYS, Piece
from services.aggregator.tables import rollup_state, series

_TIMES = ARRAY(DateTime(timezone=True))


class Columns:
    """What a source has besides the columns of series; the names are in no other relation."""

    bucket_start: ColumnElement[datetime] = column("bucket_start", DateTime(timezone=True))
    event_count: ColumnElement[int] = column("event_count", BigInteger)
    amount_sum: ColumnElement[Any] = column("amount_sum", Numeric)
    amount_min: ColumnElement[Any] = column("amount_min", Numeric)
    amount_max: ColumnElement[Any] = column("amount_max", Numeric)
    latest_time: ColumnElement[datetime] = column("latest_time", DateTime(timezone=True))
    latest_event_id: ColumnElement[bytes] = column("latest_event_id", LargeBinary)
    latest_value: ColumnElement[Any] = column("latest_value", Numeric)


_VALUES = """event_count, amount_sum, amount_min, amount_max, latest_time, latest_event_id,
    latest_value"""

_BUCKET_PIECES = """unnest(CAST(:bucket_starts AS timestamptz[]),
    CAST(:bucket_ends AS timestamptz[])) AS piece (piece_start, piece_end)"""
_SPAN_PIECES = """unnest(CAST(:span_hours AS smallint[]), CAST(:span_starts AS timestamptz[]),
    CAST(:span_ends AS timestamptz[])) AS piece (piece_hours, piece_start, piece_end)"""

# For each row of series: a walk along the primary keys.
_BUCKETS_OF_SERIES = f"""
SELECT bucket_start, {_VALUES}
FROM {_BUCKET_PIECES} JOIN usage_buckets AS bucket ON bucket.series_id = series.series_id
    AND bucket.bucket_start >= piece_start AND bucket.bucket_start < piece_end
"""  # noqa: S608 (no value is pasted in)
_SPANS_OF_SERIES = f"""
SELECT span_start, {_VALUES}
FROM {_SPAN_PIECES} JOIN usage_rollups AS rollup ON rollup.series_id = series.series_id
    AND rollup.span_hours = piece_hours
    AND rollup.span_start >= piece_start AND rollup.span_start < piece_end
"""  # noqa: S608 (no value is pasted in)

# For all series of a metric: spans in the order of time, as they lie on the disk.
_BUCKETS_OF_METRIC = f"""
SELECT bucket.series_id AS source_series_id, bucket_start, {_VALUES}
FROM series AS counted CROSS JOIN {_BUCKET_PIECES}
CROSS JOIN LATERAL (
    SELECT * FROM usage_buckets AS wanted WHERE wanted.series_id = counted.series_id
        AND wanted.bucket_start >= piece_start AND wanted.bucket_start < piece_end
    OFFSET 0
) AS bucket
WHERE counted.metric_id = :source_metric_id
"""  # noqa: S608 (no value is pasted in)
# The hours are pasted in: by them PostgreSQL knows that days have an index of their own, which sums
# and counts are read from alone.
_SPANS_OF_METRIC = f"""
SELECT rollup.series_id AS source_series_id, span_start AS bucket_start, {_VALUES}
FROM unnest(CAST(:starts_{{hours}} AS timestamptz[]), CAST(:ends_{{hours}} AS timestamptz[]))
    AS piece (piece_start, piece_end)
JOIN usage_rollups AS rollup ON rollup.metric_id = :source_metric_id
    AND rollup.span_hours = {{hours}}
    AND rollup.span_start >= piece_start AND rollup.span_start < piece_end
"""  # noqa: S608 (only constants are pasted in)


async def read_rolled_until(connection: AsyncConnection) -> datetime:
    """Before when spans may be read. It stays true, as what lies before it is kept for ever."""
    rolled_until: datetime = (
        await connection.execute(select(rollup_state.c.rolled_until))
    ).scalar_one()
    return rolled_until


def of_series(pieces: Sequence[Piece]) -> FromClause:
    """series, each with its usage in the pieces: for few series. values_of() has the values of its
    parameters.
    """
    arms = [
        arm
        for arm, wanted in ((_BUCKETS_OF_SERIES, True), (_SPANS_OF_SERIES, False))
        if any((piece.span_hours == BUCKETS) is wanted for piece in pieces)
    ]
    parameters = [bindparam(each.key, type_=each.type) for each in _parameters(pieces)]
    usage = text(" UNION ALL ".join(arms)).bindparams(*parameters).columns(*_columns())
    return series.join(usage.lateral("usage"), true())


# One row a series, so that only so many meet the names of customers. What nobody reads of it
# PostgreSQL does not work out.
_COMBINED = """
SELECT source_series_id, min(bucket_start) AS bucket_start,
    CAST(sum(event_count) AS bigint) AS event_count, sum(amount_sum) AS amount_sum,
    min(amount_min) AS amount_min, max(amount_max) AS amount_max,
    CAST(NULL AS timestamptz) AS latest_time, CAST(NULL AS bytea) AS latest_event_id,
    CAST(NULL AS numeric) AS latest_value
FROM ({arms}) AS usage GROUP BY source_series_id
"""


def of_metric(metric_id: int, pieces: Sequence[Piece], *, combined: bool) -> FromClause:
    """series, each with its usage in the pieces: for all series of a metric.

    `combined`: in one row, without the latest.
    """
    arms, parameters = [], [bindparam("source_metric_id", metric_id, BigInteger)]
    if any(piece.span_hours == BUCKETS for piece in pieces):
        arms.append(_BUCKETS_OF_METRIC)
        parameters += _bucket_parameters(pieces)
    for hours in (BLOCKS, DAYS):
        if spans_read := [piece for piece in pieces if piece.span_hours == hours]:
            arms.append(_SPANS_OF_METRIC.format(hours=hours))
            parameters += _ranges(spans_read, f"starts_{hours}", f"ends_{hours}")
    if combined:
        # Each by itself first: PostgreSQL does that with several processes.
        arms = [_COMBINED.format(arms=arm) for arm in arms]
    statement = " UNION ALL ".join(arms)
    if combined and len(arms) > 1:
        statement = _COMBINED.format(arms=statement)
    source_series_id = column("source_series_id", BigInteger)
    usage = (
        text(statement)
        .bindparams(*parameters)
        .columns(source_series_id, *_columns())
        .subquery("usage")
    )
    return series.join(usage, usage.c.source_series_id == series.c.series_id)


# What each series comes to: at least, by the days inside of what is asked for, and at most, by the
# days that hold it. One row a series, as above; one walk over days, as they lie on the disk.
_BOUNDS = f"""
SELECT series_id AS source_series_id, sum({{value}}) AS at_most,
    sum({{value}}) FILTER (WHERE span_start >= CAST(:inside_start AS timestamptz)
        AND span_start < CAST(:inside_end AS timestamptz)) AS at_least
FROM usage_rollups
WHERE metric_id = :source_metric_id AND span_hours = {spans.DAYS}
    AND span_start >= CAST(:around_start AS timestamptz)
    AND span_start < CAST(:around_end AS timestamptz)
GROUP BY series_id
"""  # noqa: S608 (no value is pasted in)


def bounds_of_metric(metric_id: int, value: str, inside: Piece, around: Piece) -> FromClause:
    """All series of a metric, each with what the sum of `value`, a column that is never below 0, is
    at least (`at_least`, NULL for nothing) and `at_most`. Both pieces are days.
    """
    times = DateTime(timezone=True)
    statement = text(_BOUNDS.format(value=value)).bindparams(
        bindparam("source_metric_id", metric_id, BigInteger),
        bindparam("inside_start", inside.start, times),
        bindparam("inside_end", inside.end, times),
        bindparam("around_start", around.start, times),
        bindparam("around_end", around.end, times),
    )
    source_series_id = column("source_series_id", BigInteger)
    bounds = statement.columns(
        source_series_id, column("at_most", Numeric), column("at_least", Numeric)
    ).subquery("bounds")
    return series.join(bounds, bounds.c.source_series_id == series.c.series_id)


def _columns() -> list[ColumnElement[Any]]:
    return [
        Columns.bucket_start,
        Columns.event_count,
        Columns.amount_sum,
        Columns.amount_min,
        Columns.amount_max,
        Columns.latest_time,
        Columns.latest_event_id,
        Columns.latest_value,
    ]


def _parameters(pieces: Sequence[Piece]) -> list[BindParameter[Any]]:
    rolled = [piece for piece in pieces if piece.span_hours != BUCKETS]
    found = _bucket_parameters(pieces)
    if rolled:
        hours = [piece.span_hours for piece in rolled]
        found.append(bindparam("span_hours", hours, ARRAY(SmallInteger)))
        found += _ranges(rolled, "span_starts", "span_ends")
    return found


def values_of(pieces: Sequence[Piece]) -> dict[str, Any]:
    """The values of the parameters of of_series(), by name."""
    return {parameter.key: parameter.value for parameter in _parameters(pieces)}


def _bucket_parameters(pieces: Sequence[Piece]) -> list[BindParameter[Any]]:
    buckets = [piece for piece in pieces if piece.span_hours == BUCKETS]
    return _ranges(buckets, "bucket_starts", "bucket_ends") if buckets else []


def _ranges(pieces: Sequence[Piece], starts: str, ends: str) -> list[BindParameter[Any]]:
    """Where the pieces begin and end, under these names."""
    return [
        bindparam(starts, [piece.start for piece in pieces], _TIMES),
        bindparam(ends, [piece.end for piece in pieces], _TIMES),
    ]


# Of each row of `wanted`, a relation with the instants of spans.Cut: for one selection a few steps.
_OF_WANTED = f"""
SELECT bucket_start, {_VALUES} FROM usage_buckets AS bucket
WHERE bucket.series_id = series.series_id
    AND bucket_start >= wanted.range_start AND bucket_start < wanted.blocks_start
UNION ALL
SELECT span_start, {_VALUES} FROM usage_rollups AS rollup
WHERE rollup.series_id = series.series_id AND span_hours = {spans.BLOCKS}
    AND span_start >= wanted.blocks_start AND span_start < wanted.days_start
UNION ALL
SELECT span_start, {_VALUES} FROM usage_rollups AS rollup
WHERE rollup.series_id = series.series_id AND span_hours = {spans.DAYS}
    AND span_start >= wanted.days_start AND span_start < wanted.days_end
UNION ALL
SELECT span_start, {_VALUES} FROM usage_rollups AS rollup
WHERE rollup.series_id = series.series_id AND span_hours = {spans.BLOCKS}
    AND span_start >= wanted.days_end AND span_start < wanted.blocks_end
UNION ALL
SELECT bucket_start, {_VALUES} FROM usage_buckets AS bucket
WHERE bucket.series_id = series.series_id
    AND bucket_start >= wanted.blocks_end AND bucket_start < wanted.range_end
"""  # noqa: S608 (no value is pasted in)


def of_wanted() -> FromClause:
    """series, each with its usage in the ranges of the row of `wanted` that stands beside it."""
    usage = text(_OF_WANTED).columns(*_columns()).lateral("usage")
    return series.join(usage, true())
