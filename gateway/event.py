"""One usage event: from the JSON of a request to the message that ingest takes.

There are two ways to read it. The quick one (about 2 us) lets through only what is provably fine;
whatever it does not let through goes the exact way, which either reads it too or tells everything
that is wrong with it. So an answer never depends on which way was taken.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from usageflow.ingest.v1.ingest_pb2 import EventInput

from gateway import strict_json
from gateway.nearest import unknown
from gateway.rfc3339 import EXPECTED as EXPECTED_TIME
from gateway.rfc3339 import parse_micros
from gateway.strict_json import Json, JsonError, Number
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.events import MICROS_PER_SECOND, PAST_MICROS_DEFAULT, check_event

KEY_HEADER: Final = "Idempotency-Key"
KEY_FIELD: Final = "idempotencyKey"
_TRACK_FIELDS: Final = frozenset(("metric", "amount", "customerId", "timestamp", "metadata"))
_BATCH_FIELDS: Final = _TRACK_FIELDS | {KEY_FIELD}
_AMOUNT_CHARS_MAX: Final = 64
NO_METADATA: Final = msgspec.Raw(b"")


class _Tracked(msgspec.Struct, forbid_unknown_fields=True, gc=False, rename="camel"):
    metric: str
    amount: msgspec.Raw
    customer_id: str | msgspec.UnsetType = msgspec.UNSET
    timestamp: str | msgspec.UnsetType = msgspec.UNSET
    metadata: msgspec.Raw = NO_METADATA


class Batched(_Tracked, forbid_unknown_fields=True, gc=False, rename="camel"):
    """The fields of an event of a batch, decoded but not checked."""

    idempotency_key: str | msgspec.UnsetType = msgspec.UNSET


class _Metadata(msgspec.Struct, gc=False):
    metadata: msgspec.Raw


_Fields = TypeVar("_Fields", bound=_Tracked)
_decode_tracked = msgspec.json.Decoder(_Tracked).decode
_decode_batched = msgspec.json.Decoder(Batched).decode
_decode_metadata = msgspec.json.Decoder(_Metadata).decode


def read_tracked(
    body: bytes, key: str | None, now_micros: int, past_micros_max: int = PAST_MICROS_DEFAULT
) -> EventInput:
    """The event of POST /api/track; `key` is the Idempotency-Key header, None when there is none.

    InvalidArgumentError names everything that is wrong.
    """
    event = None if key == "" else read_plain_tracked(body, key or "", now_micros, past_micros_max)
    return event or _read_exactly(body, _TRACK_FIELDS, key, now_micros, past_micros_max)


def read_plain_tracked(
    body: bytes, key: str, now_micros: int, past_micros_max: int = PAST_MICROS_DEFAULT
) -> EventInput | None:
    """The same for a plain event; None when only the exact way can tell. `key` "": none."""
    fields = _decode_plain(_decode_tracked, body)
    if fields is None:
        return None
    return _read_plain(fields, key, body.count(b'"'), now_micros, past_micros_max)


def read_batched(
    body: bytes, now_micros: int, past_micros_max: int = PAST_MICROS_DEFAULT
) -> EventInput:
    """An event of POST /api/track/batch, which carries its key itself.

    InvalidArgumentError names everything that is wrong.
    """
    fields = _decode_plain(_decode_batched, body)
    if fields is not None and fields.idempotency_key != "":
        key, quotes = fields.idempotency_key, body.count(b'"')
        if key is msgspec.UNSET:
            event = _read_plain(fields, "", quotes, now_micros, past_micros_max)
        else:
            event = _read_plain(fields, key, quotes - 4, now_micros, past_micros_max)
        if event is not None:
            return event
    return _read_exactly(body, _BATCH_FIELDS, None, now_micros, past_micros_max)


def _decode_plain(decode: Callable[[bytes], _Fields], body: bytes) -> _Fields | None:
    """The fields of a text without escapes; None when only the exact way can tell."""
    if b"\\" in body:
        return None
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read_plain(
    fields: _Tracked, key: str, quotes: int, now_micros: int, past_micros_max: int
) -> EventInput | None:
    """The event, or None when only the exact way can tell.

    Without a backslash no string holds a quote, so `quotes` in the text tell how many names and
    strings it has: more than the fields explain means that a name was given twice.
    """
    try:
        amount = str(fields.amount, "ascii")
        metadata = str(fields.metadata, "utf-8")
    except UnicodeDecodeError:
        return None
    quotes -= 6
    if amount[0] == '"':
        amount = amount[1:-1]
        quotes -= 2
    customer_id, micros = "", None
    if fields.customer_id is not msgspec.UNSET:
        customer_id = fields.customer_id
        if not customer_id:
            return None
        quotes -= 4
    if fields.timestamp is not msgspec.UNSET:
        micros = parse_micros(fields.timestamp)
        if micros is None:
            return None
        quotes -= 4
    if metadata:
        quotes -= 2 + metadata.count('"')
    if quotes:
        return None
    if check_event(
        fields.metric, amount, customer_id, micros, metadata, key, now_micros, past_micros_max
    ):
        return None
    return _message(fields.metric, amount, customer_id, micros, metadata, key)


def _message(
    metric: str, amount: str, customer_id: str, micros: int | None, metadata: str, key: str
) -> EventInput:
    event = EventInput(
        metric=metric,
        amount=amount,
        customer_id=customer_id,
        metadata_json=metadata,
        idempotency_key=key,
    )
    if micros is not None:
        set_time(event, micros)
    return event


def set_time(event: EventInput, micros: int) -> None:
    """Set when it happened, in microseconds since 1970."""
    event.time.seconds, rest = divmod(micros, MICROS_PER_SECOND)
    event.time.nanos = rest * 1_000


def _read_exactly(
    body: bytes,
    known: frozenset[str],
    header_key: str | None,
    now_micros: int,
    past_micros_max: int,
) -> EventInput:
    """Read one field after the other; InvalidArgumentError names everything that is wrong."""
    checks = _Checks(_decode_exactly(body))
    checks.names(known)
    metric = checks.text("metric", required=True)
    amount = checks.amount()
    customer_id = checks.text("customerId")
    micros = checks.time()
    metadata = checks.metadata(body)
    key = checks.text(KEY_FIELD) if KEY_FIELD in known else checks.header_key(header_key)
    for problem in check_event(
        metric, amount, customer_id, micros, metadata, key, now_micros, past_micros_max
    ):
        header = problem.field == KEY_FIELD and KEY_FIELD not in known
        checks.refuse(KEY_HEADER if header else problem.field, problem.message)
    if checks.problems:
        raise InvalidArgumentError(checks.problems)
    return _message(metric, amount, customer_id, micros, metadata, key)


def _decode_exactly(body: bytes) -> dict[str, Json]:
    try:
        value = strict_json.decode(body)
    except JsonError as error:
        raise InvalidArgumentError([FieldProblem("body", str(error))]) from None
    if not isinstance(value, dict):
        raise InvalidArgumentError([FieldProblem("body", "must be a JSON object")])
    return value


class _Checks:
    """Reads the fields of one event, noting at most one problem a field."""

    def __init__(self, members: dict[str, Json]) -> None:
        self._members = members
        self.problems: list[FieldProblem] = []

    def refuse(self, field: str, message: str) -> None:
        """Note what is wrong with a field, unless something already is."""
        if all(problem.field != field for problem in self.problems):
            self.problems.append(FieldProblem(field, message))

    def names(self, known: frozenset[str]) -> None:
        """Note every field that is unknown."""
        for name in self._members:
            if name == KEY_FIELD and name not in known:
                self.refuse(name, f"unknown field; send it as the header {KEY_HEADER}")
            elif name not in known:
                self.refuse(name, unknown(name, known))

    def header_key(self, key: str | None) -> str:
        """The Idempotency-Key header; "" when there is none or it is empty."""
        if key == "":
            self.refuse(KEY_HEADER, "must be 1-255 printable ASCII characters")
        return key or ""

    def text(self, name: str, *, required: bool = False) -> str:
        """A string that is not empty; "" when it is left out or wrong."""
        if name not in self._members:
            if required:
                self.refuse(name, "is required")
            return ""
        value = self._members[name]
        if not isinstance(value, str):
            self.refuse(name, f"must be a string{_or_left_out(value, required)}")
            return ""
        if not value:
            self.refuse(name, f"must not be empty{'' if required else '; leave it out instead'}")
        return value

    def amount(self) -> str:
        """The decimal as it was written; "" when it is left out or wrong."""
        match self._members.get("amount", ""):
            case "" if "amount" not in self._members:
                self.refuse("amount", "is required")
            case "":
                self.refuse("amount", 'must be a decimal such as "12.5"')
            case str(text):
                return text[: _AMOUNT_CHARS_MAX + 1]
            case Number(text):
                return text[: _AMOUNT_CHARS_MAX + 1]
            case _:
                self.refuse("amount", 'must be a number or a decimal string such as "12.5"')
        return ""

    def time(self) -> int | None:
        """Microseconds since 1970; None when it is left out or wrong."""
        text = self.text("timestamp")
        if not text:
            return None
        micros = parse_micros(text)
        if micros is None:
            self.refuse("timestamp", EXPECTED_TIME)
        return micros

    def metadata(self, body: bytes) -> str:
        """The object's JSON as it was sent; "" when it is left out or wrong."""
        if "metadata" not in self._members:
            return ""
        value = self._members["metadata"]
        if not isinstance(value, dict):
            self.refuse("metadata", f"must be an object{_or_left_out(value, required=False)}")
            return ""
        return str(_decode_metadata(body).metadata, "utf-8")


def _or_left_out(value: Json, required: bool) -> str:
    return "; leave it out instead of null" if value is None and not required else ""
