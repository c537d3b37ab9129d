"""Values, rounded amounts, and values that a full dimension does not know, in memory."""

import hashlib
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from usageflow.common.v1 import common_pb2
from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent

from services.aggregator.bucket import Bucket
from services.aggregator.details import NO_VALUE, rounded, value_key
from services.aggregator.dimensions import OVERFLOW, bounded, key_of
from services.aggregator.fold import (
    Cells,
    Definition,
    DimensionValue,
    fold,
    overflowed,
    values_of,
)
from services.kit.database import TenantKey

TENANT = TenantKey("org_" + "a" * 32, "live")
DEFINITIONS = {TENANT: {"A": Definition(1, ("model",), unique_by="user", percentiles=True)}}
NAMES = {1: ("model",)}

amounts = st.integers(0, 10**26).map(Decimal) | st.decimals(0, 10**6, places=12)
sent_events = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), amounts, st.integers(0, 899)),
    max_size=20,
)


@pytest.mark.parametrize(
    ("amount", "kept"),
    [
        ("0", "0"),
        ("999", "999"),
        ("999.4", "999"),
        ("999.5", "1000"),
        ("1004.9", "1000"),
        ("1005", "1010"),
        ("0.00012345", "0.000123"),
        ("12345678901234567890123456.123456789012", "12300000000000000000000000"),
    ],
)
def test_amounts_keep_three_digits(amount: str, kept: str) -> None:
    assert rounded(Decimal(amount)) == Decimal(kept)


@given(amounts, amounts)
def test_rounding_moves_little_and_keeps_the_order(one: Decimal, other: Decimal) -> None:
    assert abs(Fraction(rounded(one)) - Fraction(one)) * 200 <= Fraction(one)
    assert (one <= other) <= (rounded(one) <= rounded(other))


def test_a_value_s_key_is_what_postgresql_makes_of_it_too() -> None:
    # The migration that finds the values of earlier versions computes it in SQL.
    assert value_key("gpt-\u00e9") == hashlib.sha256("gpt-\u00e9".encode()).digest()[:16]
    assert value_key("") == NO_VALUE


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ("", ""),
        ("{}", ""),
        ('{"user": null}', ""),
        ('{"user": ""}', ""),
        ('{"user": "ada"}', "ada"),
        ('{"user": 1.50}', "1.50"),
        ('{"other": "x", "user": true}', "true"),
    ],
)
def test_the_value_of_an_event_is_the_text_of_its_property(metadata: str, text: str) -> None:
    assert key_of("user", metadata) == value_key(text)


def folded(events: list[tuple[str, str, Decimal, int]]) -> Cells:
    """The events by model."""
    made = EventBatch(batch_id="b")
    group = made.tenants.add(organization_id=TENANT.organization_id, mode=common_pb2.MODE_LIVE)
    for number, (model, user, amount, second) in enumerate(events):
        group.events.append(
            UsageEvent(
                event_id=number.to_bytes(16, "big"),
                metric="A",
                amount=f"{amount:f}",
                time_unix_micros=second * 1_000_000,
                metadata_json=f'{{"model": "{model}", "user": "{user}"}}',
            )
        )
    return fold([made], DEFINITIONS)


def content(bucket: Bucket) -> tuple[object, ...]:
    """All that it holds."""
    return tuple(getattr(bucket, name) for name in Bucket.__slots__)


@given(sent_events)
def test_values_and_amounts_add_up_to_the_events(
    events: list[tuple[str, str, Decimal, int]],
) -> None:
    for bucket in folded(events).values():
        assert bucket.values is not None
        assert bucket.amounts is not None
        assert sum(bucket.values.values()) == sum(bucket.amounts.values()) == bucket.event_count


@given(sent_events, st.sets(st.sampled_from("abcd")))
def test_counting_values_together_is_as_if_they_were_one(
    events: list[tuple[str, str, Decimal, int]], over: set[str]
) -> None:
    cells = folded(events)
    assert {each.value for each in values_of(cells, NAMES)} == {model for model, *_ in events}
    together = overflowed(cells, NAMES, {DimensionValue(1, "model", value) for value in over})
    renamed = [(OVERFLOW if event[0] in over else event[0], *event[1:]) for event in events]
    expected = folded(renamed)
    assert together.keys() == expected.keys()
    for cell, bucket in together.items():
        assert content(bucket) == content(expected[cell])


def test_only_full_dimensions_count_together_what_they_do_not_know() -> None:
    names, full = ("model", "region"), {"model": {value_key("known")}}
    for values, counted_as in (
        (("known", "x"), ("known", "x")),
        (("new", "x"), (OVERFLOW, "x")),
        (("", "x"), ("", "x")),
        ((OVERFLOW, ""), (OVERFLOW, "")),
    ):
        assert bounded(names, values, full) == counted_as
        assert bounded(names, values, {}) == values


def test_what_needs_no_room_is_never_looked_up() -> None:
    cells = folded([("", "x", Decimal(1), 0), (OVERFLOW, "x", Decimal(1), 0)])
    assert values_of(cells, NAMES) == set()
