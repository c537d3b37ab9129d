"""Any text at all is read as a slow and plain decoder would read it."""

import json
import math
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from usageflow.ingest.v1.ingest_pb2 import EventInput

from gateway.event import read_batched, read_tracked
from services.kit.errors import InvalidArgumentError

NOW = 1_800_000_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 (the plain way)
FIELDS = {"metric", "amount", "customerId", "timestamp", "metadata", "idempotencyKey"}


class RefusedError(ValueError):
    """What the plain decoder does not take."""


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """json.loads keeps the last of two; here that is an error."""
    if len({key for key, _value in pairs}) != len(pairs):
        raise RefusedError("twice")
    return dict(pairs)


def no_constant(_name: str) -> Any:
    raise RefusedError("constant")


def depth(value: Any) -> int:
    """How deep a value is nested."""
    if isinstance(value, dict):
        return 1 + max((depth(item) for item in value.values()), default=0)
    return 1 + max((depth(item) for item in value), default=0) if isinstance(value, list) else 0


def require(ok: bool) -> None:
    if not ok:
        raise RefusedError


def plain_text(value: Any, pattern: str) -> str:
    require(isinstance(value, str))
    value.encode()
    require(re.fullmatch(pattern, value) is not None)
    return str(value)


def plain_amount(value: Any) -> Decimal:
    require(isinstance(value, (str, Decimal)))
    if isinstance(value, str):
        require(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", value) is not None)
    amount = Decimal(value)
    require(amount.is_finite() and amount >= 0)
    if amount:
        digits = amount.as_tuple().digits
        exponent = amount.as_tuple().exponent
        assert isinstance(exponent, int)
        text = "".join(map(str, digits)).lstrip("0")
        kept = text.rstrip("0")
        exponent += len(text) - len(kept)
        require(exponent >= -12)
        require(len(kept) + max(exponent, 0) <= 38)
    return amount


def plain_time(value: Any) -> int:
    # RFC 3339's forms; datetime reads more of ISO 8601's, such as an offset without a colon.
    form = r"[0-9-]{10}[Tt][0-9:]{8}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-5][0-9])"
    text = plain_text(value, form).upper().replace("Z", "+00:00")
    moment = datetime.fromisoformat(text)
    require(moment.tzinfo is not None)
    micros = (moment - EPOCH) // timedelta(microseconds=1)
    require(-35 * 86_400_000_000 <= micros - NOW <= 300_000_000)
    return micros


def plain_metadata(value: Any) -> dict[str, Any]:
    require(isinstance(value, dict) and len(value) <= 64)
    for key, item in value.items():
        require("\0" not in key)
        require(isinstance(item, (str, Decimal, bool)))
        require(not (isinstance(item, str) and "\0" in item))
        require(not (isinstance(item, Decimal) and math.isinf(float(item))))
    return dict(value)


def plain(body: bytes) -> dict[str, Any]:
    """The fields of an event; ValueError (of any kind) for what has to be refused."""
    members = json.loads(
        body.decode(),
        object_pairs_hook=no_duplicates,
        parse_float=Decimal,
        parse_int=Decimal,
        parse_constant=no_constant,
    )
    require(isinstance(members, dict) and depth(members) <= 16)
    json.dumps(members, default=str, ensure_ascii=False).encode()
    require(members.keys() <= FIELDS and {"metric", "amount"} <= members.keys())
    read: dict[str, Any] = {
        "metric": plain_text(members["metric"], "[A-Za-z0-9_.:-]{1,128}"),
        "amount": plain_amount(members["amount"]),
        "customerId": "",
        "timestamp": None,
        "metadata": None,
        "idempotencyKey": "",
    }
    if "customerId" in members:
        read["customerId"] = plain_text(members["customerId"], "[^\0-\x1f\x7f-\x9f]{1,255}")
    if "timestamp" in members:
        read["timestamp"] = plain_time(members["timestamp"])
    if "metadata" in members:
        read["metadata"] = plain_metadata(members["metadata"])
    if "idempotencyKey" in members:
        read["idempotencyKey"] = plain_text(members["idempotencyKey"], "[ -~]{1,255}")
    return read


def as_read(event: EventInput) -> dict[str, Any]:
    """The message in the plain decoder's words."""
    time = event.time
    return {
        "metric": event.metric,
        "amount": Decimal(event.amount),
        "customerId": event.customer_id,
        "timestamp": time.seconds * 1_000_000 + time.nanos // 1_000
        if event.HasField("time")
        else None,
        "metadata": json.loads(event.metadata_json, parse_float=Decimal, parse_int=Decimal)
        if event.metadata_json
        else None,
        "idempotencyKey": event.idempotency_key,
    }


def outcome(body: bytes, *, slow: bool) -> dict[str, Any] | None:
    """What one of the two decoders makes of a body; None: it refuses."""
    try:
        return plain(body) if slow else as_read(read_batched(body, NOW))
    except (ValueError, InvalidArgumentError, RecursionError):
        return None


# Short alphabets make it likely that two names are the same and that escapes meet fields.
names = st.sampled_from([*sorted(FIELDS), "customer_id", "", "a", "\\u0061mount", "metri\\u0063"])
numbers = st.sampled_from(
    [
        "0",
        "-0",
        "1",
        "-1",
        "0.1",
        "1.50",
        "1e3",
        "1E-7",
        "1e400",
        "1e-400",
        "12e999",
        "01",
        "1.",
        "12345678901234567890.123456789012",
        "9" * 38,
        "9" * 39,
        "0.0000000000001",
    ]
)
texts = st.sampled_from(
    [
        "",
        "A",
        "API_CALL",
        "user_123",
        "0.1",
        "5",
        "-5",
        "NaN",
        "é",
        "\\n",
        "\\u0000",
        "\\ud83d",
        "\\ud83d\\ude00",
        "\\u0062",
        "\\\\",
        '\\"',
        "\x01",
        "\x7f",
        "2027-01-15T08:00:00Z",
        "2027-01-15T08:00:00.5+05:45",
        "2020-01-01T00:00:00Z",
        "yesterday",
        "k" * 256,
        " ",
    ]
).map(lambda text: f'"{text}"')
scalars = numbers | texts | st.sampled_from(["true", "false", "null", "NaN", "tru", "Infinity"])


def json_objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(names, values).map(lambda pair: f'"{pair[0]}": {pair[1]}')
    return st.lists(members, max_size=6).map(lambda found: "{" + ", ".join(found) + "}")


def json_arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda found: "[" + ", ".join(found) + "]")


