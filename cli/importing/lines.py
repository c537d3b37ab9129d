"""From a file to lines, each an event in JSON or the reason why it is none. Streams: a file of any
length takes the same memory.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final, NamedTuple

import msgspec

from cli.importing.columns import Columns, read_header
from cli.importing.errors import ImportStoppedError

LINE_BYTES_MAX: Final = 256 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_TOO_LONG: Final = f"is longer than {LINE_BYTES_MAX:,} bytes"


class Line(NamedTuple):
    """One event of the file, or why it is none."""

    number: int
    """Where it stands, or begins, in the file; from 1."""
    event: bytes
    """JSON of the event, in one line; of a line with a problem what can be shown of it."""
    has_key: bool = False
    problem: str = ""


class _Keyed(msgspec.Struct, gc=False, rename="camel"):
    idempotency_key: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_keyed = msgspec.json.Decoder(_Keyed).decode


def ndjson_lines(stream: BinaryIO) -> Iterator[Line]:
    """An event from each line that is not blank."""
    number = 0
    while raw := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(raw) > LINE_BYTES_MAX:
            yield Line(number, raw[:LINE_BYTES_MAX], problem=_TOO_LONG)
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(LINE_BYTES_MAX)
            continue
        text = (raw.removeprefix(_BOM) if number == 1 else raw).strip()
        if text:
            yield _ndjson_line(number, text)


def _ndjson_line(number: int, text: bytes) -> Line:
    """Only its key is looked at: what else is wrong with the event is for UsageFlow to say."""
    try:
        has_key = _decode_keyed(text).idempotency_key is not msgspec.UNSET
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Line(number, text, problem=f"is no JSON object: {error}")
    return Line(number, text, has_key)


def csv_lines(stream: BinaryIO, column_map: Mapping[str, str]) -> Iterator[Line]:
    """An event from each row after the header; ImportStoppedError when the header is wrong."""
    # Surrogates stand for bytes that are no UTF-8; they are found when the event is written.
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text)
    try:
        columns = read_header(next(rows, []), column_map)
        before = rows.line_num
        for row in rows:
            if row:
                yield _csv_line(before + 1, row, columns)
            before = rows.line_num
    except csv.Error as error:
        raise ImportStoppedError(f"line {rows.line_num} is no CSV: {error}") from error
    finally:
        text.detach()


def _csv_line(number: int, row: list[str], columns: Columns) -> Line:
    shown = _encode([text.encode("utf-8", "replace").decode() for text in row])
    if len(row) != len(columns.header):
        problem = f"has {len(row)} columns, the header has {len(columns.header)}"
        return Line(number, shown, problem=problem)
    event = columns.event(row)
    try:
        encoded = _encode(event)
    except UnicodeEncodeError:
        return Line(number, shown, problem="is not UTF-8")
    if len(encoded) > LINE_BYTES_MAX:
        return Line(number, shown[:LINE_BYTES_MAX], problem=_TOO_LONG)
    return Line(number, encoded, "idempotencyKey" in event)


_encode = msgspec.json.Encoder().encode
