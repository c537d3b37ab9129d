"""Folding in memory against a naive oracle: lists and Fraction."""

import random
from collections import defaultdict
from decimal import Decimal, Inexact
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from usageflow.common.v1 import common_pb2
from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent

from services.aggregator.domain import QUARTER_US
from services.aggregator.fold import (
    Definition,
    Fold,
    Series,
    events_in,
    fold,
    metrics_of,
    series_of,
)
from services.kit.database import TenantKey
from tests.columns import columns_of

ORGANIZATION = "org_" + "a" * 32
LIVE = TenantKey(ORGANIZATION, "live")
TEST = TenantKey(ORGANIZATION, "test")
MODES = {"live": common_pb2.MODE_LIVE, "test": common_pb2.MODE_TEST}
DEFINITIONS = {
    LIVE: {"A": Definition(1, ()), "B": Definition(2, ("model",))},
    TEST: {"A": Definition(3, ()), "B": Definition(4, ("model",))},
}


class Sent(NamedTuple):
    """An event and whose it is."""

    tenant: TenantKey
    metric: str
    amount: str
    customer_id: str
    time_us: int
    event_id: bytes
    model: str


amounts = st.builds(
    lambda scaled, scale: format(Decimal(scaled).scaleb(-scale).normalize() + 0, "f"),
    st.one_of(st.integers(0, 50), st.integers(0, 10**15)),
    st.integers(0, 12),
)
sent_events = st.lists(
    st.builds(
        Sent,
        st.sampled_from((LIVE, TEST)),
        st.sampled_from(("A", "B")),
        amounts,
        st.sampled_from(("", "user_1", "user_2")),
        st.integers(-2, 2).map(lambda quarter: quarter * QUARTER_US)
        | st.integers(-2 * QUARTER_US, 2 * QUARTER_US),
        st.binary(min_size=16, max_size=16),
        st.sampled_from(("", "gpt-4", "o1")),
    ),
    unique_by=lambda event: event.event_id,
    max_size=40,
)


def batch(events: list[Sent], *, by_column: bool = False) -> EventBatch:
    """The events in one batch, grouped as ingest does."""
    made = EventBatch(batch_id="b")
    groups: dict[TenantKey, list[Sent]] = defaultdict(list)
    for event in events:
        groups[event.tenant].append(event)
    for tenant, members in groups.items():
        group = made.tenants.add(organization_id=tenant.organization_id, mode=MODES[tenant.mode])
        messages = [
            UsageEvent(
                event_id=event.event_id,
                metric=event.metric,
                amount=event.amount,
                customer_id=event.customer_id,
                time_unix_micros=event.time_us,
                metadata_json=f'{{"model": "{event.model}"}}' if event.model else "",
            )
            for event in members
        ]
        if by_column:
            group.columns.CopyFrom(columns_of(messages))
        else:
            group.events.extend(messages)
    return made


@given(sent_events, st.randoms(use_true_random=False))
def test_any_partition_in_any_order_gives_what_lists_and_fractions_give(
    events: list[Sent], order: random.Random
) -> None:
    shuffled = list(events)
    order.shuffle(shuffled)
    cut = order.randint(0, len(shuffled))
    parts = (shuffled[:cut], shuffled[cut:])
    by_column = [order.random() < 0.7 for _ in parts]
    batches = [batch(part, by_column=each) for part, each in zip(parts, by_column, strict=True)]
    cells = fold(batches, DEFINITIONS)
    expected: dict[tuple[object, ...], list[Sent]] = defaultdict(list)
    for event in events:
        definition = DEFINITIONS[event.tenant][event.metric]
        values = (event.model,) if definition.dimensions else ()
        quarter = event.time_us // QUARTER_US
        expected[definition.metric_id, event.customer_id, values, quarter].append(event)
    assert cells.keys() == expected.keys()
    for cell, members in expected.items():
        found = cells[cell]  # type: ignore[index]
        assert found.event_count == len(members)
        assert Fraction(found.amount_sum) == sum(Fraction(event.amount) for event in members)
        assert found.amount_min == min(Decimal(event.amount) for event in members)
        assert found.amount_max == max(Decimal(event.amount) for event in members)
        last = max(members, key=lambda event: (event.time_us, event.event_id))
        assert found.latest_value == Decimal(last.amount)
        assert (found.latest_time_us, found.latest_event_id) == (last.time_us, last.event_id)


