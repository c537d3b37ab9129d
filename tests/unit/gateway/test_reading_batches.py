"""A batch is read the same whether all of its events are plain or only the exact way can tell."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from usageflow.ingest.v1.ingest_pb2 import EventInput, TenantEventInputs

from gateway import batch_body
from gateway.batch_body import LINE_BYTES_MAX, Read, read_batch
from services.kit.errors import InvalidArgumentError
from services.kit.events import PAST_MICROS_DEFAULT
from tests.unit.gateway.test_reading_any_json import NOW, almost_events

PART_EVENTS_MAX = 3


def read(body: bytes, *, lines: bool) -> Read:
    return asyncio.run(read_batch(body, NOW, PAST_MICROS_DEFAULT, PART_EVENTS_MAX, lines=lines))


def read_exactly(body: bytes, *, lines: bool) -> Read:
    """As read(), event by event."""
    texts = batch_body.split_lines(body) if lines else batch_body.split_array(body)
    limits = batch_body._Limits(NOW, PAST_MICROS_DEFAULT, PART_EVENTS_MAX)
    bytes_max = LINE_BYTES_MAX if lines else batch_body.BODY_BYTES_MAX
    return asyncio.run(batch_body._read_exactly(texts, limits, bytes_max))


def events_of(read: Read) -> list[EventInput]:
    return [e for part in read.parts for e in TenantEventInputs.FromString(part.encoded).events]


def told(read: Any, body: bytes, *, lines: bool) -> Any:
    """What was made of a body, random keys left out; None: it is no batch."""
    try:
        made: Read = read(body, lines=lines)
    except InvalidArgumentError as error:
        return error.message
    events = events_of(made)
    for event in events:
        if len(event.idempotency_key) >= 32:
            event.ClearField("idempotency_key")
    assert [part.events for part in made.parts[:-1]] == [PART_EVENTS_MAX] * (len(made.parts) - 1)
    return made.total, made.refused, events


plain_events = st.fixed_dictionaries(
    {
        "metric": st.sampled_from(["API_CALL", "a.b:c-1"]),
        "amount": st.sampled_from([1, "0.10", 1.5, "7", 0]),
    },
    optional={
        "customerId": st.sampled_from(["user_1", "é 😀", "a,b"]),
        "idempotencyKey": st.sampled_from(["key 1", "~", "{}"]),
        "timestamp": st.sampled_from(["2027-01-15T08:00:00Z", "2027-01-15T08:00:00.5+05:45"]),
        "metadata": st.sampled_from([{}, {"model": "gpt-4", "n": 1.5}]),
    },
).map(lambda event: json.dumps(event, ensure_ascii=False))
texts = st.lists(plain_events, max_size=8) | st.lists(plain_events | almost_events(), max_size=5)
ends = st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n", " \n", "\r", " ", ",", ""])


@settings(max_examples=500, deadline=None)
@given(texts)
def test_an_array_of_any_events_is_read_as_event_by_event(events: list[str]) -> None:
    body = f'{{"events": [{", ".join(events)}]}}'.encode()
    assert told(read, body, lines=False) == told(read_exactly, body, lines=False)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(plain_events | almost_events(), ends), max_size=6), ends)
def test_lines_of_any_events_are_read_as_line_by_line(
    lines: list[tuple[str, str]], start: str
) -> None:
    body = (start + "".join(text + end for text, end in lines)).encode()
    assert told(read, body, lines=True) == told(read_exactly, body, lines=True)


def test_a_batch_of_plain_events_takes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the two tests above would compare one way with itself."""
    monkeypatch.delattr(batch_body, "_read_exactly")
    event = '{"metric": "A", "amount": 1, "customerId": "é", "timestamp": "2027-01-15T08:00:00Z"}'
    assert read(f'{{"events": [{event}, {event}]}}'.encode(), lines=False).total == 2
    assert read(f"{event}\n{event}\r\n{event}\n".encode(), lines=True).total == 3


def test_events_without_keys_get_different_ones_that_nobody_can_guess() -> None:
    lines = b'{"metric": "A", "amount": 1}\n' * 100
    keys = [
        {event.idempotency_key for event in events_of(read(body, lines=True))}
        for body in (lines, lines, lines + b"{}", lines + b"{}")
    ]
    assert [len(found) for found in keys] == [100] * 4
    assert len(set.union(*keys)) == 400
    assert min(len(key) for found in keys for key in found) > 32


@pytest.mark.parametrize("first", [b'{"metric": "A", "amount": 1}', b"?"])
def test_a_line_that_is_too_long_is_refused_and_no_other(first: bytes) -> None:
    long = b'{"metric": "A",' + b" " * LINE_BYTES_MAX + b'"amount": 1}'
    made = read(first + b"\n" + long + b"\n" + b'{"metric": "B", "amount": 1}', lines=True)
    assert made.refused[1] == f"body: a line must have at most {LINE_BYTES_MAX} bytes"
    assert [event.metric for event in events_of(made)][-1] == "B"
