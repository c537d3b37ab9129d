"""What a valid usage event is."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit import events
from services.kit.errors import FieldProblem

NOW = 1_800_000_000_000_000
ORGANIZATION = bytes(range(16))


def problem_fields(**changed: object) -> list[str]:
    """The fields that are wrong with a good event after `changed`."""
    return [problem.field for problem in check(**changed)]


def check(**changed: object) -> list[FieldProblem]:
    event: dict[str, object] = {
        "metric": "API_CALL",
        "amount": "1",
        "customer_id": "user_123",
        "time_micros": NOW,
        "metadata_json": "",
        "idempotency_key": "",
        "now_micros": NOW,
    }
    return events.check_event(**(event | changed))  # type: ignore[arg-type]


def test_a_plain_event_is_fine() -> None:
    assert check() == []


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = problem_fields(
        metric="",
        amount="x",
        customer_id="\n",
        time_micros=0,
        metadata_json="[]",
        idempotency_key="\u00e9",
    )
    assert wrong == ["metric", "amount", "customerId", "timestamp", "metadata", "idempotencyKey"]


@pytest.mark.parametrize("metric", ["a", "API_CALL", "a.b:c-d_e", "x" * 128])
def test_a_metric_of_the_allowed_characters_is_fine(metric: str) -> None:
    assert check(metric=metric) == []


@pytest.mark.parametrize("metric", ["", "a b", "x" * 129, "\u00e4", "a\n", "\u0663"])
def test_any_other_metric_is_refused(metric: str) -> None:
    assert problem_fields(metric=metric) == ["metric"]


@pytest.mark.parametrize(
    ("amount", "canonical"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0.0", "0"),
        ("0e99", "0"),
        ("1", "1"),
        ("007.500", "7.5"),
        ("100", "100"),
        ("1e3", "1000"),
        ("1E-7", "0.0000001"),
        ("0.000000000001", "0.000000000001"),
        ("1.0000000000000000", "1"),
        ("9" * 38, "9" * 38),
        ("9" * 26 + "." + "9" * 12, "9" * 26 + "." + "9" * 12),
        ("0" * 20 + "9" * 26 + "." + "9" * 12, "9" * 26 + "." + "9" * 12),
        ("1e37", "1" + "0" * 37),
    ],
)
def test_an_amount_within_the_limits_has_one_spelling(amount: str, canonical: str) -> None:
    assert check(amount=amount) == []
    assert events.canonical_amount(amount) == canonical


@pytest.mark.parametrize(
    ("amount", "says"),
    [
        ("", "decimal"),
        (".5", "decimal"),
        ("5.", "decimal"),
        ("+5", "decimal"),
        (" 5", "decimal"),
        ("1_000", "decimal"),
        ("NaN", "decimal"),
        ("Infinity", "decimal"),
        ("0x10", "decimal"),
        ("\u0661", "decimal"),
        ("1\n", "decimal"),
        ("0" * 65, "decimal"),
        ("-1", "at least 0"),
        ("-0.000000000001", "at least 0"),
        ("0.0000000000001", "12 after the point"),
        ("1e-13", "12 after the point"),
        ("9" * 39, "38 digits"),
        ("9" * 27 + "." + "9" * 12, "38 digits"),
        ("1e38", "38 digits"),
        ("1e999", "38 digits"),
        ("1e1000", "decimal"),
    ],
)
def test_any_other_amount_is_refused_with_what_is_allowed(amount: str, says: str) -> None:
    [problem] = check(amount=amount)
    assert problem.field == "amount"
    assert says in problem.message


def test_what_is_not_an_amount_has_no_spelling() -> None:
    for text in ("", "-1", "NaN", "9" * 65):
        with pytest.raises(ValueError):
            events.canonical_amount(text)


@given(
    st.decimals(min_value=0, max_value=10**26 - 1, places=12),
    st.integers(min_value=0, max_value=5),
    st.integers(min_value=0, max_value=5),
)
def test_the_canonical_amount_is_the_same_number(value: Decimal, front: int, back: int) -> None:
    text = "0" * front + f"{value:f}" + "0" * back
    spelled = events.canonical_amount(text)
    assert check(amount=text) == []
    assert Decimal(spelled) == value
    assert events.canonical_amount(spelled) == spelled
    assert not spelled.startswith("00")
    assert "." not in spelled or not spelled.endswith("0")


@pytest.mark.parametrize(
    "customer", ["", "x", "a b", "\u00e9\u4e2d\U0001f600", "a\u00a0b", "x" * 255]
)
def test_a_customer_id_may_be_any_short_text(customer: str) -> None:
    assert check(customer_id=customer) == []


@pytest.mark.parametrize("customer", ["a\x00", "\t", "\x7f", "\x85", "\ud800", "x" * 256])
def test_a_customer_id_has_no_control_characters(customer: str) -> None:
    assert problem_fields(customer_id=customer) == ["customerId"]


def test_an_event_may_have_happened_35_days_ago_but_not_earlier() -> None:
    assert check(time_micros=NOW - events.PAST_MICROS_DEFAULT) == []
    assert problem_fields(time_micros=NOW - events.PAST_MICROS_DEFAULT - 1) == ["timestamp"]


def test_an_event_may_be_5_minutes_ahead_but_not_more() -> None:
    assert check(time_micros=NOW + events.FUTURE_MICROS_MAX) == []
    assert problem_fields(time_micros=NOW + events.FUTURE_MICROS_MAX + 1) == ["timestamp"]


def test_an_event_without_a_time_happens_now() -> None:
    assert check(time_micros=None) == []


def test_test_clocks_let_events_be_ahead_and_none_less_late() -> None:
    for clocks, ahead in (((), 0), ((("a", NOW - 9),), 0), ((("a", NOW + 7), ("", NOW + 5)), 7)):
        now, past = events.window(clocks, NOW, 100)
        assert (now, now - past) == (NOW + ahead, NOW - 100)


def test_a_longer_past_can_be_allowed() -> None:
    hundred_days = 100 * 86_400 * events.MICROS_PER_SECOND
    assert check(time_micros=NOW - hundred_days, past_micros_max=hundred_days) == []
    [problem] = check(time_micros=NOW - hundred_days - 1, past_micros_max=hundred_days)
    assert "100 days" in problem.message


@pytest.mark.parametrize("key", ["", "a", "order 7", "~!", "x" * 255])
def test_an_idempotency_key_may_be_printable_ascii(key: str) -> None:
    assert check(idempotency_key=key) == []


@pytest.mark.parametrize("key", ["\u00e9", "a\n", "\x00", "\x7f", "x" * 256])
def test_any_other_idempotency_key_is_refused(key: str) -> None:
    assert problem_fields(idempotency_key=key) == ["idempotencyKey"]


@pytest.mark.parametrize(
    "metadata",
    [
        "{}",
        ' {"a" : 1, "b": -2.5e3, "c": "x", "d": true, "e": false} ',
        '{"": ""}',
        r'{"a": "\ud83d\ude00\n", "b": "\u00e9"}',
        json.dumps({str(number): number for number in range(64)}),
        '{"a": "' + "x" * (8192 - 9) + '"}',
    ],
)
def test_metadata_is_an_object_of_plain_values(metadata: str) -> None:
    assert check(metadata_json=metadata) == []


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("x", "JSON object"),
        ("[]", "JSON object"),
        ("1", "JSON object"),
        ('{"a": 1', "JSON object"),
        ('{"a": 1} x', "JSON object"),
        ('{"a": 01}', "JSON object"),
        ('{"a": "\n"}', "JSON object"),
        ("[" * 8000, "JSON object"),
        ('{"a": null}', "null"),
        ('{"a": []}', "arrays"),
        ('{"a": {}}', "objects"),
        ('{"a": 1, "a": 1}', "twice"),
        ('{"a": 1, "\\u0061": 1}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "1e308"),
        ('{"a": ' + "9" * 65 + "}", "64 characters"),
        (r'{"a": "\ud800"}', "surrogate"),
        (r'{"\udc00": 1}', "surrogate"),
        ('{"a": "\ud800"}', "surrogate"),
        (r'{"a": "\u0000"}', "U+0000"),
        (json.dumps({str(number): 1 for number in range(65)}), "64 keys"),
        ('{"a": "' + "x" * (8192 - 8) + '"}', "8192 bytes"),
        ('{"a": "' + "\u00e9" * 4096 + '"}', "8192 bytes"),
    ],
)
def test_any_other_metadata_is_refused_with_what_is_allowed(metadata: str, says: str) -> None:
    [problem] = check(metadata_json=metadata)
    assert problem.field == "metadata"
    assert says in problem.message


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
        | st.integers(-(10**18), 10**18)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.booleans(),
        max_size=20,
    )
)
def test_what_json_writes_is_fine(metadata: dict[str, object]) -> None:
    assert check(metadata_json=json.dumps(metadata)) == []
    assert check(metadata_json=json.dumps(metadata, ensure_ascii=False)) == []


def test_an_event_id_depends_on_organization_mode_and_key_alone() -> None:
    one = events.event_id(ORGANIZATION, 1, b"key")
    assert len(one) == 16
    assert one == events.event_id(ORGANIZATION, 1, b"key")
    others = {
        events.event_id(ORGANIZATION, 2, b"key"),
        events.event_id(ORGANIZATION[::-1], 1, b"key"),
        events.event_id(ORGANIZATION, 1, b"kez"),
        events.event_id(ORGANIZATION, 1, b""),
    }
    assert len(others | {one}) == 5


def test_an_event_id_never_changes_between_releases() -> None:
    """A retry may reach a newer release: the same key has to give the same id."""
    known = events.format_event_id(events.event_id(ORGANIZATION, 1, b"key"))
    assert known == "evt_75fee802c0b630cb9f412e652e06b6c6"


def test_an_organization_of_another_length_has_no_event_ids() -> None:
    with pytest.raises(ValueError):
        events.event_id(b"short", 1, b"key")


def test_a_written_event_id_reads_back() -> None:
    written = events.format_event_id(ORGANIZATION)
    assert written == "evt_000102030405060708090a0b0c0d0e0f"
    assert events.parse_event_id(written) == ORGANIZATION


@pytest.mark.parametrize(
    "text", ["", "evt_", "evt_" + "0" * 31, "inv_" + "0" * 32, "evt_" + "G" * 32]
)
def test_anything_else_is_no_event_id(text: str) -> None:
    assert events.parse_event_id(text) is None


some_text = st.text(min_size=1, max_size=3) | st.sampled_from(["A", "1", "1.50", "k" * 255])


@given(some_text, some_text, some_text, some_text | st.just("k" * 256))
def test_what_is_plain_together_is_fine_alone(
    metric: str, amount: str, customer_id: str, key: str
) -> None:
    if events.are_plain([metric, "A"], ["0", amount], ["user_1", customer_id], [key, "k"]):
        assert not check(metric=metric, amount=amount, customer_id=customer_id, idempotency_key=key)


def test_usual_events_are_plain() -> None:
    assert events.are_plain({"API_CALL"}, {"1", "0.25"}, ["user_1", "é"], ["key-1", "a b"])
    assert events.are_plain({"API_CALL"}, {"1"}, [], [])