def one(amount: str, number: int = 0) -> Sent:
    return Sent(LIVE, "A", amount, "user_1", 0, number.to_bytes(16), "")


@pytest.mark.parametrize("by_column", [False, True])
def test_a_tenth_and_two_tenths_are_three_tenths(by_column: bool) -> None:
    sent = [one("0.1", 1), one("0.2", 2)]
    cells = fold([batch(sent, by_column=by_column)], DEFINITIONS)
    assert cells[1, "user_1", (), 0].amount_sum == Decimal("0.3")


@pytest.mark.parametrize("by_column", [False, True])
def test_the_largest_and_the_smallest_amounts_add_up_exactly(by_column: bool) -> None:
    largest, smallest = "9" * 26, "0.000000000001"
    sent = [one(largest, n) for n in range(1, 1000)] + [one(smallest)]
    cells = fold([batch(sent, by_column=by_column)], DEFINITIONS)
    total = cells[1, "user_1", (), 0].amount_sum
    assert Fraction(total) == 999 * Fraction(largest) + Fraction(smallest)


@pytest.mark.parametrize("by_column", [False, True])
def test_a_sum_that_would_lose_a_digit_is_an_error(by_column: bool) -> None:
    sent = [one("1" + "0" * 61, 1), one("0.1", 2)]
    with pytest.raises(Inexact):
        fold([batch(sent, by_column=by_column)], DEFINITIONS)


def test_a_batch_tells_which_metrics_it_names() -> None:
    events = [one("1"), one("2", 2)._replace(tenant=TEST, metric="B")]
    asked = batch(events)
    for tenant in asked.tenants:
        tenant.metrics.append("C")
    assert metrics_of(asked) == {LIVE: {"A"}, TEST: {"B"}}


def test_a_batch_by_column_tells_which_metrics_it_names() -> None:
    events = [one("1"), one("2", 2)._replace(tenant=TEST, metric="B")]
    asked = batch(events, by_column=True)
    assert metrics_of(asked) == {LIVE: {"A"}, TEST: {"B"}}
    assert events_in(asked) == 2


def test_a_fold_of_some_metrics_leaves_out_the_others() -> None:
    events = [one("1", 1), one("2", 2)._replace(metric="B"), one("4", 3)._replace(tenant=TEST)]
    for by_column in (False, True):
        folded = Fold({LIVE: {"A": Definition(7, ())}}, others_left_out=True)
        folded.add(batch(events, by_column=by_column))
        [(cell, bucket)] = folded.cells().items()
        assert cell == (7, "user_1", (), 0)
        assert bucket.amount_sum == 1
        with pytest.raises(KeyError):
            fold([batch(events, by_column=by_column)], {LIVE: {"A": Definition(7, ())}})


def test_of_events_at_one_time_the_one_with_the_largest_id_is_the_latest() -> None:
    low, high = bytes(8), b"\xff" * 8
    ids = [low + high, high + low, high + high, b"\x7f" + high[:7] + high]
    events = [one(str(n), n)._replace(event_id=event_id) for n, event_id in enumerate(ids)]
    for by_column in (False, True):
        [bucket] = fold([batch(events, by_column=by_column)], DEFINITIONS).values()
        assert bucket.latest_value == 2
        assert bucket.latest_event_id == high + high


def test_customers_and_dimensions_can_not_be_mistaken_for_one_another() -> None:
    keys = {
        Series(1, customer, text).key()
        for customer, text in [
            ("", "{}"),
            ("{}", ""),
            ("user", '{"a":"b"}'),
            ('user{"a":"b"}', ""),
            ("user", '{"a":"c"}'),
        ]
    }
    assert len(keys) == 5


def test_cells_of_one_series_share_it() -> None:
    events = [
        one("1", 1)._replace(metric="B", model="x"),
        one("1", 2)._replace(metric="B", model="x", time_us=QUARTER_US),
        one("1", 3)._replace(metric="B"),
    ]
    cells = fold([batch(events)], DEFINITIONS)
    found = series_of(cells, {2: ("model",)})
    assert found == {
        (2, "user_1", ("x",), 0): Series(2, "user_1", '{"model":"x"}'),
        (2, "user_1", ("x",), 1): Series(2, "user_1", '{"model":"x"}'),
        (2, "user_1", ("",), 0): Series(2, "user_1", "{}"),
    }
