"""Differences are told from what is on its way."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.aggregator.reconciliation.domain import (
    NOTHING,
    Accepted,
    Difference,
    HourKey,
    Totals,
    Verdict,
    hour_of,
    judge,
    unequal,
)

HOUR = datetime(2026, 3, 1, 10, tzinfo=UTC)
KEY = HourKey("org_1", "live", "A", HOUR)
OTHER = KEY._replace(mode="test")
ONE, TWO = Totals(1, Decimal("0.1")), Totals(2, Decimal("0.3"))


def at_rest(totals: Totals) -> Accepted:
    return Accepted(totals, moving=False)


def test_only_what_is_unequal_is_looked_at() -> None:
    accepted = {KEY: at_rest(ONE), OTHER: at_rest(TWO)}
    assert unequal(accepted, {KEY: ONE, OTHER: TWO}) == []
    assert unequal(accepted, {KEY: ONE}) == [OTHER]
    assert unequal({}, {KEY: ONE, OTHER: TWO}) == [KEY, OTHER]
    # All of it is void: nothing is counted, and nothing should be.
    assert unequal({KEY: at_rest(NOTHING)}, {}) == []


def test_amounts_are_equal_as_numbers() -> None:
    assert unequal({KEY: at_rest(ONE)}, {KEY: Totals(1, Decimal("0.100"))}) == []


@pytest.mark.parametrize(
    ("before", "accepted", "after", "verdict"),
    [
        (ONE, at_rest(ONE), ONE, Verdict()),
        (ONE, at_rest(TWO), ONE, Verdict(difference=Difference(KEY, TWO, ONE))),
        (ONE, Accepted(TWO, moving=True), ONE, Verdict(moving=True)),
        (ONE, at_rest(TWO), TWO, Verdict(moving=True)),
        (TWO, at_rest(ONE), ONE, Verdict(moving=True)),
        (NOTHING, at_rest(ONE), NOTHING, Verdict(difference=Difference(KEY, ONE, NOTHING))),
    ],
)
def test_a_difference_stays_while_nothing_moves(
    before: Totals, accepted: Accepted, after: Totals, verdict: Verdict
) -> None:
    assert judge(KEY, before, accepted, after) == verdict


def test_hours_are_of_utc() -> None:
    assert hour_of(HOUR + timedelta(minutes=59, microseconds=1)) == HOUR
    assert hour_of(HOUR) == HOUR
