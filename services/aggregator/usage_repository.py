"""The SQL of usage questions. Each function works inside the caller's transaction."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Text,
    cast,
    column,
    func,
    literal,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import usage_source
from services.aggregator.aggregations import KINDS, Part, Tally
from services.aggregator.spans import cut
from services.aggregator.tables import fold_state, metrics, rollup_state, series
from services.aggregator.void_repository import any_recount, needs_extremes
from services.aggregator.voids import being_recounted
from services.kit.database import TenantKey

_TIMES = ARRAY(DateTime(timezone=True))
_of = usage_source.Columns
_last_first = (_of.latest_time.desc(), _of.latest_event_id.desc())
# How each part of a tally is combined from buckets.
PARTS: dict[Part, ColumnElement[Any]] = {
    "event_count": cast(func.sum(_of.event_count), BigInteger),
    "amount_sum": func.sum(_of.amount_sum),
    "amount_min": func.min(_of.amount_min),
    "amount_max": func.max(_of.amount_max),
    "latest_value": func.array_agg(aggregate_order_by(_of.latest_value, *_last_first))[1],
}


async def begin_snapshot(connection: AsyncConnection) -> None:
    """All that this transaction reads is of one instant; has to be its first statement."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


_FIND_COUNTED = text(
    """
SELECT array(SELECT message_id FROM inbox WHERE message_id = ANY (CAST(:ids AS text[]))) AS counted,
       (SELECT inbox_horizon FROM fold_state) AS horizon
"""
)


async def find_counted(
    connection: AsyncConnection, batch_ids: Collection[str]
) -> tuple[set[str], datetime | None]:
    """Which batches are in the inbox; and before which instant everything accepted has been
    counted, in the inbox or not (None: nothing has been forgotten yet).
    """
    row = (await connection.execute(_FIND_COUNTED, {"ids": list(batch_ids)})).one()
    return set(row.counted), row.horizon


class QuestionState(NamedTuple):
    """What the snapshot of an answer says besides usage.

    `definition_version`: of fold_state; `rolled_until`: before when spans may be read.
    `watermark`: the newest that has been noted.
    """

    definition_version: int
    rolled_until: datetime
    watermark: datetime | None


STATE: tuple[ColumnElement[Any], ...] = (
    fold_state.c.definition_version,
    rollup_state.c.rolled_until,
    fold_state.c.watermark,
)
# Both have one row.
STATES = fold_state.join(rollup_state, true())


async def read_state(connection: AsyncConnection) -> QuestionState:
    """As of the caller's snapshot."""
    row = (await connection.execute(select(*STATE).select_from(STATES))).one()
    return QuestionState(*row)


async def _check_exact(
    connection: AsyncConnection,
    aggregation: str,
    metric_ids: Sequence[int],
    start: datetime,
    end: datetime,
) -> None:
    """What voids have left inexact is never told."""
    if not needs_extremes(aggregation):
        return
    if (await connection.execute(select(any_recount(metric_ids, start, end)))).scalar_one():
        raise being_recounted()


@dataclass(frozen=True, slots=True)
class BillableMetric:
    """What billing has to know of a metric. `metric_id`: Metric.counted_id."""

    metric_id: int
    unit: str
    aggregation: str


