"""Which lines of a customer's invoices may be those of an event."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from gateway.dashboard.pages.events import covering

JUNE, JULY, AUGUST = (datetime(2026, month, 1, tzinfo=UTC) for month in (6, 7, 8))


def invoice(number: str, *lines: tuple[str, datetime, datetime], status: str = "PAID") -> Any:
    """An invoice as far as it is looked at."""
    made = [
        SimpleNamespace(metric=metric, period_start=start, period_end=end)
        for metric, start, end in lines
    ]
    return SimpleNamespace(number=number, status=status, lines=made)


def test_lines_of_the_metric_and_time_are_found_oldest_first() -> None:
    base = ("", JUNE, JULY)
    newest_first = [
        invoice("3", base, ("CALLS", JULY, AUGUST), ("CALLS", JUNE, JULY)),
        invoice("2", ("CALLS", JUNE, JULY), status="VOID"),
        invoice("1", base, ("TOKENS", JUNE, JULY), ("CALLS", JUNE, JULY)),
    ]
    found = covering(newest_first, "CALLS", datetime(2026, 6, 30, tzinfo=UTC))
    assert [(each.invoice.number, each.line) for each in found] == [("1", 3), ("3", 3)]


def test_a_period_ends_before_its_end() -> None:
    assert covering([invoice("1", ("CALLS", JUNE, JULY))], "CALLS", JULY) == []
