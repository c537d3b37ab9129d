"""When payments are tried again, and how Stripe counts money."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.invoicer.payments.domain import is_exhausted, next_attempt_time
from services.invoicer.payments.stripe_provider import minor_units

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def test_days_count_from_the_first_failure() -> None:
    days = [next_attempt_time(FIRST, failures, (1, 3, 7), FIRST) for failures in range(1, 5)]
    assert days == [FIRST + timedelta(days=day) for day in (1, 3, 7)] + [None]
    assert [is_exhausted(failures, (1, 3, 7)) for failures in range(1, 5)] == [False] * 3 + [True]
    assert is_exhausted(1, ())


def test_what_was_due_while_nothing_ran_is_tried_now() -> None:
    late = FIRST + timedelta(days=20)
    assert next_attempt_time(FIRST, 1, (1, 3), late) == late


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("120.00", "USD", 12000),
        ("0.01", "EUR", 1),
        ("500", "JPY", 500),
        ("1.230", "KWD", 1230),
        ("1.234", "KWD", None),
        ("5", "ISK", 500),
        ("7", "UGX", 700),
        ("9.00", "MGA", 9),
        ("9.50", "MGA", None),
        ("0.001", "USD", None),
    ],
)
def test_amounts_are_sent_as_stripe_counts_them(
    amount: str, currency: str, units: int | None
) -> None:
    assert minor_units(Decimal(amount), currency) == units
