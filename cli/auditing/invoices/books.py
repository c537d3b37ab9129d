"""What invoices were made from, and what they have billed so far. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from cli.auditing.invoices.calendar import Calendar
from cli.auditing.invoices.money import fraction, total

Row = Mapping[str, Any]
APART = {"SETUP_FEE", "CHARGE", "TAX", "CREDIT_CARRIED"}
ADJUSTMENTS = ("DISCOUNT", "MAXIMUM", "MINIMUM")


def time_of(text: str) -> datetime:
    """A time of a row."""
    return datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of an invoice that is not void, or was not when another one was made.

    `sequence`: the number of its invoice.
    """

    sequence: int
    kind: str
    metric: str | None
    start: datetime
    end: datetime
    quantity: Fraction
    amount: Fraction
    void_time: datetime | None

    @property
    def is_price(self) -> bool:
        """Whether it is a price of its period."""
        return self.kind not in APART and self.kind not in ADJUSTMENTS


@dataclass(slots=True)
class Books:
    """Everything but the documents, and the lines of those that were read, by subscription."""

    plans: dict[tuple[str, int], Row] = field(default_factory=dict)
    subscriptions: dict[str, Row] = field(default_factory=dict)
    charges: dict[str, Row] = field(default_factory=dict)
    entries: dict[str, list[Entry]] = field(default_factory=dict)

    def before(self, invoice: Row) -> list[Entry]:
        """The lines of earlier invoices of its subscription that counted when it was made."""
        made, sequence = time_of(invoice["finalize_time"]), int(invoice["sequence"])
        found = self.entries.get(invoice["subscription_id"] or "", [])
        earlier = (each for each in found if each.sequence < sequence)
        return [each for each in earlier if each.void_time is None or each.void_time > made]

    def enter(self, invoice: Row) -> None:
        """Its lines count for those that come."""
        if invoice["subscription_id"]:
            found = self.entries.setdefault(invoice["subscription_id"], [])
            found.extend(entries_of(invoice))

    def phase(self, invoice: Row, instant: datetime) -> Row:
        """What its subscription is on at an instant."""
        phases = self.subscriptions[invoice["subscription_id"]]["phases"]
        return next(each for each in reversed(phases) if time_of(each["start_time"]) <= instant)

    def exact(self, invoice: Row, start: datetime, end: datetime) -> tuple[datetime, datetime]:
        """What of [start, end) is priced by time: to the second where phases begin or end."""
        for phase in self.subscriptions[invoice["subscription_id"]]["phases"]:
            start_time, end_time = phase["start_time"], phase["end_time"]
            if phase["exact_start_time"] and time_of(start_time) == start:
                start = time_of(phase["exact_start_time"])
            if phase["exact_end_time"] and time_of(end_time) == end:
                end = time_of(phase["exact_end_time"])
        return start, end

    def phase_ends(self, invoice: Row) -> Iterator[tuple[datetime, datetime]]:
        """Where phases begin or end, for what is priced by time and for usage."""
        for phase in self.subscriptions[invoice["subscription_id"]]["phases"]:
            for which in ("start_time", "end_time"):
                if phase[which] is not None:
                    exact = phase[f"exact_{which}"] or phase[which]
                    yield time_of(exact), time_of(phase[which])

    def plan(self, invoice: Row, instant: datetime) -> Row:
        """The version of the plan at an instant."""
        phase = self.phase(invoice, instant)
        return self.plans[phase["plan_id"], int(phase["plan_version"])]

    def calendar(self, invoice: Row, instant: datetime) -> Calendar:
        """How time is cut into periods at an instant."""
        subscription = self.subscriptions[invoice["subscription_id"]]
        return Calendar.of(subscription, self.phase(invoice, instant))

    def percents(self, invoice: Row, start: datetime) -> list[Fraction]:
        """What is off each price of the period that begins then, in percent."""
        found = self._discounts(invoice, start, lambda each: each.get("percent"))
        return [fraction(each["percent"]) for each in found]

    def amounts_off(self, invoice: Row, start: datetime) -> list[Fraction]:
        """What is off the sum of the prices of the period that begins then."""
        found = self._discounts(invoice, start, lambda each: each.get("amount"))
        return [fraction(each["amount"]) for each in found]

    def _on_plan_since(self, invoice: Row, instant: datetime) -> datetime:
        """Since when the subscription is on its plan, of whatever version."""
        plan_id, since = self.phase(invoice, instant)["plan_id"], instant
        for phase in reversed(self.subscriptions[invoice["subscription_id"]]["phases"]):
            if time_of(phase["start_time"]) > instant:
                continue
            if phase["plan_id"] != plan_id or phase["kind"] == "TRIAL":
                break
            since = time_of(phase["start_time"])
        return since

    def _discounts(
        self, invoice: Row, start: datetime, wanted: Callable[[Row], object]
    ) -> Iterator[Row]:
        """The plan's, for the first periods on it, then the subscription's own."""
        calendar = self.calendar(invoice, start)
        begun_with = calendar.number_at(self._on_plan_since(invoice, start))
        number = calendar.number_at(start) - begun_with
        for each in self.plan(invoice, start)["discounts"]:
            periods = each.get("periods")
            if wanted(each) is not None and (periods is None or number < int(periods)):
                yield each
        for each in self.subscriptions[invoice["subscription_id"]]["discounts"]:
            begun = time_of(each["start_time"]) <= start
            ended = each["end_time"] is not None and start >= time_of(each["end_time"])
            if wanted(each) is not None and begun and not ended:
                yield each


def entries_of(invoice: Row) -> Iterator[Entry]:
    """The lines of an invoice."""
    void_time = invoice["void_time"] and time_of(invoice["void_time"])
    for line in invoice["lines"]:
        yield Entry(
            int(invoice["sequence"]),
            line["kind"],
            line["metric"],
            time_of(line["period_start"]),
            time_of(line["period_end"]),
            fraction(line["quantity"]),
            fraction(line["amount"]),
            void_time,
        )


def amount_of(entries: Iterable[Entry]) -> Fraction:
    """What they come to."""
    return total(each.amount for each in entries)
