"""Events as rows of PostgreSQL's binary COPY (PostgreSQL manual, "COPY", Binary Format).

Built by hand because it is the hot path: asyncpg's own encoder takes a UUID, a Decimal and a
datetime object for each event, several times the work of the bytes themselves.
"""

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from services.ingest.domain import Tenant
from services.ingest.events import Batch, Events
from services.kit.events import EVENT_ID_BYTES

POSTGRES_EPOCH_MICROS = 946_684_800_000_000  # 2000-01-01T00:00:00Z

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_EVENT_COLUMNS = 9
_TEXTS_REMEMBERED_MAX = 8_192

# Number of columns; then each column is its length in bytes and its value.
_START = struct.Struct("!hiqi")  # event_time, and the length of event_id
_TENANT = struct.Struct("!i16si16sih")  # organization_id, batch_id, mode
_FIXED_BYTES = _START.size + EVENT_ID_BYTES + _TENANT.size
_pack_start, _pack_tenant = _START.pack, _TENANT.pack
_pack_length = struct.Struct("!i").pack

# numeric: its length, number of base-10000 digits, weight, sign, digits after the point.
_pack_small = struct.Struct("!ihhHHh").pack
_pack_small_fraction = struct.Struct("!ihhHHhh").pack
_NUMERIC_ZERO = struct.pack("!ihhHH", 8, 0, 0, 0, 0)
_DIGITS_PER_GROUP = 4


class Rows(NamedTuple):
    """A COPY stream and the batches that its events were put in."""

    stream: bytes
    batches: list[Batch]


def encode_rows(events: Events, batch_bytes_max: int, batch_ids: Iterator[UUID]) -> Rows:
    """Rows of a segment of `events`.

    The events are cut, in order, into batches of at most `batch_bytes_max` bytes of rows. An
    event's protobuf is always shorter than its row, so that bounds the message on NATS too.
    """
    contents = _Contents.of(events)
    stream = [_HEADER]
    batches: list[Batch] = []
    for start, stop in _cuts(contents, batch_bytes_max):
        whole = stop - start == len(events)
        batch = Batch(next(batch_ids), events if whole else events[start:stop])
        batches.append(batch)
        stream.append(_rows_of(batch, contents if whole else contents.part(start, stop)))
    stream.append(_TRAILER)
    return Rows(b"".join(stream), batches)


class _Contents(NamedTuple):
    """The last columns of rows, encoded, a list each."""

    amounts: list[bytes]
    metrics: list[bytes]
    customers: list[bytes]
    metadata: list[bytes]

    @classmethod
    def of(cls, events: Events) -> "_Contents":
        texts = events.metadata_jsons
        if any(texts):
            metadata = [_encode_long_text(text) if text else _NULL for text in texts]
        else:
            metadata = [_NULL] * len(texts)
        return cls(
            _encoded(events.amounts, _encode_amount),
            _encoded(events.metrics, _encode_text),
            list(map(_encode_customer, events.customer_ids)),
            metadata,
        )

    def part(self, start: int, stop: int) -> "_Contents":
        return _Contents(*(column[start:stop] for column in self))

    def size_bytes(self) -> int:
        return sum(sum(map(len, column)) for column in self)

    def sizes_bytes(self) -> Iterator[int]:
        """Of each row."""
        return (sum(map(len, row)) for row in zip(*self, strict=True))


def _encoded(values: list[str], encode: Callable[[str], bytes]) -> list[bytes]:
    """Each value encoded; often all of a field are the same."""
    if values and values.count(values[0]) == len(values):
        return [encode(values[0])] * len(values)
    return list(map(encode, values))


def _cuts(contents: _Contents, batch_bytes_max: int) -> Iterator[tuple[int, int]]:
    """Where batches begin and end."""
    count = len(contents.amounts)
    if count * _FIXED_BYTES + contents.size_bytes() <= batch_bytes_max:
        if count:
            yield 0, count
        return
    start = batch_bytes = 0
    for at, content_bytes in enumerate(contents.sizes_bytes()):
        row_bytes = _FIXED_BYTES + content_bytes
        if at > start and batch_bytes + row_bytes > batch_bytes_max:
            yield start, at
            start, batch_bytes = at, 0
        batch_bytes += row_bytes
    yield start, count


def _rows_of(batch: Batch, contents: _Contents) -> bytes:
    """The rows of a batch, joined without a step of Python for each."""
    events = batch.events
    starts = {time: _encode_start(time) for time in set(events.times_micros)}
    tenants = {tenant: _encode_tenant(tenant, batch.batch_id) for tenant in set(events.tenants)}
    return b"".join(
        chain.from_iterable(
            zip(
                map(starts.__getitem__, events.times_micros),
                events.ids,
                map(tenants.__getitem__, events.tenants),
                *contents,
                strict=True,
            )
        )
    )


def _encode_start(time_micros: int) -> bytes:
    return _pack_start(_EVENT_COLUMNS, 8, time_micros - POSTGRES_EPOCH_MICROS, EVENT_ID_BYTES)


def _encode_tenant(tenant: Tenant, batch_id: UUID) -> bytes:
    return _pack_tenant(16, tenant.organization, 16, batch_id.bytes, 2, tenant.mode)


def encode_numeric(amount: str) -> bytes:
    """A canonical amount (kit.events.canonical_amount) as numeric, its length in front.

    PostgreSQL, src/backend/utils/adt/numeric.c, numeric_recv: digits in base 10000, `weight` is
    the power of 10000 of the first one, zero digits at both ends are left out.
    """
    if len(amount) <= _DIGITS_PER_GROUP and "." not in amount:
        value = int(amount)
        return _pack_small(10, 1, 0, 0, 0, value) if value else _NUMERIC_ZERO
    whole, _, fraction = amount.partition(".")
    if len(whole) <= _DIGITS_PER_GROUP and len(fraction) <= _DIGITS_PER_GROUP and whole != "0":
        value = int(fraction.ljust(_DIGITS_PER_GROUP, "0"))
        return _pack_small_fraction(12, 2, 0, 0, len(fraction), int(whole), value)
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
_encode_customer = lru_cache(_TEXTS_REMEMBERED_MAX)(
    lambda customer: _encode_long_text(customer) if customer else _NULL
)
_encode_amount = lru_cache(_TEXTS_REMEMBERED_MAX)(encode_numeric)
