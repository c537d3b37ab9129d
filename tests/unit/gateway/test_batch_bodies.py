"""A batch is split into the texts of its events; what is no batch is refused as a whole."""

import time

import pytest

from gateway.batch_body import BODY_BYTES_MAX, split_array, split_lines
from services.kit.errors import InvalidArgumentError


def problems(body: bytes) -> dict[str, str]:
    """Field to message of everything that is wrong with a JSON batch."""
    with pytest.raises(InvalidArgumentError) as caught:
        split_array(body)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_the_events_of_an_array_are_its_texts() -> None:
    texts = split_array(b'{"events": [ {"a": 1.50} , "x", 7, null ]}')
    assert [bytes(text) for text in texts] == [b'{"a": 1.50}', b'"x"', b"7", b"null"]


def test_escapes_inside_events_are_their_own_matter() -> None:
    (text,) = split_array(b'{"events": [{"a\\"": "\\\\"}]}')
    assert bytes(text) == b'{"a\\"": "\\\\"}'


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", ["body"]),
        (b"[]", ["body"]),
        (b"null", ["body"]),
        (b"{", ["body"]),
        (b'{"events": [1]} 2', ["body"]),
        (b'{"events": [1], "events": [2]}', ["body"]),
        (b'{"events": [1], "\\u0065vents": [2]}', ["body"]),
        (b'{"events": [NaN]}', ["body"]),
        (b'{"events": ' + b"[" * 50_000, ["body"]),
        (b"{}", ["events"]),
        (b'{"events": []}', ["events"]),
        (b'{"events": {}}', ["events"]),
        (b'{"events": null}', ["events"]),
        (b'{"Events": [1]}', ["Events", "events"]),
        (b'{"events": [1], "idempotencyKey": "k"}', ["idempotencyKey"]),
        (b'{"events": [' + b"1," * 1_000 + b"1]}", ["events"]),
    ],
)
def test_what_is_no_array_of_1_to_1000_events_is_refused(body: bytes, fields: list[str]) -> None:
    assert list(problems(body)) == fields


def test_an_unknown_name_is_refused_with_the_known_one() -> None:
    assert problems(b'{"event": [1]}')["event"] == 'unknown field; did you mean "events"?'


@pytest.mark.parametrize(
    "filling",
    [b"1,", b"[],", b"{},", b'"",', b'"\\"\\"",', b'\\"', b'"', b"[", b"{", b"\\"],
)
def test_a_hostile_body_of_full_size_is_refused_quickly(filling: bytes) -> None:
    body = b'{"events": [' + filling * ((BODY_BYTES_MAX - 20) // len(filling))
    began = time.process_time()
    problems(body)
    assert time.process_time() - began < 2


def test_a_full_batch_with_commas_in_its_texts_is_taken() -> None:
    event = b'{"metric": "' + b"," * 3_000 + b'"}'
    assert len(split_array(b'{"events": [' + b",".join([event] * 1_000) + b"]}")) == 1_000


def test_blank_lines_are_no_events() -> None:
    assert split_lines(b'\n{"a": 1}\r\n \n\n{"b": 2}') == [b'{"a": 1}\r', b'{"b": 2}']


@pytest.mark.parametrize("body", [b"", b"\n \n", b"1\n" * 10_001, b"\n" * 20_001 + b"1"])
def test_no_lines_or_too_many_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        split_lines(body)
    assert [problem.field for problem in caught.value.problems] == ["body"]


def test_ten_thousand_lines_are_taken() -> None:
    assert len(split_lines(b"1\n" * 10_000)) == 10_000
