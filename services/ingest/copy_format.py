"""Events as rows of PostgreSQL's binary COPY (PostgreSQL manual, "COPY", Binary Format).

Built by hand because it is the hot path: asyncpg's own encoder takes a UUID, a Decimal and a
datetime object for each event, several times the work of the bytes themselves.
"""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from services.ingest.domain import Batch, Event, Tenant

POSTGRES_EPOCH_MICROS = 946_684_800_000_000  # 2000-01-01T00:00:00Z

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EVENT_COLUMNS = 9
_TEXTS_REMEMBERED_MAX = 8_192

# Number of columns; then each column is its length in bytes and its value.
_START = struct.Struct("!hiqi16s")  # event_time, event_id
_TENANT = struct.Struct("!i16si16sih")  # organization_id, batch_id, mode
_FIXED_BYTES = _START.size + _TENANT.size
_pack_start, _pack_tenant = _START.pack, _TENANT.pack
_pack_length = struct.Struct("!i").pack

# numeric: its length, number of base-10000 digits, weight, sign, digits after the point.
_pack_small = struct.Struct("!ihhHHh").pack
_NUMERIC_ZERO = struct.pack("!ihhHH", 8, 0, 0, 0, 0)
_DIGITS_PER_GROUP = 4


class Rows(NamedTuple):
    """A COPY stream and the batches that its events were put in."""

    stream: bytes
    batches: list[Batch]


def encode_rows(events: Sequence[Event], batch_bytes_max: int, batch_ids: Iterator[UUID]) -> Rows:
    """Rows of a segment of `events`.

    The events are cut, in order, into batches of at most `batch_bytes_max` bytes of rows. An
    event's protobuf is always shorter than its row, so that bounds the message on NATS too.
    """
    rows = [_HEADER]
    batches: list[Batch] = []
    batch_bytes = batch_bytes_max  # full: the first event begins a batch
    batch = Batch(UUID(int=0), [])
    tenant: Tenant | None = None
    tenant_columns = b""
    add_row, add_to_batch = rows.append, batch.events.append
    for event in events:
        customer, metadata = event.customer_id, event.metadata_json
        content = (
            _encode_amount(event.amount)
            + _encode_text(event.metric)
            + (_encode_text(customer) if customer else _NULL)
            + (_encode_long_text(metadata) if metadata else _NULL)
        )
        batch_bytes += _FIXED_BYTES + len(content)
        if batch_bytes > batch_bytes_max:
            batch = Batch(next(batch_ids), [])
            batches.append(batch)
            batch_bytes = _FIXED_BYTES + len(content)
            add_to_batch = batch.events.append
            tenant = None
        if event.tenant is not tenant:
            tenant = event.tenant
            organization, mode = tenant
            tenant_columns = _pack_tenant(16, organization, 16, batch.batch_id.bytes, 2, mode)
        time = event.time_micros - POSTGRES_EPOCH_MICROS
        start = _pack_start(_EVENT_COLUMNS, 8, time, 16, event.event_id)
        add_row(start + tenant_columns + content)
        add_to_batch(event)
    rows.append(_TRAILER)
    return Rows(b"".join(rows), batches)


def encode_numeric(amount: str) -> bytes:
    """A canonical amount (kit.events.canonical_amount) as numeric, its length in front.

    PostgreSQL, src/backend/utils/adt/numeric.c, numeric_recv: digits in base 10000, `weight` is
    the power of 10000 of the first one, zero digits at both ends are left out.
    """
    if len(amount) <= _DIGITS_PER_GROUP and "." not in amount:
        value = int(amount)
        return _pack_small(10, 1, 0, 0, 0, value) if value else _NUMERIC_ZERO
    whole, _, fraction = amount.partition(".")
    groups = -(-len(whole) // _DIGITS_PER_GROUP)
    padded = whole.zfill(groups * _DIGITS_PER_GROUP) + fraction
    padded += "0" * (-len(fraction) % _DIGITS_PER_GROUP)
    digits = [
        int(padded[at : at + _DIGITS_PER_GROUP]) for at in range(0, len(padded), _DIGITS_PER_GROUP)
    ]
    weight = groups - 1
    first, last = 0, len(digits)
    while digits[first] == 0:
        first += 1
        weight -= 1
    while digits[last - 1] == 0:
        last -= 1
    count = last - first
    return struct.pack(
        f"!ihhHH{count}h", 8 + 2 * count, count, weight, 0, len(fraction), *digits[first:last]
    )


def _encode_long_text(text: str) -> bytes:
    raw = text.encode()
    return _pack_length(len(raw)) + raw


# Metrics, customers and many amounts come again and again.
_encode_text = lru_cache(_TEXTS_REMEMBERED_MAX)(_encode_long_text)
_encode_amount = lru_cache(_TEXTS_REMEMBERED_MAX)(encode_numeric)
