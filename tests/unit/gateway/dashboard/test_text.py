"""Values as people read them."""

from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from gateway.dashboard import text

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0"),
        ("1234567.890", "1,234,567.89"),
        ("-1234", "\N{MINUS SIGN}1,234"),
        ("0.000000000001", "0.000000000001"),
        (
            "12345678901234567890123456789012345678",
            "12,345,678,901,234,567,890,123,456,789,012,345,678",
        ),
        (None, text.DASH),
        ("no number", "no number"),
    ],
)
def test_numbers_are_exact_and_grouped(value: str | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("1234.5", "USD", "$1,234.50"),
        ("-3", "EUR", "\N{MINUS SIGN}€3.00"),
        ("1200", "JPY", "¥1,200"),
        ("1.5", "KWD", "KWD 1.500"),
        ("0.00002", "USD", "$0.00002"),
        ("", "USD", text.DASH),
    ],
)
def test_money_has_the_currencys_digits_and_no_price_loses_any(
    amount: str, currency: str, shown: str
) -> None:
    assert text.money(amount, currency) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (9_999, "9,999"), (12_300, "12.3K"), (2_500_000, "2.5M"), ("0.25", "0.25")],
)
def test_axes_are_short(value: int | str, shown: str) -> None:
    assert text.compact(Decimal(value)) == shown


def test_a_period_is_told_by_the_days_that_lie_in_it_in_the_viewers_zone() -> None:
    start = datetime(2026, 1, 1, tzinfo=BERLIN).astimezone(UTC)
    end = datetime(2026, 2, 1, tzinfo=BERLIN).astimezone(UTC)
    assert text.period(start, end, BERLIN) == f"1 Jan {text.DASH} 31 Jan 2026"
    kolkata = ZoneInfo("Asia/Kolkata")
    month = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    assert text.period(*month, kolkata) == f"1 Jan {text.DASH} 31 Jan 2026"
    assert text.period(None, end, BERLIN) == text.DASH


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("basePrice", "Base price"),
        ("metrics[0].tiers[1].upTo", "Metric 1, tier 2, up to"),
        ("metrics[2]._eventAmount", "Metric 3, event amount"),
        ("events.API_CALL", "Events, API_CALL"),
    ],
)
def test_a_field_is_named_as_people_say_it(name: str, said: str) -> None:
    assert text.field_words(name) == said
