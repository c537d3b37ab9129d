"""One usage event: what is taken, exactly, and what is refused, naming every field."""

from decimal import Decimal

import pytest
from usageflow.ingest.v1.ingest_pb2 import EventInput

from gateway.event import read_batched, read_tracked
from services.kit.errors import InvalidArgumentError
from services.kit.events import canonical_amount

NOW = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z


def tracked(body: str | bytes, key: str | None = None) -> EventInput:
    """The event that a body spells."""
    return read_tracked(body if isinstance(body, bytes) else body.encode(), key, NOW)


def problems(body: str | bytes, key: str | None = None) -> dict[str, str]:
    """Field to message of everything that is wrong with a body."""
    with pytest.raises(InvalidArgumentError) as caught:
        tracked(body, key)
    return {problem.field: problem.message for problem in caught.value.problems}


def test_the_event_of_the_integration_page_is_taken() -> None:
    event = tracked('{"metric": "API_CALL", "amount": 1, "customerId": "user_123"}', "unique-id")
    expected = EventInput(
        metric="API_CALL", amount="1", customer_id="user_123", idempotency_key="unique-id"
    )
    assert event == expected


def test_metadata_is_passed_on_as_it_was_written() -> None:
    event = tracked('{"metric": "A", "amount": 1, "metadata": {"model" : "gpt-4", "n": 1.50}}')
    assert event.metadata_json == '{"model" : "gpt-4", "n": 1.50}'


def test_escapes_elsewhere_do_not_change_how_metadata_is_passed_on() -> None:
    metadata = '{"city": "Zürich",  "n": 1e2}'
    event = tracked(
        f'{{"metric": "A", "amount": 1, "customerId": "a\\u0062", "metadata": {metadata}}}'
    )
    assert event.customer_id == "ab"
    assert event.metadata_json == metadata


@pytest.mark.parametrize(
    ("amount", "value"),
    [
        ("0.1", "0.1"),
        ('"0.1"', "0.1"),
        ("0", "0"),
        ("-0", "0"),
        ("0.30000000000000004e0", None),
        ("12345678901234567890.123456789012", "12345678901234567890.123456789012"),
        ('"12345678901234567890.123456789012"', "12345678901234567890.123456789012"),
        ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ("100000000000000000000000000000000000000", None),
        ("0.000000000001", "0.000000000001"),
        ("0.0000000000001", None),
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("1e-7", "0.0000001"),
        ("1e400", None),
        ("1e-400", None),
        ("-1", None),
        ("-0.000001", None),
        ('"1,5"', None),
        ('" 1"', None),
        ('""', None),
        ('"NaN"', None),
        ('"Infinity"', None),
        ('"\u0661"', None),
        ("true", None),
        ("null", None),
        ("[1]", None),
        ('{"value": 1}', None),
        ('{"amount": "1"}', None),
    ],
)
def test_an_amount_is_read_exactly_or_refused(amount: str, value: str | None) -> None:
    body = f'{{"metric": "A", "amount": {amount}}}'
    if value is None:
        assert list(problems(body)) == ["amount"]
    else:
        assert Decimal(tracked(body).amount) == Decimal(value)
        assert canonical_amount(tracked(body).amount) == value


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "{",
        "null",
        "1",
        '"text"',
        "[]",
        '[{"metric": "A", "amount": 1}]',
        '{"metric": "A", "amount": 1,}',
        '{"metric": "A", "amount": 1} {}',
        '{"metric": "A", "amount": 01}',
        '{"metric": "A", "amount": 1.}',
        '{"metric": "A", "amount": .5}',
        '{"metric": "A", "amount": +1}',
        '{"metric": "A", "amount": NaN}',
        '{"metric": "A", "amount": -Infinity}',
        "{'metric': 'A', 'amount': 1}",
        '{"metric": "A\n", "amount": 1}',
        '{"metric": "A", "amount": 1, "amount": 1}',
        '{"metric": "A", "amount": 1, "metric": "A"}',
        '{"metric": "A", "amount": 1, "metadata": {"a": 1, "a": 1}}',
        '{"metric": "A", "amount": 1, "\\u0061mount": 1}',
        '{"metric": "A", "amount": 1, "customerId": "\\ud800"}',
        '{"metric": "A", "amount": 1, "metadata": {"a": "\\udc00"}}',
        '{"metric": "A", "amount": 1, "metadata": {"\\ud83d": 1}}',
        '{"metric": "A", "amount": 1, "metadata": {"a": NaN}}',
        '{"metric": "A", "amount": 1, "metadata": ' + '{"a":' * 17 + "1" + "}" * 18,
        '{"metric": "A", "amount": 1, "metadata": ' + "[" * 100_000 + "]" * 100_000 + "}",
        b'\xef\xbb\xbf{"metric": "A", "amount": 1}',
        b'{"metric": "\xff", "amount": 1}',
        b'{"metric": "A", "amount": "\xff"}',
        b'{"metric": "A", "amount": 1, "metadata": {"a": "\xff"}}',
        b'{"metric": "A", "amount": 1, "customerId": "\xed\xa0\x80"}',
        '{"metric": "A", "amount": 1}'.encode("utf-16"),
    ],
)
def test_json_that_parsers_disagree_on_is_refused(body: str | bytes) -> None:
    assert set(problems(body)) <= {"body", "metadata"}


