"""What comes by column goes on by column: the same figures as cell by cell."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from usageflow.events.v1.events_pb2 import EventBatch, EventColumns

from services.aggregator.fold import Fold, fold
from tests.unit.aggregator.test_folding import (
    DEFINITIONS,
    TEST,
    Sent,
    batch,
    one,
    sent_events,
)

Figures = dict[object, tuple[object, ...]]


def folded(batches: list[EventBatch]) -> Fold:
    made = Fold(DEFINITIONS)
    for each in batches:
        made.add(each)
    return made


def both_ways(batches: list[EventBatch]) -> tuple[Figures, Figures]:
    """The figures of all cells, and the same of what is left in columns where it can be."""
    cells, counted = folded(batches).counted()
    parted: Figures = {
        (metric_id, customer_id, (), quarter): figures_of(bucket)
        for (metric_id, customer_id, quarter), bucket in counted.buckets()
    }
    assert not parted.keys() & cells.keys()
    parted |= {cell: figures_of(bucket) for cell, bucket in cells.items()}
    return {cell: figures_of(bucket) for cell, bucket in fold(batches, DEFINITIONS).items()}, parted


def figures_of(bucket: object) -> tuple[object, ...]:
    names = ("event_count", "amount_sum", "amount_min", "amount_max", "latest_value")
    return tuple(getattr(bucket, name) for name in (*names, "latest_time_us", "latest_event_id"))


@given(sent_events, st.randoms(use_true_random=False), st.booleans())
def test_columns_have_the_figures_of_cells(
    events: list[Sent], order: random.Random, mixed: bool
) -> None:
    if not mixed:
        events = [event._replace(metric="A") for event in events]
    parts: list[list[Sent]] = [[] for _ in range(4)]
    for event in events:
        order.choice(parts).append(event)
    all_cells, parted = both_ways(
        [batch(part, by_column=not mixed or order.random() < 0.7) for part in parts]
    )
    assert parted == all_cells


def test_of_two_tenants_each_has_its_own_events() -> None:
    sent = [one("1", 1), one("2", 2)._replace(tenant=TEST), one("4", 3)]
    _cells, counted = folded(
        [batch(sent, by_column=True), batch(sent[:1], by_column=True)]
    ).counted()
    assert counted.metric_ids == [1, 3]
    assert counted.sums == ["6", "2"]


def test_a_metric_that_came_both_ways_is_counted_once_a_cell() -> None:
    cells, counted = folded([batch([one("1", 1)], by_column=True), batch([one("2", 2)])]).counted()
    assert not counted.metric_ids
    assert [bucket.amount_sum for bucket in cells.values()] == [3]


def too_large(columns: EventColumns) -> None:
    columns.customer_indexes[:] = [1, 0]


def too_few(columns: EventColumns) -> None:
    columns.metric_indexes[:] = [0]


def without_amounts(columns: EventColumns) -> None:
    del columns.amounts[:]


def too_many_times(columns: EventColumns) -> None:
    columns.times_unix_micros[:] = [0, 0, 0]


@pytest.mark.parametrize("spoil", [too_large, too_few, without_amounts, too_many_times])
def test_columns_that_do_not_fit_are_no_others_events(
    spoil: Callable[[EventColumns], None],
) -> None:
    spoilt = batch([one("1", 1), one("1", 2)], by_column=True)
    spoil(spoilt.tenants[0].columns)
    others = [one("5", n)._replace(customer_id=f"user_{n}") for n in range(3, 9)]
    with pytest.raises((IndexError, ValueError)):
        folded([spoilt, batch(others, by_column=True)]).counted()


def test_columns_without_events_count_nothing() -> None:
    nothing = batch([one("1")], by_column=True)
    columns = nothing.tenants[0].columns
    for field in ("metric_indexes", "amount_indexes", "customer_indexes", "times_unix_micros"):
        columns.ClearField(field)
    columns.event_ids = b""
    assert not folded([nothing]).counted()[1].sums
    assert folded([nothing, batch([one("2", 2)], by_column=True)]).counted()[1].sums == ["2"]