anything = st.recursive(
    scalars, lambda inner: json_objects(inner) | json_arrays(inner), max_leaves=8
)


def usually(good: list[str], odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """One of the good values, in one of eight cases an odd one."""
    return st.integers(0, 7).flatmap(lambda n: odd if n == 0 else st.sampled_from(good))


VALUES = {
    "metric": usually(['"API_CALL"', '"a.b:c-1"', '"\\u0041"'], anything),
    "amount": usually(["1", '"0.10"', "12345678901234567890.123456789012", "1e3"], anything),
    "customerId": usually(['"user_123"', '"é 😀"', '"\\ud83d\\ude00"', '"a\\"b"'], texts),
    "timestamp": usually(
        ['"2027-01-15T08:00:00Z"', '"2027-01-15T08:00:00.5+05:45"', '"2026-12-20t00:00:00z"'], texts
    ),
    "metadata": usually(['{"model": "gpt-4", "n": 1.50}', "{}", '{"a": "\\n"}'], anything)
    | json_objects(scalars),
    "idempotencyKey": usually(['"key 1"', '"\\u0061"', '"~"'], texts),
}


@st.composite
def almost_events(draw: st.DrawFn) -> str:
    """Mostly right events, in which something may be wrong or be said twice."""
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=4, unique=True))
    written = list(dict.fromkeys(["metric", "amount", *chosen]))
    if draw(st.integers(0, 7)) == 0:
        written.append(draw(st.sampled_from(written)))
    members = [f'"{name}": {draw(VALUES[name])}' for name in written]
    if draw(st.integers(0, 7)) == 0:
        members.append(f'"{draw(names)}": {draw(scalars)}')
    space = draw(usually(["", " ", "\n", "\t", "\r\n"], st.just("\f")))
    end = draw(usually(["", " "], st.sampled_from(["x", "}", ","])))
    return space + "{" + f",{space}".join(members) + "}" + end


@settings(max_examples=600, deadline=None)
@given(almost_events())
def test_almost_events_are_read_as_by_a_plain_decoder(text: str) -> None:
    assert outcome(text.encode(), slow=False) == outcome(text.encode(), slow=True)


@settings(max_examples=200, deadline=None)
@given(anything)
def test_any_json_is_read_as_by_a_plain_decoder(text: str) -> None:
    assert outcome(text.encode(), slow=False) == outcome(text.encode(), slow=True)


@settings(max_examples=200, deadline=None)
@given(almost_events(), st.integers(0, 200), st.binary(max_size=2))
def test_damaged_bytes_are_read_as_by_a_plain_decoder(text: str, at: int, put: bytes) -> None:
    body = text.encode()
    damaged = body[: at % len(body)] + put + body[at % len(body) + 1 :]
    assert outcome(damaged, slow=False) == outcome(damaged, slow=True)


@settings(max_examples=200, deadline=None)
@given(almost_events())
def test_a_backslash_that_changes_nothing_changes_nothing(text: str) -> None:
    """The exact way and the quick one agree: an escaped letter only forces the exact one."""
    quick = text.encode()
    exact = text.replace('"metric"', '"metri\\u0063"', 1).encode()
    assert _track(quick) == _track(exact)


def _track(body: bytes) -> EventInput | None:
    try:
        return read_tracked(body, "key", NOW)
    except InvalidArgumentError:
        return None
