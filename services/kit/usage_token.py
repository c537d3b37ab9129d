"""The usage token: what an answer of ingest acknowledged, for usage queries that must count it.

Opaque to callers. ingest makes it, gateways join those of several calls, aggregator reads it. It is
no secret and grants nothing: a query that carries it waits, and then sees what it would see anyway.
"""

import base64
import binascii
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from services.kit.errors import FieldProblem, InvalidArgumentError

FIELD: Final = "usageToken"
BATCH_IDS_MAX: Final = 4
# 9 bytes and 16 a batch, in base64: what is made here has at most 98.
CHARS_MAX: Final = 512

_VERSION: Final = 1
_BATCH_ID_BYTES: Final = 16
_HEAD: Final = struct.Struct(">Bq")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class UsageToken(NamedTuple):
    """What an answer acknowledged: all of it was accepted at `accept_time` or before.

    `batch_ids` names the event batches that hold it, at most BATCH_IDS_MAX; empty: too many or
    not known, then only the instant counts.
    """

    batch_ids: tuple[UUID, ...]
    accept_time: datetime


def encode(batch_ids: Sequence[UUID], accept_time: datetime) -> str:
    """The token, URL-safe; of more than BATCH_IDS_MAX batches only the instant is kept.

    `accept_time`, aware, is the newest of the batches' own (event_batches.accept_time): when no
    id is kept, whoever waits waits until ingest's watermark is later.
    """
    ids = batch_ids if len(batch_ids) <= BATCH_IDS_MAX else ()
    head = _HEAD.pack(_VERSION, (accept_time - _EPOCH) // _MICROSECOND)
    packed = head + b"".join([batch_id.bytes for batch_id in ids])
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode(text: str) -> UsageToken:
    """What `encode` was given; InvalidArgumentError for any other text."""
    try:
        if len(text) > CHARS_MAX:
            raise ValueError(text)
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        _version, micros = _HEAD.unpack_from(packed)
        ids = packed[_HEAD.size :]
        starts = range(0, len(ids), _BATCH_ID_BYTES)
        batch_ids = tuple(UUID(bytes=ids[start : start + _BATCH_ID_BYTES]) for start in starts)
        token = UsageToken(batch_ids, _EPOCH + micros * _MICROSECOND)
        # Each token has one spelling: another version, too many ids and spare bits end here.
        if encode(*token) != text:
            raise ValueError(text)
    except (ValueError, OverflowError, binascii.Error, struct.error):
        raise _malformed() from None
    return token


def join(tokens: Iterable[str]) -> str:
    """One token for what all of them stand for; "" of none. InvalidArgumentError."""
    different = dict.fromkeys(token for token in tokens if token)
    if len(different) <= 1:
        return next(iter(different), "")
    decoded = [decode(token) for token in different]
    # Beside a token without ids, ids say nothing more than the instant does.
    every_has_ids = all(token.batch_ids for token in decoded)
    ids = dict.fromkeys(batch_id for token in decoded for batch_id in token.batch_ids)
    accept_time = max(token.accept_time for token in decoded)
    return encode(tuple(ids) if every_has_ids else (), accept_time)


def _malformed() -> InvalidArgumentError:
    message = "must be a usage-token as an answer of POST /api/track carried it"
    return InvalidArgumentError([FieldProblem(FIELD, message)])
