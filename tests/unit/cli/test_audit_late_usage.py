"""An audit finds usage that came late and that no line bills."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from usageflow.ingest.v1.ingest_pb2 import StoredEvent

from cli.auditing.invoices.audit import InvoiceOutcome
from cli.auditing.invoices.books import Books
from cli.auditing.invoices.lines import Lines
from cli.auditing.invoices.parts import CountedPage
from cli.auditing.invoices.report import report_invoices
from cli.auditing.parts import Metric

MONTHS = [f"2026-0{month}-01T00:00:00+00:00" for month in range(1, 6)]
PLAN = {"plan_id": "plan_1", "plan_version": "1"}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def books() -> Books:
    """A customer who pays 0.50 a unit since January."""
    price: dict[str, Any] = {
        "metric": "CALLS",
        "model": "PER_UNIT",
        "parameters": {"unitPrice": "0.5"},
    }
    price |= {"included_units": "0", "minimum": None, "maximum": None}
    phase: dict[str, str | None] = {"start_time": MONTHS[0], "end_time": None, "kind": "BILLED"}
    phase |= {"plan_id": "plan_1", "plan_version": "1"}
    phase |= {"exact_start_time": None, "exact_end_time": None}
    phase |= {"anchor_time": MONTHS[0], "billing_period": "MONTHLY"}
    subscription = {"time_zone": "UTC", "billing_anchor": "CALENDAR", "discounts": []}
    return Books(
        plans={("plan_1", 1): {"prices": [price], "discounts": []}},
        subscriptions={"sub_1": {**subscription, "phases": [phase]}},
    )


def line(kind: str, month: int, quantity: str, amount: str) -> dict[str, Any]:
    figures = {"quantity": quantity, "included_units": "0", "amount": amount}
    period = {"period_start": MONTHS[month - 1], "period_end": MONTHS[month]}
    return {"kind": kind, "metric": "CALLS", "position": "1", **period, **figures}


def invoice(month: int, *lines: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": f"INV-{month}",
        "sequence": str(month),
        "subscription_id": "sub_1",
        "customer_id": "c",
        "currency": "USD",
        "void_time": None,
        "finalize_time": MONTHS[month],
        "period_start": MONTHS[month - 1],
        "period_end": MONTHS[month],
        "reading": {},
        "lines": lines,
    }


class Events:
    """In ingest's place: ten calls in January, and one more that came in March. `dropped`: others
    of the organization are gone.
    """

    def __init__(self, *, dropped: bool = False) -> None:
        self._dropped = dropped

    async def counted_events(
        self, made: dict[str, Any], asked: dict[str, Any]
    ) -> AsyncIterator[CountedPage]:
        late = made["number"] != "INV-1"
        january = datetime.fromisoformat(asked["period_start"]).month == 1
        amounts = (["10"] + ["1"] * late) if january else []
        events = [StoredEvent(event_id="evt_" + "0" * 32, amount=amount) for amount in amounts]
        yield CountedPage(events, self._dropped)


async def found(*made: dict[str, Any], since: datetime = LONG_AGO) -> list[tuple[str, str, str]]:
    kept = books()
    for each in made:
        kept.enter(each)
    metrics = {"CALLS": Metric("CALLS", known=True)}
    lines = Lines(Events(), kept, metrics)  # type: ignore[arg-type] # all that is asked of it
    problems = [problem async for problem in lines.unbilled(made[-1], since)]
    return [(each.document, each.what, each.expected) for each in problems]


JANUARY = invoice(1, line("USAGE", 1, "10", "5"))


async def test_late_usage_without_a_line_is_found() -> None:
    march = invoice(3, line("USAGE", 3, "0", "0"))
    assert await found(JANUARY, march) == [
        ("INV-3", "CALLS of 2026-01-01, no line: quantity", "1"),
        ("INV-3", "CALLS of 2026-01-01, no line: amount", "0.5"),
    ]
    assert await found(JANUARY, march, since=datetime(2026, 2, 1, tzinfo=UTC)) == []


async def test_late_usage_that_has_a_line_is_looked_at_there() -> None:
    assert await found(JANUARY, invoice(3, line("LATE_USAGE", 1, "1", "0.5"))) == []


async def test_late_usage_that_was_billed_before_is_not_billed_again() -> None:
    february = invoice(2, line("LATE_USAGE", 1, "1", "0.5"))
    assert await found(JANUARY, february, invoice(3)) == []


async def test_what_was_billed_later_does_not_count_for_an_invoice() -> None:
    """A range may end before the newest invoice."""
    kept = books()
    for each in (JANUARY, invoice(2), invoice(3, line("LATE_USAGE", 1, "1", "0.5"))):
        kept.enter(each)
    lines = Lines(Events(), kept, {"CALLS": Metric("CALLS", known=True)})  # type: ignore[arg-type]
    problems = [each async for each in lines.unbilled(invoice(2), LONG_AGO)]
    assert [each.what for each in problems] == [
        "CALLS of 2026-01-01, no line: quantity",
        "CALLS of 2026-01-01, no line: amount",
    ]


@pytest.mark.parametrize(
    ("quantity", "dropped", "problems", "untold"),
    [
        # Ten calls are there: that it billed eleven proves nothing when others are gone.
        ("11", True, [], 1),
        ("11", False, ["quantity", "amount"], 0),
        ("10", True, [], 0),
    ],
)
async def test_a_line_whose_events_were_dropped_differs_from_nothing(
    quantity: str, dropped: bool, problems: list[str], untold: int
) -> None:
    made = invoice(1, line("USAGE", 1, quantity, str(int(quantity) / 2)))
    metrics = {"CALLS": Metric("CALLS", known=True)}
    lines = Lines(Events(dropped=dropped), books(), metrics)  # type: ignore[arg-type]
    found = [each async for each in lines.check({**made, "kind": "PERIOD", **PLAN})]
    assert [each.what for each in found] == problems
    assert lines.dropped == untold


@pytest.mark.parametrize("dropped", [0, 3])
def test_what_could_not_be_told_is_said(dropped: int) -> None:
    console = Console(record=True, width=200)
    report_invoices({"live": InvoiceOutcome(documents=1, dropped=dropped)}, console)
    told = "3 lines not recomputable: events of their periods were dropped"
    assert (told in console.export_text()) == bool(dropped)