def test_a_surrogate_pair_is_one_character() -> None:
    event = tracked('{"metric": "A", "amount": 1, "customerId": "\\ud83d\\ude00"}')
    assert event.customer_id == "😀"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("customer_id", "customerId"),
        ("customerID", "customerId"),
        ("customer-id", "customerId"),
        ("costumerId", "customerId"),
        ("ammount", "amount"),
        ("meta", "metadata"),
        ("timeStamp", "timestamp"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_name(name: str, meant: str) -> None:
    message = problems(f'{{"metric": "A", "amount": 1, "{name}": "x"}}')[name]
    assert message == f'unknown field; did you mean "{meant}"?'


def test_an_unknown_field_like_no_other_is_told_the_known_ones() -> None:
    message = problems('{"metric": "A", "amount": 1, "zzz": "x"}')["zzz"]
    assert message == "unknown field; known: amount, customerId, metadata, metric, timestamp"


def test_a_key_in_the_body_is_told_to_be_a_header() -> None:
    message = problems('{"metric": "A", "amount": 1, "idempotencyKey": "k"}')["idempotencyKey"]
    assert message == "unknown field; send it as the header Idempotency-Key"


def test_everything_that_is_wrong_is_named_at_once() -> None:
    body = """{"amount": -1, "customer_id": "u", "customerId": 5, "timestamp": "yesterday",
               "metadata": [], "metric": "A B"}"""
    assert problems(body, "\N{EURO SIGN}") == {
        "customer_id": 'unknown field; did you mean "customerId"?',
        "customerId": "must be a string",
        "timestamp": 'must be a time with an offset such as "2026-01-31T09:30:00Z" (RFC 3339)',
        "metadata": "must be an object",
        "metric": "must be 1-128 characters of A-Z a-z 0-9 _ . : -",
        "amount": "must be at least 0",
        "Idempotency-Key": "must be 1-255 printable ASCII characters",
    }


def test_what_is_required_is_named_when_it_is_missing() -> None:
    assert problems("{}") == {"metric": "is required", "amount": "is required"}


@pytest.mark.parametrize("name", ["metric", "customerId", "timestamp"])
@pytest.mark.parametrize("value", ["null", "1", "true", "[]", "{}", '""', '"\\u0000"'])
def test_a_text_of_the_wrong_type_or_empty_is_refused(name: str, value: str) -> None:
    fields = {"metric": '"A"', "amount": "1", name: value}
    body = "{" + ", ".join(f'"{key}": {text}' for key, text in fields.items()) + "}"
    assert list(problems(body)) == [name]


@pytest.mark.parametrize("value", ["null", "1", '"a"', "[]", '{"a": null}', '{"a": []}'])
def test_metadata_that_is_no_plain_object_is_refused(value: str) -> None:
    assert list(problems(f'{{"metric": "A", "amount": 1, "metadata": {value}}}')) == ["metadata"]


@pytest.mark.parametrize(
    ("timestamp", "micros"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15t08:00:00z", NOW),
        ("2027-01-15T13:45:00.000001+05:45", NOW + 1),
        ("2027-01-15T07:59:59.999999999Z", NOW - 1),
        ("2027-01-15T03:00:00-05:00", NOW),
        ("2027-01-15T08:05:00Z", NOW + 300_000_000),
        ("2026-12-11T08:00:00Z", NOW - 35 * 86_400_000_000),
    ],
)
def test_a_timestamp_is_exact_to_the_microsecond(timestamp: str, micros: int) -> None:
    event = tracked(f'{{"metric": "A", "amount": 1, "timestamp": "{timestamp}"}}')
    assert event.time.seconds * 1_000_000 + event.time.nanos // 1_000 == micros
    assert event.time.nanos % 1_000 == 0


@pytest.mark.parametrize(
    "timestamp",
    [
        "2027-01-15T08:05:00.000001Z",
        "2026-12-11T07:59:59.999999Z",
        "2027-01-15T08:00:00",
        "2027-01-15",
        "2027-01-15 08:00:00Z",
        "2027-02-30T08:00:00Z",
        "2027-01-15T24:00:00Z",
        "2027-01-15T08:00:60Z",
        "2027-01-15T08:00:00+24:00",
        "2027-01-15T08:00:00.Z",
        "0000-01-15T08:00:00Z",
        "1800000000",
    ],
)
def test_a_timestamp_without_offset_or_far_away_is_refused(timestamp: str) -> None:
    body = f'{{"metric": "A", "amount": 1, "timestamp": "{timestamp}"}}'
    assert list(problems(body)) == ["timestamp"]


def test_an_event_without_timestamp_carries_none() -> None:
    assert not tracked('{"metric": "A", "amount": 1}').HasField("time")


@pytest.mark.parametrize("key", ["", "\n", "a\tb", "é", "k" * 256])
def test_an_idempotency_key_that_is_not_printable_ascii_is_refused(key: str) -> None:
    assert list(problems('{"metric": "A", "amount": 1}', key)) == ["Idempotency-Key"]


def test_an_event_of_a_batch_carries_its_key_itself() -> None:
    event = read_batched(b'{"metric": "A", "amount": 1, "idempotencyKey": "k 1"}', NOW)
    assert event.idempotency_key == "k 1"


@pytest.mark.parametrize("value", ["null", "1", '""', '"\\n"', '"é"'])
def test_a_wrong_key_of_a_batched_event_is_refused(value: str) -> None:
    body = f'{{"metric": "A", "amount": 1, "idempotencyKey": {value}}}'
    with pytest.raises(InvalidArgumentError) as caught:
        read_batched(body.encode(), NOW)
    assert [problem.field for problem in caught.value.problems] == ["idempotencyKey"]
