"""The events of a batch: from the body of a request to what ingest takes.

As with a single event (event.py) there are two ways to read it. The plain one decodes and checks
all events together, 1.2 us an event; it lets a batch through only when every event is provably
fine. Any other batch is read event by event, which tells what is wrong with each. So an answer
never depends on which way was taken.
"""

import asyncio
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
from usageflow.ingest.v1.ingest_pb2 import EventInput, TenantEventInputs

from gateway import strict_json
from gateway.event import NO_METADATA, Batched, read_batched, set_time
from gateway.forming import Part
from gateway.nearest import unknown
from gateway.rfc3339 import parse_micros
from gateway.strict_json import JsonError
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.events import METADATA_KEYS_MAX, are_plain, check_event

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
EVENTS_MAX: Final = 1_000
LINES_MAX: Final = 10_000
LINE_BYTES_MAX: Final = 256 * 1024
# Fields and metadata of every event at their limits.
VALUES_MAX: Final = EVENTS_MAX * (6 + METADATA_KEYS_MAX)
# Other requests get their turn after this many events on the exact way: about 2 ms.
EVENTS_READ_AT_ONCE: Final = 500
RANDOM_KEY_BYTES: Final = 24


class _Array(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    events: list[msgspec.Raw]


class _PlainArray(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    events: list[Batched]


class Read(NamedTuple):
    """What a batch has: the events that go to ingest, and by index why others do not."""

    total: int
    parts: list[Part]
    refused: dict[int, str]


class _Limits(NamedTuple):
    now_micros: int
    past_micros_max: int
    part_events_max: int


# Possessive, and an unclosed string ends with the text: one pass, whatever the input.
_strings = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_decode_array = msgspec.json.Decoder(_Array).decode
_decode_plain_array = msgspec.json.Decoder(_PlainArray).decode
_decode_plain_lines = msgspec.json.Decoder(Batched).decode_lines


async def read_batch(
    body: bytes, now_micros: int, past_micros_max: int, part_events_max: int, *, lines: bool
) -> Read:
    """The events of {"events": [..]}, or of NDJSON when `lines`, in parts of `part_events_max`.

    InvalidArgumentError when it is no batch at all.
    """
    limits = _Limits(now_micros, past_micros_max, part_events_max)
    events = _plain_lines(body) if lines else _plain_array(body)
    if events is not None:
        amounts = _plain_amounts(events, body.count(b'"') - (0 if lines else 2))
        parts = None if amounts is None else await _plain_parts(events, amounts, limits)
        if parts is not None:
            return Read(len(events), parts, {})
    if lines:
        return await _read_exactly(split_lines(body), limits, LINE_BYTES_MAX)
    return await _read_exactly(split_array(body), limits, BODY_BYTES_MAX)


def _plain_array(body: bytes) -> list[Batched] | None:
    """The events of an array without escapes; None when only the exact way can tell."""
    if b"\\" in body or body.count(b",") >= VALUES_MAX:
        return None
    try:
        events = _decode_plain_array(body).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return events if 1 <= len(events) <= EVENTS_MAX else None


def _plain_lines(body: bytes) -> list[Batched] | None:
    """The same of lines without escapes, one object on each and none of them blank."""
    if b"\\" in body or body.count(b"\n") > LINES_MAX:
        return None
    text = body.strip(b" \t\r\n")
    if len(text) > LINE_BYTES_MAX < max(map(len, text.split(b"\n"))):
        return None
    try:
        events = _decode_plain_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # The decoder takes objects that any white space parts. Inside an object "}" is never followed
    # by "{", and no string holds a line feed: so each line feed has to part two objects.
    ends = text.count(b"}\n{") + text.count(b"}\r\n{")
    if not ends == text.count(b"\n") == len(events) - 1 or len(events) > LINES_MAX:
        return None
    return events


def _plain_amounts(events: Sequence[Batched], quotes: int) -> list[str] | None:
    """The amounts as they were written; None unless all but times and metadata is plain.

    Without a backslash no string holds a quote, so the number of `quotes` tells how many names
    and strings there are: more than the fields explain means that a name was given twice.
    """
    try:
        amounts = [str(event.amount, "ascii") for event in events]
    except UnicodeDecodeError:
        return None
    customer_ids = [e.customer_id for e in events if e.customer_id is not msgspec.UNSET]
    keys = [e.idempotency_key for e in events if e.idempotency_key is not msgspec.UNSET]
    times = sum(e.timestamp is not msgspec.UNSET for e in events)
    metadata = [bytes(e.metadata) for e in events if e.metadata is not NO_METADATA]
    quotes -= 6 * len(events) + sum(amount.count('"') for amount in amounts)
    quotes -= 4 * (len(customer_ids) + len(keys) + times)
    quotes -= 2 * len(metadata) + sum(text.count(b'"') for text in metadata)
    if quotes or "" in customer_ids or "" in keys:
        return None
    plain = [amount[1:-1] if amount[0] == '"' else amount for amount in amounts]
    metrics = {event.metric for event in events}
    return plain if are_plain(metrics, set(plain), customer_ids, keys) else None


async def _plain_parts(
    events: Sequence[Batched], amounts: Sequence[str], limits: _Limits
) -> list[Part] | None:
    """All events; None when only the exact way can tell."""
    parts = []
    for start in range(0, len(events), limits.part_events_max):
        end = start + limits.part_events_max
        part = _plain_part(events[start:end], amounts[start:end], limits)
        if part is None:
            return None
        parts.append(part)
        await asyncio.sleep(0)
    return parts


def _plain_part(events: Sequence[Batched], amounts: Sequence[str], limits: _Limits) -> Part | None:
    message = TenantEventInputs()
    add = message.events.add
    keys = _random_keys()
    for event, amount in zip(events, amounts, strict=True):
        added = add(
            metric=event.metric,
            amount=amount,
            customer_id=event.customer_id or "",
            idempotency_key=event.idempotency_key or next(keys),
        )
        plain = event.timestamp is msgspec.UNSET and event.metadata is NO_METADATA
        if not (plain or _add_rest(added, event, limits)):
            return None
    return Part(len(events), message.SerializeToString())


def _add_rest(message: EventInput, event: Batched, limits: _Limits) -> bool:
    """Add time and metadata; whether they are plain."""
    micros, metadata = None, ""
    if event.timestamp is not msgspec.UNSET:
        micros = parse_micros(event.timestamp)
        if micros is None:
            return False
        set_time(message, micros)
    try:
        metadata = str(event.metadata, "utf-8")
    except UnicodeDecodeError:
        return False
    message.metadata_json = metadata
    now_micros, past_micros_max, _events = limits
    return not check_event(event.metric, "0", "", micros, metadata, "", now_micros, past_micros_max)


def _random_keys() -> Iterator[str]:
    """Keys for events without one: 192 random bits in front, which nobody is ever shown."""
    prefix = secrets.token_urlsafe(RANDOM_KEY_BYTES)
    number = 0
    while True:
        yield f"{prefix}{number}"
        number += 1


async def _read_exactly(
    texts: Sequence[bytes | msgspec.Raw], limits: _Limits, event_bytes_max: int
) -> Read:
    """Read one event after the other, and tell what is wrong with each."""
    events: list[EventInput] = []
    refused: dict[int, str] = {}
    keys = _random_keys()
    for index, text in enumerate(texts):
        if index % EVENTS_READ_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            event = _read_one(bytes(text), limits, event_bytes_max)
        except InvalidArgumentError as error:
            refused[index] = error.message
            continue
        event.idempotency_key = event.idempotency_key or next(keys)
        events.append(event)
    starts = range(0, len(events), limits.part_events_max)
    chunks = [events[start : start + limits.part_events_max] for start in starts]
    parts = [Part(len(c), TenantEventInputs(events=c).SerializeToString()) for c in chunks]
    return Read(len(texts), parts, refused)


def _read_one(text: bytes, limits: _Limits, bytes_max: int) -> EventInput:
    if len(text) > bytes_max:
        problem = FieldProblem("body", f"a line must have at most {bytes_max} bytes")
        raise InvalidArgumentError([problem])
    return read_batched(text, limits.now_micros, limits.past_micros_max)


def split_array(body: bytes) -> Sequence[msgspec.Raw]:
    """The texts of {"events": [..]}; InvalidArgumentError when it is no such thing."""
    _require_few_values(body)
    try:
        texts = _decode_array(body).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _array_problems(body) from None
    # More quotes than the events and the one name explain: a name was given twice.
    if body.count(b'"') != 2 + sum(bytes(text).count(b'"') for text in texts):
        raise _array_problems(body)
    if not 1 <= len(texts) <= EVENTS_MAX:
        raise _wrong_count()
    return texts


def _require_few_values(body: bytes) -> None:
    """Refuse four million zeros before they become four million objects."""
    if body.count(b",") >= VALUES_MAX and _strings.sub(b"", body).count(b",") >= VALUES_MAX:
        raise _wrong_count()


def _wrong_count() -> InvalidArgumentError:
    message = f"must have from 1 to {EVENTS_MAX} events; as NDJSON up to {LINES_MAX}"
    return InvalidArgumentError([FieldProblem("events", message)])


def split_lines(body: bytes) -> Sequence[bytes]:
    """The lines of NDJSON that are not blank; InvalidArgumentError when too many or none."""
    parts = body.split(b"\n", LINES_MAX * 2)
    lines = [line for line in parts if line and not line.isspace()]
    if not 1 <= len(lines) <= LINES_MAX or len(parts) > LINES_MAX * 2:
        message = f"must have from 1 to {LINES_MAX} lines"
        raise InvalidArgumentError([FieldProblem("body", message)])
    return lines


def _array_problems(body: bytes) -> InvalidArgumentError:
    try:
        value = strict_json.decode(body)
    except JsonError as error:
        return InvalidArgumentError([FieldProblem("body", str(error))])
    if not isinstance(value, dict):
        message = 'must be a JSON object such as {"events": [..]}'
        return InvalidArgumentError([FieldProblem("body", message)])
    known = ("events",)
    problems = [FieldProblem(name, unknown(name, known)) for name in value if name not in known]
    if not isinstance(value.get("events"), list):
        missing = "events" not in value
        problems.append(FieldProblem("events", "is required" if missing else "must be an array"))
    return InvalidArgumentError(problems)
