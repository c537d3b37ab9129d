"""Reads the declared dimensions out of an event's metadata. Pure; part of the hot path.

Only the declared properties are decoded, in about half a microsecond; the rest of the metadata is
skipped over. Numbers and booleans become their JSON text, exactly as it was sent.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import structlog

from services.aggregator.details import value_key

log = structlog.get_logger()

Reader = Callable[[str], tuple[str, ...]]

READERS_MAX = 10_000
# What values are counted under that came when their dimension was full.
OVERFLOW = "__other__"
# Of dimensions that are full, the keys (details.value_key) of the values that they know.
Full = Mapping[str, Collection[bytes]]
_ABSENT = msgspec.Raw(b"")
_NULL = b"null"
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder(order="sorted").encode


@lru_cache(maxsize=READERS_MAX)
def reader(names: tuple[str, ...]) -> Reader | None:
    """A function from metadata (a JSON object, or "") to the values of `names`; None: no names.

    A property that is missing gives "". Metadata that is no JSON object can't have been accepted;
    it is logged and counts as empty, so that one event never holds up all the others.
    """
    if not names:
        return None
    fields = [f"value_{number}" for number in range(len(names))]
    shape = msgspec.defstruct(
        "Dimensions",
        [(field, msgspec.Raw, _ABSENT) for field in fields],
        rename=dict(zip(fields, names, strict=True)),
    )
    decode = msgspec.json.Decoder(shape).decode
    nothing = ("",) * len(names)

    def read(metadata_json: str) -> tuple[str, ...]:
        if not metadata_json:
            return nothing
        try:
            return _texts(decode(metadata_json), fields)
        except (msgspec.DecodeError, ValueError) as error:
            log.error("metadata_unreadable", error=str(error))  # noqa: TRY400
            return nothing

    return read


def key_of(unique_by: str, metadata_json: str) -> bytes:
    """The key of an event's value of the property."""
    read = reader((unique_by,))
    assert read is not None
    return value_key(read(metadata_json)[0])


def _texts(found: Any, fields: Sequence[str]) -> tuple[str, ...]:
    return tuple([_text(bytes(getattr(found, field))) for field in fields])


def _text(raw: bytes) -> str:
    if raw[:1] == b'"':
        # PostgreSQL has no U+0000.
        return _decode_text(raw).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return "" if raw == _NULL else raw.decode()


def needs_room(value: str) -> bool:
    """Whether a value is one of those that a dimension has room for."""
    return value not in ("", OVERFLOW)


def bounded(names: Sequence[str], values: tuple[str, ...], full: Full) -> tuple[str, ...]:
    """What values are counted under: OVERFLOW where a full dimension does not know them."""
    if not full:
        return values
    return tuple(
        OVERFLOW
        if name in full and needs_room(value) and value_key(value) not in full[name]
        else value
        for name, value in zip(names, values, strict=True)
    )


def canonical(names: Sequence[str], values: Sequence[str]) -> str:
    """The one JSON text of these values: sorted by name, without those that are missing."""
    present = {name: value for name, value in zip(names, values, strict=True) if value}
    return _encode(present).decode() if present else "{}"