async def find_billable_metrics(
    connection: AsyncConnection, tenant: TenantKey, keys: Collection[str]
) -> dict[str, BillableMetric]:
    """Those of the metrics that exist, by key."""
    query = select(
        metrics.c.key, metrics.c.counted_id, metrics.c.unit, metrics.c.aggregation
    ).where(
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


# What billing is told of a metric, however it counts.
_BILLED_PARTS: tuple[Part, ...] = ("event_count", "amount_sum")


async def tally_selections(
    connection: AsyncConnection, wanted: Sequence[Wanted], aggregation: str
) -> list[Tally]:
    """A tally for each, in order, in one statement; all metrics are of one aggregation.

    Each tells how many events there were and what they sum to. NotYetError: a bucket is being
    counted anew.
    """
    await _check_all_exact(connection, wanted, aggregation)
    parts = tuple(dict.fromkeys((*KINDS[aggregation].PARTS, *_BILLED_PARTS)))
    one = _wanted_table(wanted, await usage_source.read_rolled_until(connection))
    # LATERAL, so that each is a walk along indexes, whatever the planner thinks of the rest.
    tally = (
        select(*(PARTS[part].label(part) for part in parts))
        .select_from(usage_source.of_wanted())
        .where(*_series_of(one))
        .lateral("tally")
    )
    query = select(*tally.c).join_from(one, tally, true()).order_by(one.c.number)
    rows = await connection.execute(query)
    return [_tally(parts, row) for row in rows]


async def _check_all_exact(
    connection: AsyncConnection, wanted: Sequence[Wanted], aggregation: str
) -> None:
    if wanted:
        metric_ids = sorted({entry.metric_id for entry in wanted})
        start, end = min(entry.start for entry in wanted), max(entry.end for entry in wanted)
        await _check_exact(connection, aggregation, metric_ids, start, end)


@dataclass(frozen=True, slots=True)
class Split:
    """A figure to compute in parts: usage is in the part of the first match that fits, or last."""

    wanted: Wanted
    matches: Sequence[Mapping[str, str]]


async def tally_parts(
    connection: AsyncConnection, splits: Sequence[Split], aggregation: str
) -> list[list[Tally]]:
    """A tally for each match and one for the rest; NotYetError as in tally_selections."""
    await _check_all_exact(connection, [split.wanted for split in splits], aggregation)
    parts = KINDS[aggregation].PARTS
    one = _wanted_table(
        [split.wanted for split in splits],
        await usage_source.read_rolled_until(connection),
        [split.matches for split in splits],
    )
    index = match_index(one.c.matches).label("part")
    tally = (
        select(index, *(PARTS[part].label(part) for part in parts))
        .select_from(usage_source.of_wanted())
        .where(*_series_of(one))
        .group_by(text("1"))
        .lateral("tally")
    )
    query = select(one.c.number, *tally.c).join_from(one, tally, true())
    tallies = [[Tally()] * (len(split.matches) + 1) for split in splits]
    for number, part, *values in await connection.execute(query):
        tallies[number][-1 if part is None else part] = _tally(parts, values)
    return tallies


def match_index(matches: ColumnElement[Any]) -> ColumnElement[Any]:
    """The index of the first of `matches` that fits a series; NULL when none does."""
    match = (
        func.jsonb_array_elements(matches)
        .table_valued(column("dimensions", JSONB), with_ordinality="number")
        .render_derived("match")
    )
    asked = (
        func.jsonb_each_text(match.c.dimensions)
        .table_valued(column("key", Text), column("value", Text))
        .render_derived("asked")
    )
    has = func.coalesce(series.c.dimensions.op("->>")(asked.c.key), "")
    differs = select(asked.c.key).where(has != asked.c.value).correlate_except(asked).exists()
    first = select(func.min(match.c.number) - 1).where(~differs).correlate_except(match)
    return first.scalar_subquery()


def _series_of(one: Any) -> tuple[ColumnElement[bool], ...]:
    return series.c.metric_id == one.c.metric_id, series.c.customer_id == one.c.customer_id


def _wanted_table(
    wanted: Sequence[Wanted],
    rolled_until: datetime,
    matches: Sequence[Sequence[Mapping[str, str]]] = (),
) -> Any:
    """The figures that are wanted as a table, by number; with `matches` there is one for each."""
    texts = [json.dumps([dict(match) for match in each]) for each in matches]
    texts = texts or ["[]"] * len(wanted)
    cuts = [cut(entry.start, entry.end, rolled_until) for entry in wanted]
    return (
        func.unnest(
            literal(list(range(len(wanted))), ARRAY(Integer)),
            literal([entry.metric_id for entry in wanted], ARRAY(BigInteger)),
            literal([entry.customer_id for entry in wanted], ARRAY(Text)),
            literal([each.start for each in cuts], _TIMES),
            literal([each.blocks_start for each in cuts], _TIMES),
            literal([each.days_start for each in cuts], _TIMES),
            literal([each.days_end for each in cuts], _TIMES),
            literal([each.blocks_end for each in cuts], _TIMES),
            literal([each.end for each in cuts], _TIMES),
            cast(literal(texts, ARRAY(Text)), ARRAY(JSONB)),
        )
        .table_valued(
            column("number", Integer),
            column("metric_id", BigInteger),
            column("customer_id", Text),
            column("range_start", DateTime(timezone=True)),
            column("blocks_start", DateTime(timezone=True)),
            column("days_start", DateTime(timezone=True)),
            column("days_end", DateTime(timezone=True)),
            column("blocks_end", DateTime(timezone=True)),
            column("range_end", DateTime(timezone=True)),
            column("matches", JSONB),
        )
        .render_derived("wanted")
    )


def _tally(parts: Sequence[Part], values: Sequence[Any]) -> Tally:
    """Without any bucket every part is NULL, and stays as it is."""
    known = {part: value for part, value in zip(parts, values, strict=True) if value is not None}
    return Tally(**known)
