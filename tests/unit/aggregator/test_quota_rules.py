"""Which quotas apply, and what they allow."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from services.aggregator.quotas.domain import (
    Quota,
    QuotaSettings,
    QuotaState,
    applicable,
    first_refusal,
    threshold_amount,
    tightest_first,
)

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


def quota(name: str, customer_id: str = "", period: str = "MONTH", **more: object) -> Quota:
    """A quota of the metric A."""
    settings = QuotaSettings("A", customer_id, period, **more)  # type: ignore[arg-type]
    return Quota(name, settings, NOW, NOW)


def state(of: Quota, used: str = "0", reserved: str = "0") -> QuotaState:
    """How much of it is used."""
    period = of.period_at(NOW)
    assert period is not None
    return QuotaState(of, *period, Decimal(used), Decimal(reserved))


def test_a_customers_own_quota_takes_the_place_of_the_default_of_the_same_period() -> None:
    default, own = quota("default"), quota("own", "user_1")
    daily = quota("daily", period="DAY")
    for order in ([default, own, daily], [daily, own, default]):
        found = applicable(order)
        assert {each.quota_id for each in found} == {"own", "daily"}


@pytest.mark.parametrize(
    ("limit", "used", "reserved", "amount", "allowed", "remaining"),
    [
        ("10", "0", "0", "10", True, "10"),
        ("10", "0", "0", "10.000000000001", False, "10"),
        ("10", "7", "2", "1", True, "1"),
        ("10", "7", "2.5", "1", False, "0.5"),
        ("10", "12", "0", "0", False, "0"),
        ("10", "10", "0", "0", True, "0"),
        ("0", "0", "0", "1", False, "0"),
        ("0.3", "0.1", "0.1", "0.1", True, "0.1"),
    ],
)
def test_a_hard_quota_allows_up_to_its_limit(
    limit: str, used: str, reserved: str, amount: str, allowed: bool, remaining: str
) -> None:
    hard = state(quota("q", limit=Decimal(limit)), used, reserved)
    assert hard.allows(Decimal(amount)) is allowed
    assert hard.remaining == Decimal(remaining)
    soft = replace(hard, quota=quota("q", limit=Decimal(limit), enforcement="SOFT"))
    assert soft.allows(Decimal(amount))
    assert soft.remaining == Decimal(remaining)


def test_no_limit_allows_anything() -> None:
    unlimited = state(quota("q"), used="9" * 38)
    assert unlimited.allows(Decimal("9" * 38))
    assert unlimited.remaining is None


def test_the_tightest_quota_comes_first_and_any_hard_one_refuses() -> None:
    month = state(quota("month", limit=Decimal(1000)))
    day = state(quota("day", period="DAY", limit=Decimal(10)), used="8")
    soft = state(quota("soft", period="WEEK", limit=Decimal(1), enforcement="SOFT"))
    free = state(quota("free", period="HOUR"))
    order = tightest_first([free, soft, month, day])
    assert [each.quota.quota_id for each in order] == ["day", "month", "soft", "free"]
    assert first_refusal(order, Decimal(2)) is None
    assert first_refusal(order, Decimal(3)) is day


@pytest.mark.parametrize(
    ("threshold", "limit", "amount"),
    [
        ("80%", "1000", "800"),
        ("33%", "0.1", "0.033"),
        ("1000%", "0.000000000001", "0.00000000001"),
        ("80%", None, None),
        ("250.5", None, "250.5"),
        ("250.5", "10", "250.5"),
    ],
)
def test_a_threshold_is_part_of_the_limit_or_an_amount(
    threshold: str, limit: str | None, amount: str | None
) -> None:
    found = threshold_amount(threshold, None if limit is None else Decimal(limit))
    assert found == (None if amount is None else Decimal(amount))


@pytest.mark.parametrize(
    ("period", "zone", "start", "resets_at"),
    [
        ("HOUR", "", "2026-03-15T12:00", "2026-03-15T13:00"),
        ("HOUR", "Asia/Kathmandu", "2026-03-15T11:15", "2026-03-15T12:15"),
        ("DAY", "", "2026-03-15T00:00", "2026-03-16T00:00"),
        ("DAY", "America/New_York", "2026-03-15T04:00", "2026-03-16T04:00"),
        # 2026-03-15 is a Sunday; New York's clocks went forward on the 8th.
        ("WEEK", "", "2026-03-09T00:00", "2026-03-16T00:00"),
        ("WEEK", "Pacific/Auckland", "2026-03-15T11:00", "2026-03-22T11:00"),
        ("MONTH", "America/New_York", "2026-03-01T05:00", "2026-04-01T04:00"),
        ("TOTAL", "Europe/London", "2000-01-01T00:00", None),
    ],
)
def test_a_quota_begins_anew_with_its_period(
    period: str, zone: str, start: str, resets_at: str | None
) -> None:
    found = state(quota("q", period=period, time_zone=zone))
    assert found.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    expected = resets_at and datetime.fromisoformat(resets_at).replace(tzinfo=UTC)
    assert found.resets_at == expected
