"""What a receiver may ask of the schedule, and when an endpoint is left alone."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.notifier.pace import next_attempt_time, rest_s, retry_after_s

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


# Half of the times are about as long as the delay: those between once and twice of it count.
@given(asked_s=st.floats(0, 1_000) | st.floats(0, 1e6), spread=st.floats(-1, 1))
@example(asked_s=450.0, spread=0.0)
def test_retry_after_moves_an_attempt_from_once_to_twice_its_delay(
    asked_s: float, spread: float
) -> None:
    plain = next_attempt_time([0, 300], 1, NOW, spread)
    asked = next_attempt_time([0, 300], 1, NOW, spread, asked_s)
    assert plain is not None
    assert asked is not None
    assert plain <= asked <= plain + (plain - NOW) + timedelta(milliseconds=1)
    delay_s = (plain - NOW).total_seconds()
    if delay_s <= asked_s <= 2 * delay_s:
        assert asked == NOW + timedelta(seconds=asked_s)


def test_retry_after_brings_no_attempt_beyond_the_schedule() -> None:
    assert next_attempt_time([0, 300], 2, NOW, 0, 10) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("99999999999", 86_400),
        ("Sat, 31 Jan 2026 12:02:00 GMT", 120),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, expected: int) -> None:
    assert retry_after_s(header, NOW) == expected


@pytest.mark.parametrize(
    "header", ["", "soon", "-5", "1.5", "1e9", "٣", "Sat, 31 Jan 2026 12:02:00", "9" * 65, "\x00"]
)
def test_a_retry_after_that_makes_no_sense_is_none(header: str) -> None:
    assert retry_after_s(header, NOW) is None


@pytest.mark.parametrize(
    ("asked_s", "expected"), [(None, 1), (0.0, 1), (30.0, 30), (86_400.0, 300)]
)
def test_an_endpoint_that_throttles_rests_from_a_second_to_five_minutes(
    asked_s: float | None, expected: int
) -> None:
    assert rest_s(asked_s) == expected
