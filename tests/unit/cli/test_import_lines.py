"""Reading the file of an import: NDJSON and CSV become events, or the reason why not."""

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from cli.importing.columns import read_header
from cli.importing.errors import ImportStoppedError
from cli.importing.lines import LINE_BYTES_MAX, Line, csv_lines, ndjson_lines
from cli.importing.source import Format, format_of


def from_ndjson(text: bytes) -> list[Line]:
    return list(ndjson_lines(io.BytesIO(text)))


def from_csv(text: str | bytes, column_map: Mapping[str, str] | None = None) -> list[Line]:
    content = text if isinstance(text, bytes) else text.encode()
    return list(csv_lines(io.BytesIO(content), column_map or {}))


def events(lines: list[Line]) -> list[Any]:
    return [json.loads(line.event) for line in lines]


def test_a_line_is_an_event_as_it_stands() -> None:
    event = b'{"metric": "A", "amount": 0.10, "metadata": {"a": "\\u00e4"}}'
    assert from_ndjson(event + b"\n") == [Line(1, event)]


def test_blank_lines_bom_and_line_ends_do_not_matter() -> None:
    lines = from_ndjson(b'\xef\xbb\xbf{"a":1}\r\n\n  \n\t{"b":2} \n{"c":3}')
    assert lines == [Line(1, b'{"a":1}'), Line(4, b'{"b":2}'), Line(5, b'{"c":3}')]


@pytest.mark.parametrize("key", [b'"k"', b'""', b"null", b"7"])
def test_an_event_with_any_key_keeps_it(key: bytes) -> None:
    [line] = from_ndjson(b'{"metric":"A","idempotencyKey":' + key + b"}")
    assert line.has_key
    assert not line.problem


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"1", b'"a"', b'{"a":1} {"b":2}', b"nonsense", b'{"a":1}}', b"\xff"]
)
def test_what_is_no_json_object_is_no_event(text: bytes) -> None:
    [line, after] = from_ndjson(text + b'\n{"a":1}\n')
    assert (line.number, line.event) == (1, text)
    assert line.problem.startswith("is no JSON object")
    assert not after.problem


def test_a_line_of_any_length_is_read_in_bounded_memory() -> None:
    """The rest of it is thrown away, not taken for another line."""
    long = b'{"a":"' + b"x" * (5 * LINE_BYTES_MAX) + b'"}'
    first, second = from_ndjson(long + b'\n{"b":1}\n')
    assert first.problem == "is longer than 262,144 bytes"
    assert len(first.event) == LINE_BYTES_MAX
    assert second == Line(2, b'{"b":1}')
    [last] = from_ndjson(long)
    assert last.problem


def test_a_row_is_an_event_with_the_fields_of_the_header() -> None:
    text = (
        "metric,amount,customerId,timestamp,metadata.region,metadata.tier,idempotencyKey\n"
        'API_CALL,12.50,"Acme, Inc.",2026-01-01T00:00:00Z,eu,gold,k1\n'
        "API_CALL,1,,,,,\n"
    )
    lines = from_csv(text)
    assert events(lines) == [
        {
            "metric": "API_CALL",
            "amount": "12.50",
            "customerId": "Acme, Inc.",
            "timestamp": "2026-01-01T00:00:00Z",
            "idempotencyKey": "k1",
            "metadata": {"region": "eu", "tier": "gold"},
        },
        {"metric": "API_CALL", "amount": "1"},
    ]
    assert [line.has_key for line in lines] == [True, False]


def test_rows_are_numbered_by_the_line_they_begin_in() -> None:
    text = 'metric,amount,customerId\nA,1,"two\nlines"\n\nB,2,c\nC,3\n'
    lines = from_csv(text)
    assert [line.number for line in lines] == [2, 5, 6]
    assert [line.problem for line in lines] == ["", "", "has 2 columns, the header has 3"]


def test_a_row_that_is_not_utf_8_is_no_event() -> None:
    [bad, good] = from_csv(b"metric,amount\nA,\xff\nA,1\n")
    assert bad.problem == "is not UTF-8"
    assert not good.problem


def test_columns_can_be_mapped_and_left_out() -> None:
    text = "Event,qty,note\nA,1,hello\n"
    mapped = {"Event": "metric", "qty": "amount", "note": "metadata.note"}
    assert events(from_csv(text, mapped)) == [
        {"metric": "A", "amount": "1", "metadata": {"note": "hello"}}
    ]
    assert events(from_csv(text, mapped | {"note": ""})) == [{"metric": "A", "amount": "1"}]


@pytest.mark.parametrize(
    ("header", "column_map", "told"),
    [
        (
            ["metric", "amount", "customer_id"],
            {},
            'column "customer_id" is unknown: did you mean customerId? Then '
            "--column-map 'customer_id=customerId'; to leave it out, --column-map 'customer_id='",
        ),
        (
            ["metric", "amount", "zone"],
            {},
            "column \"zone\" is unknown: use --column-map 'zone=metadata.zone'",
        ),
        (["metric", "amount", "metadata."], {}, 'column "metadata." is unknown'),
        (["metric"], {}, "no column is amount"),
        (["metric", "amount", "amount"], {}, "more than one column is amount"),
        (
            ["metric", "amount", "ts"],
            {"ts": "time_stamp"},
            'column "ts" (mapped to time_stamp) is unknown: did you mean timestamp?',
        ),
        (
            ["metric", "amount"],
            {"Amount": "amount"},
            "--column-map Amount=amount: the file has no such column; did you mean amount?",
        ),
        ([], {}, "the file is empty"),
    ],
)
def test_a_wrong_column_is_named_with_the_nearest_that_is_allowed(
    header: list[str], column_map: dict[str, str], told: str
) -> None:
    with pytest.raises(ImportStoppedError) as stopped:
        read_header(header, column_map)
    assert told in str(stopped.value)


def test_everything_that_is_wrong_with_a_header_is_told_at_once() -> None:
    with pytest.raises(ImportStoppedError) as stopped:
        read_header(["Metrc", "amuont"], {})
    for told in ("did you mean metric", "did you mean amount", "no column is metric"):
        assert told in str(stopped.value)


def test_a_cell_without_end_stops_the_import() -> None:
    with pytest.raises(ImportStoppedError, match="no CSV"):
        from_csv('metric,amount\nA,"' + "x" * 200_000)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.ndjson", Format.NDJSON),
        ("b.JSONL", Format.NDJSON),
        ("c.csv", Format.CSV),
        ("d.csv.gz", Format.CSV),
        ("-", Format.NDJSON),
    ],
)
def test_the_name_tells_the_format(path: str, expected: Format) -> None:
    assert format_of(path) is expected


@pytest.mark.parametrize("path", ["a.json", "b.txt", "c.gz", "ndjson"])
def test_another_name_is_refused(path: str) -> None:
    with pytest.raises(ImportStoppedError, match="--format"):
        format_of(path)
