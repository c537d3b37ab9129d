"""When a failed delivery is tried again."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.pace import next_attempt_time
from services.notifier.settings import RETRY_DELAYS_S

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_schedule_is_the_promised_one() -> None:
    """0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h."""
    hours = [2, 5, 10, 14, 20, 24]
    assert list(RETRY_DELAYS_S) == [0, 5, 5 * 60, 30 * 60, *(hour * 3_600 for hour in hours)]


@given(step=st.integers(0, 9), spread=st.floats(-1, 1))
def test_each_attempt_lies_within_a_fifth_of_its_delay(step: int, spread: float) -> None:
    due = next_attempt_time(RETRY_DELAYS_S, step, NOW, spread)
    assert due is not None
    waited_s = (due - NOW).total_seconds()
    assert 0.8 * RETRY_DELAYS_S[step] - 1e-3 <= waited_s <= 1.2 * RETRY_DELAYS_S[step] + 1e-3


@pytest.mark.parametrize("step", [10, 11, 1_000])
def test_after_the_last_place_there_is_no_attempt(step: int) -> None:
    assert next_attempt_time(RETRY_DELAYS_S, step, NOW, 0.0) is None
