"""Tallies and figures, wherever what they are made of is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator import detail_questions, usage_repository
from services.aggregator.aggregations import KINDS, Tally
from services.aggregator.domain import UNIQUE_COUNT
from services.aggregator.questions import PERCENTILES, UsageQuery
from services.aggregator.usage_repository import QuestionState, Split, Wanted
from services.aggregator.window_repository import WindowFigures, read_windows, takes_one_statement


def takes_one_snapshot(query: UsageQuery, rolled_until: datetime) -> bool:
    """Whether figures_of_windows() is one statement, and so of one snapshot without more ado."""
    return not _needs_details(query) and takes_one_statement(query, rolled_until)


async def figures_of_windows(
    connection: AsyncConnection, query: UsageQuery, state: QuestionState
) -> WindowFigures:
    """What was asked for, as window_repository.read_windows().

    `state`: of the caller's snapshot, or of an earlier one; the answer's is that of the figures.
    """
    if not _needs_details(query):
        return await read_windows(connection, query, state.rolled_until)
    if query.percentile:
        percent = PERCENTILES[query.percentile]
        figures = await detail_questions.rank_windows(connection, query, percent)
    else:
        figures = await detail_questions.count_windows(connection, query)
    return WindowFigures(state, True, figures)


def _needs_details(query: UsageQuery) -> bool:
    return bool(query.percentile) or query.metric.definition.aggregation == UNIQUE_COUNT


async def tallies_of(
    connection: AsyncConnection, wanted: Mapping[str, Sequence[Wanted]]
) -> dict[Wanted, Tally]:
    """The tally of each, from `wanted` by aggregation; one statement for each aggregation."""
    tallies: dict[Wanted, Tally] = {}
    for aggregation, entries in wanted.items():
        found = await usage_repository.tally_selections(connection, entries, aggregation)
        if aggregation == UNIQUE_COUNT:
            counts = await detail_questions.count_selections(connection, entries)
            found = [
                replace(tally, unique_count=count)
                for tally, count in zip(found, counts, strict=True)
            ]
        tallies |= dict(zip(entries, found, strict=True))
    return tallies


async def figures_of(
    connection: AsyncConnection, wanted: Mapping[str, Sequence[Wanted]]
) -> dict[Wanted, Decimal]:
    """The figure of each, from `wanted` by aggregation."""
    tallies = await tallies_of(connection, wanted)
    return {
        entry: KINDS[aggregation].figure(tallies[entry])
        for aggregation, entries in wanted.items()
        for entry in entries
    }


async def figures_of_parts(
    connection: AsyncConnection, splits: Sequence[Split], aggregation: str
) -> list[tuple[Decimal, ...]]:
    """A figure for each match and one for the rest; all splits are of one aggregation."""
    if aggregation == UNIQUE_COUNT:
        counts = await detail_questions.count_parts(connection, splits)
        return [tuple(map(Decimal, each)) for each in counts]
    figure = KINDS[aggregation].figure
    tallies = await usage_repository.tally_parts(connection, splits, aggregation)
    return [tuple(map(figure, each)) for each in tallies]
