"""What a valid usage event is, for HTTP and gRPC alike, and how its id is made.

This is the hot path of gateway and ingest: a plain event is checked in about a microsecond, by
str methods and one or two regular expressions; whatever they don't let through takes the exact
way below.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256 as _sha256
from uuid import UUID

from services.kit.errors import FieldProblem
from services.kit.money import format_decimal

METRIC_CHARS_MAX = 128
CUSTOMER_ID_CHARS_MAX = 255
IDEMPOTENCY_KEY_CHARS_MAX = 255
AMOUNT_DIGITS_MAX = 38
AMOUNT_SCALE_MAX = 12
AMOUNT_CHARS_MAX = 64
METADATA_BYTES_MAX = 8 * 1024
METADATA_KEYS_MAX = 64
METADATA_NUMBER_CHARS_MAX = 64
METADATA_REMEMBERED_MAX = 4_096
METADATA_REMEMBERED_CHARS_MAX = 256
# By default, and at least; an organization may set up to PAST_DAYS_MAX, for imports.
PAST_DAYS_DEFAULT = 35
PAST_DAYS_MAX = 400
# How long raw events and their idempotency keys are kept after they were accepted.
RETENTION_DAYS_MIN = 90
RETENTION_DAYS_DEFAULT = 400
# A hundred years: for good.
RETENTION_DAYS_MAX = 36_500
FUTURE_MINUTES_MAX = 5

MICROS_PER_SECOND = 1_000_000
MICROS_PER_DAY = 86_400 * MICROS_PER_SECOND
PAST_MICROS_DEFAULT = PAST_DAYS_DEFAULT * MICROS_PER_DAY
FUTURE_MICROS_MAX = FUTURE_MINUTES_MAX * 60 * MICROS_PER_SECOND

EVENT_ID_BYTES = 16
_EVENT_ID_PREFIX = "evt_"
_EVENT_ID = re.compile(r"evt_[0-9a-f]{32}")
# Names what is hashed, so that no other hash over the same bytes is ever an event's id.
_EVENT_ID_DOMAIN = b"usageflow.event.v1\x00"

is_metric = re.compile(r"[A-Za-z0-9_.:\-]{1,128}").fullmatch
# Always within the limits: 26 digits before the point and 12 behind it.
_is_plain_amount = re.compile(r"[0-9]{1,26}(?:\.[0-9]{1,12})?").fullmatch
_is_canonical_amount = re.compile(r"(?:0|[1-9][0-9]{0,25})(?:\.[0-9]{0,11}[1-9])?").fullmatch
# A JSON number's exponent is read too: JavaScript writes 0.0000001 as 1e-7.
_is_amount = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?").fullmatch
_has_control = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]").search

_BAD_METRIC = FieldProblem(
    "metric", f"must be 1-{METRIC_CHARS_MAX} characters of A-Z a-z 0-9 _ . : -"
)
_BAD_AMOUNT = FieldProblem("amount", 'must be a decimal such as "12.5"')
_NEGATIVE_AMOUNT = FieldProblem("amount", "must be at least 0")
_LONG_AMOUNT = FieldProblem(
    "amount",
    f"must have at most {AMOUNT_DIGITS_MAX} digits, at most {AMOUNT_SCALE_MAX} after the point",
)
_BAD_CUSTOMER = FieldProblem(
    "customerId", f"must be 1-{CUSTOMER_ID_CHARS_MAX} characters without control characters"
)
_BAD_KEY = FieldProblem(
    "idempotencyKey", f"must be 1-{IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
)
_BAD_METADATA = "must be a JSON object of strings, numbers and booleans"


def check_event(
    metric: str,
    amount: str,
    customer_id: str,
    time_micros: int | None,
    metadata_json: str,
    idempotency_key: str,
    now_micros: int,
    past_micros_max: int = PAST_MICROS_DEFAULT,
) -> list[FieldProblem]:
    """What is wrong with an event; an empty list: nothing.

    Times are microseconds since 1970-01-01T00:00:00Z; `time_micros` None: not sent. Empty
    `customer_id`, `metadata_json` and `idempotency_key` mean that there is none: an HTTP caller
    that sends an empty one has to be refused by the gateway. Fields are named as in the HTTP
    contract: metric, amount, customerId, timestamp, metadata, idempotencyKey.
    """
    problems: list[FieldProblem] = []
    if not is_metric(metric):
        problems.append(_BAD_METRIC)
    if not _is_plain_amount(amount):
        problems += _amount_problems(amount)
    if customer_id and not (
        len(customer_id) <= CUSTOMER_ID_CHARS_MAX and customer_id.isprintable()
    ):
        problems += _customer_problems(customer_id)
    if time_micros is not None:
        ahead = time_micros - now_micros
        if not -past_micros_max <= ahead <= FUTURE_MICROS_MAX:
            problems.append(_time_problem(past_micros_max))
    if metadata_json:
        remembered = len(metadata_json) <= METADATA_REMEMBERED_CHARS_MAX
        find = _remembered_metadata_problems if remembered else _metadata_problems
        problems += find(metadata_json)
    if idempotency_key and not (
        len(idempotency_key) <= IDEMPOTENCY_KEY_CHARS_MAX
        and idempotency_key.isascii()
        and idempotency_key.isprintable()
    ):
        problems.append(_BAD_KEY)
    return problems


def are_plain(
    metrics: Collection[str],
    amounts: Collection[str],
    customer_ids: Sequence[str],
    idempotency_keys: Sequence[str],
) -> bool:
    """Whether check_event finds nothing wrong with any of these, none of which is empty.

    For thousands at once, at a third of its cost. False: only check_event can tell.
    """
    return (
        all(map(is_metric, metrics))
        and all(map(_is_plain_amount, amounts))
        and _are_printable(customer_ids, CUSTOMER_ID_CHARS_MAX)
        and _are_printable(idempotency_keys, IDEMPOTENCY_KEY_CHARS_MAX)
        and "".join(idempotency_keys).isascii()
    )


def are_in_time(times_micros: Collection[int], now_micros: int, past_micros_max: int) -> bool:
    """Whether check_event finds nothing wrong with any of these times."""
    return not times_micros or (
        min(times_micros) >= now_micros - past_micros_max
        and max(times_micros) <= now_micros + FUTURE_MICROS_MAX
    )


def window(
    clocks: Collection[tuple[str, int]], now_micros: int, past_micros_max: int
) -> tuple[int, int]:
    """What check_event takes as `now_micros` and `past_micros_max` where test clocks run.

    An event may be as late as without them, and as early as the furthest clock.
    """
    if not clocks:
        # Nearly nobody has any, and this is done for each event.
        return now_micros, past_micros_max
    latest = max(time_micros for _, time_micros in clocks)
    ahead = max(0, latest - now_micros)
    return now_micros + ahead, past_micros_max + ahead


def _are_printable(texts: Sequence[str], chars_max: int) -> bool:
    return max(map(len, texts), default=0) <= chars_max and "".join(texts).isprintable()


def canonical_amount(text: str) -> str:
    """The one spelling of a valid amount: plain digits, no zeros in front or at the end, no "-0".

    `text` has passed check_event; ValueError when it is no decimal >= 0.
    """
    if _is_canonical_amount(text):
        return text
    if len(text) > AMOUNT_CHARS_MAX or not _is_amount(text):
        raise ValueError(f"not an amount: {text[:AMOUNT_CHARS_MAX]!r}")
    value = Decimal(text)
    if value < 0:
        raise ValueError(f"not an amount: {text!r}")
    if not value:
        return "0"
    return format_decimal(value)


def event_ids(organization_uuid_bytes: bytes, mode: int) -> Callable[[bytes], bytes]:
    """Makes the ids of one organization's and mode's events out of their idempotency keys.

    An id is the first 16 bytes of SHA-256 over: a domain name ending in NUL, the organization's
    16 bytes, the mode's proto number as 1 byte, the key. All but the key have a fixed length, so
    no two different inputs give the same bytes. 128 bits: a collision is to be expected among
    2^64 keys, and only somebody's own keys can be made to collide.
    """
    if len(organization_uuid_bytes) != EVENT_ID_BYTES:
        raise ValueError("an organization has 16 bytes")
    start = _EVENT_ID_DOMAIN + organization_uuid_bytes + bytes((mode,))

    def make(idempotency_key: bytes) -> bytes:
        return _sha256(start + idempotency_key).digest()[:EVENT_ID_BYTES]

    return make


def event_id(organization_uuid_bytes: bytes, mode: int, idempotency_key: bytes) -> bytes:
    """The 16 bytes that identify an event with an idempotency key, wherever it is computed."""
    return event_ids(organization_uuid_bytes, mode)(idempotency_key)


def format_event_id(event_id_bytes: bytes) -> str:
    """ "evt_" and 32 hexadecimal digits."""
    return _EVENT_ID_PREFIX + event_id_bytes.hex()


def parse_event_id(text: str) -> bytes | None:
    """The 16 bytes of "evt_<32 hexadecimal digits>"; None for anything else: no such event."""
    if not _EVENT_ID.fullmatch(text):
        return None
    return UUID(text[len(_EVENT_ID_PREFIX) :]).bytes


def _amount_problems(text: str) -> list[FieldProblem]:
    if len(text) > AMOUNT_CHARS_MAX or not _is_amount(text):
        return [_BAD_AMOUNT]
    value = Decimal(text)
    if value < 0:
        return [_NEGATIVE_AMOUNT]
    if value == 0:
        return []
    whole, _, fraction = f"{value:f}".partition(".")
    whole, fraction = whole.lstrip("0"), fraction.rstrip("0")
    if len(whole) + len(fraction) > AMOUNT_DIGITS_MAX or len(fraction) > AMOUNT_SCALE_MAX:
        return [_LONG_AMOUNT]
    return []


def _customer_problems(customer_id: str) -> list[FieldProblem]:
    """isprintable() also minds spaces and marks of other scripts, which are allowed."""
    if len(customer_id) > CUSTOMER_ID_CHARS_MAX or _has_control(customer_id):
        return [_BAD_CUSTOMER]
    return []


def _time_problem(past_micros_max: int) -> FieldProblem:
    days = past_micros_max // MICROS_PER_DAY
    return FieldProblem(
        "timestamp",
        f"must be from {days} days ago to {FUTURE_MINUTES_MAX} minutes ahead",
    )


class _RefusedMetadataError(ValueError):
    """JSON, but not of the kind that is allowed."""


def _metadata_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedMetadataError("must not name a key twice")
    return members


def _metadata_number(text: str) -> float:
    """Only told whether it is fit to use: what is stored is the JSON text."""
    if len(text) > METADATA_NUMBER_CHARS_MAX or math.isinf(float(text)):
        raise _RefusedMetadataError(
            f"numbers must have at most {METADATA_NUMBER_CHARS_MAX} characters and be below 1e308"
        )
    return 0.0


def _metadata_constant(name: str) -> object:
    raise _RefusedMetadataError(f"must not contain {name}: JSON has no such number")


_decode_metadata = json.JSONDecoder(
    object_pairs_hook=_metadata_object,
    parse_float=_metadata_number,
    parse_int=_metadata_number,
    parse_constant=_metadata_constant,
).decode


def _metadata_problems(text: str) -> list[FieldProblem]:
    try:
        _check_metadata(text)
    except _RefusedMetadataError as refusal:
        return [FieldProblem("metadata", str(refusal))]
    except UnicodeEncodeError:
        return [FieldProblem("metadata", "must not contain half of a surrogate pair")]
    except (ValueError, RecursionError):
        return [FieldProblem("metadata", _BAD_METADATA)]
    return []


# {"model": "..", "region": ".."} comes again and again.
_remembered_metadata_problems = lru_cache(METADATA_REMEMBERED_MAX)(_metadata_problems)


def _check_metadata(text: str) -> None:
    if len(text) > METADATA_BYTES_MAX or len(text.encode()) > METADATA_BYTES_MAX:
        raise _RefusedMetadataError(f"must be at most {METADATA_BYTES_MAX} bytes of JSON")
    members = _decode_metadata(text)
    if not isinstance(members, dict):
        raise _RefusedMetadataError(_BAD_METADATA)
    if len(members) > METADATA_KEYS_MAX:
        raise _RefusedMetadataError(f"must have at most {METADATA_KEYS_MAX} keys")
    for value in members.values():
        if not isinstance(value, (str, float, bool)):
            raise _RefusedMetadataError(
                f"{_BAD_METADATA}; arrays, objects and null are not allowed"
            )
    if "\\" in text:
        _check_escaped(members)


def _check_escaped(members: dict[str, object]) -> None:
    r"""Only an escape can spell half a surrogate pair (\ud800) or U+0000, which SQL can't hold."""
    for text in (*members, *(value for value in members.values() if isinstance(value, str))):
        text.encode()
        if "\0" in text:
            raise _RefusedMetadataError("must not contain the character U+0000")
