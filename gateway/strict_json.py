"""JSON as every parser understands it: what parsers disagree on is refused.

Refused: NaN and Infinity, a key twice in one object, half of a surrogate pair, nesting deeper than
16, bytes that are not UTF-8, a byte order mark, anything after the value (RFC 8259). Numbers are
kept as written, never turned into a float.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

DEPTH_MAX = 16


@dataclass(frozen=True, slots=True)
class Number:
    """A JSON number as it was written."""

    text: str


Json: TypeAlias = "bool | str | Number | list[Json] | dict[str, Json] | None"


class JsonError(ValueError):
    """What is wrong with the text, for people."""


def decode(body: bytes) -> Json:
    """The value that `body` spells; JsonError says what is wrong with it."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise JsonError(f"is not UTF-8 (byte {error.start})") from None
    try:
        value: Json = _decoder.decode(text)
    except json.JSONDecodeError as error:
        message = f"is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise JsonError(message) from None
    except RecursionError:
        raise _too_deep() from None
    _check(value)
    return value


def encode(value: Json) -> str:
    """The JSON text of `value`, numbers as they were written."""
    match value:
        case Number():
            return value.text
        case dict():
            members = (f"{_text(key)}:{encode(item)}" for key, item in value.items())
            return "{" + ",".join(members) + "}"
        case list():
            return "[" + ",".join(encode(item) for item in value) + "]"
        case str():
            return _text(value)
        case _:
            return json.dumps(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _value in pairs:
            if key in seen:
                raise JsonError(f"names the key {json.dumps(key)} twice")
            seen.add(key)
    return members


def _constant(name: str) -> Json:
    raise JsonError(f"contains {name}: JSON has no such number")


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=Number, parse_int=Number, parse_constant=_constant
)


def _too_deep() -> JsonError:
    return JsonError(f"is nested deeper than {DEPTH_MAX}")


def _check(value: Json) -> None:
    """Depth and surrogates; breadth first, so that no input makes this recurse."""
    level = [value]
    depth = 0
    while level:
        below: list[Json] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list | dict):
                below.extend(_members(item))
                if depth == DEPTH_MAX:
                    raise _too_deep()
        level = below
        depth += 1


def _members(value: list[Json] | dict[str, Json]) -> Iterator[Json]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    else:
        yield from value


def _check_text(text: str) -> None:
    # A str made of escapes may hold half a pair, which UTF-8 can't spell.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise JsonError("contains half of a surrogate pair") from None
