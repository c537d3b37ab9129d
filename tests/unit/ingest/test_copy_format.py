"""Rows of binary COPY, as bytes; integration tests give them to PostgreSQL."""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.batches import message_of
from services.ingest.copy_format import encode_numeric, encode_rows
from services.ingest.domain import Event, Tenant
from services.ingest.events import Events, StoredBatch
from services.ingest.group import BATCH_BYTES_MAX
from services.kit.events import canonical_amount
from services.kit.messaging import PAYLOAD_BYTES_MAX

TENANT = Tenant(bytes(range(16)), 1)


def event(number: int, tenant: Tenant = TENANT, **content: str) -> Event:
    fields = {"metric": "API_CALL", "amount": "1", "customer_id": "", "metadata_json": ""}
    return Event(
        event_id=number.to_bytes(16),
        tenant=tenant,
        time_micros=0,
        time_sent=True,
        **(fields | content),
    )


def batch_ids() -> Iterator[UUID]:
    return (UUID(int=number) for number in range(1, 10**6))


@pytest.mark.parametrize(
    ("amount", "digits", "weight", "scale"),
    [
        ("0", [], 0, 0),
        ("1", [1], 0, 0),
        ("9999", [9999], 0, 0),
        ("10000", [1], 1, 0),
        ("12345", [1, 2345], 1, 0),
        ("100000000", [1], 2, 0),
        ("0.5", [5000], -1, 1),
        ("0.00005", [5000], -2, 5),
        ("1.5", [1, 5000], 0, 1),
        ("12345.678901", [1, 2345, 6789, 100], 1, 6),
    ],
)
def test_a_numeric_has_base_10000_digits_without_zeros_at_the_ends(
    amount: str, digits: list[int], weight: int, scale: int
) -> None:
    length, count, got_weight, sign, got_scale = struct.unpack_from(
        "!ihhHH", encode_numeric(amount)
    )
    got_digits = list(struct.unpack_from(f"!{count}h", encode_numeric(amount), 12))
    assert (got_digits, got_weight, sign, got_scale) == (digits, weight, 0, scale)
    assert length == len(encode_numeric(amount)) - 4


@given(st.decimals(min_value=0, max_value=10**26 - 1, places=12))
def test_a_numeric_is_the_number_that_it_encodes(value: Decimal) -> None:
    raw = encode_numeric(canonical_amount(f"{value:f}"))
    _length, count, weight, _sign, _scale = struct.unpack_from("!ihhHH", raw)
    digits = struct.unpack_from(f"!{count}h", raw, 12)
    number = sum(digit * Fraction(10_000) ** (weight - at) for at, digit in enumerate(digits))
    assert number == Fraction(value)


def test_events_that_fit_are_one_batch() -> None:
    rows = encode_rows(Events.of([event(1), event(2)]), BATCH_BYTES_MAX, batch_ids())
    assert [(batch.batch_id, len(batch.events)) for batch in rows.batches] == [(UUID(int=1), 2)]


def test_no_events_are_no_batch() -> None:
    assert encode_rows(Events.of([]), BATCH_BYTES_MAX, batch_ids()).batches == []


def test_events_are_cut_into_batches_in_their_order() -> None:
    events = [event(number, metadata_json="x" * 100) for number in range(10)]
    batches = encode_rows(Events.of(events), 700, batch_ids()).batches
    assert [part for batch in batches for part in batch.events] == events
    assert [len(batch.events) for batch in batches] == [3, 3, 3, 1]
    assert len({batch.batch_id for batch in batches}) == 4


def test_each_row_carries_the_id_of_its_batch_and_its_tenant() -> None:
    other = Tenant(bytes(16), 2)
    events = [event(1), event(2, other), event(3), event(4, other)]
    rows = encode_rows(Events.of(events), 250, batch_ids())
    assert len(rows.batches) == 2
    for batch in rows.batches:
        for part in batch.events:
            row = struct.pack(
                "!i16si16si16s",
                16,
                part.event_id,
                16,
                part.tenant.organization,
                16,
                batch.batch_id.bytes,
            )
            assert row in rows.stream


@pytest.mark.parametrize(
    "content",
    [
        {"metric": "m", "amount": "0"},
        {"metric": "m", "amount": "9" * 26 + "." + "9" * 12},
        {"metric": "m" * 128, "amount": "1", "customer_id": "\U0001f600" * 255},
        {"metric": "m", "amount": "1", "metadata_json": "x" * 8192},
    ],
)
def test_a_full_batch_of_any_content_fits_into_a_message(content: dict[str, str]) -> None:
    """Worst case: every event has a tenant of its own."""
    events = [event(n, Tenant(n.to_bytes(16), 1), **content) for n in range(10_000)]
    batch = encode_rows(Events.of(events), BATCH_BYTES_MAX, batch_ids()).batches[0]
    message = message_of(StoredBatch(batch, datetime(2030, 1, 1, tzinfo=UTC)))
    assert len(message.payload) <= PAYLOAD_BYTES_MAX
