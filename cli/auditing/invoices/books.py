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
    # By time, of periods that are invoiced, by subscription and period.
    windows: dict[tuple[str, datetime, datetime], tuple[datetime, datetime]] = field(
        default_factory=dict
    )

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
            self.see(invoice)

    def see(self, invoice: Row) -> None:
        """Note what time it bills, when it is that of a period."""
        if invoice.get("exact_period_start"):
            names = ("period_start", "period_end", "exact_period_start", "exact_period_end")
            start, end, *window = (time_of(invoice[name]) for name in names)
            self.windows[invoice["subscription_id"], start, end] = (window[0], window[1])

    def phases(self, invoice: Row) -> list[Row]:
        """Those of its subscription, by time."""
        phases: list[Row] = self.subscriptions[invoice["subscription_id"]]["phases"]
        return phases

    def phase(self, invoice: Row, instant: datetime) -> Row:
        """What its subscription is on at an instant."""
        phases = reversed(self.phases(invoice))
        return next(each for each in phases if time_of(each["start_time"]) <= instant)

    def phase_by_time(self, invoice: Row, second: datetime) -> Row:
        """What the time of its subscription is priced by then."""
        phases = reversed(self.phases(invoice))
        return next(each for each in phases if _priced_from(each) <= second)

    def window(self, invoice: Row, start: datetime, end: datetime) -> tuple[datetime, datetime]:
        """What of time is priced with the part [start, end), as its invoice says; before invoices
        did, to the second where phases begin or end.
        """
        known = self.windows.get((invoice["subscription_id"], start, end))
        if known is not None:
            return known
        phases = self.phases(invoice)
        begun = (_priced_from(each) for each in phases if time_of(each["start_time"]) == start)
        ended = (
            time_of(each["exact_end_time"])
            for each in phases
            if each["exact_end_time"] and time_of(each["end_time"]) == end
        )
        return next(begun, start), next(ended, end)

    def phase_ends(self, invoice: Row) -> Iterator[datetime]:
        """Where phases begin or end, for what is priced by time."""
        for phase in self.phases(invoice):
            for which in ("start_time", "end_time"):
                if phase[which] is not None:
                    yield time_of(phase[f"exact_{which}"] or phase[which])

    def plan_of(self, phase: Row) -> Row:
        """The version of the plan of a phase."""
        return self.plans[phase["plan_id"], int(phase["plan_version"])]

    def calendar_of(self, invoice: Row, phase: Row) -> Calendar:
        """How the time of a phase is cut into periods."""
        return Calendar.of(self.subscriptions[invoice["subscription_id"]], phase)

    def percents(self, invoice: Row, phase: Row, start: datetime) -> list[Fraction]:
        """What is off each price of a phase in the part that begins then, in percent."""
        found = self._discounts(invoice, phase, start, lambda each: each.get("percent"))
        return [fraction(each["percent"]) for each in found]

    def amounts_off(self, invoice: Row, phase: Row, start: datetime) -> list[Fraction]:
        """What is off the sum of the prices of a phase in the part that begins then."""
        found = self._discounts(invoice, phase, start, lambda each: each.get("amount"))
        return [fraction(each["amount"]) for each in found]

    def _on_plan_since(self, invoice: Row, on: Row, instant: datetime) -> datetime:
        """Since when the subscription is on the plan of a phase, of whatever version; phases that
        have no usage interrupt nothing.
        """
        since = instant
        for phase in reversed(self.phases(invoice)):
            later = _priced_from(phase) > _priced_from(on)
            if later or time_of(phase["start_time"]) > instant:
                continue
            other = phase["plan_id"] != on["plan_id"]
            if other and phase["start_time"] == phase["end_time"]:
                continue
            if other or phase["kind"] == "TRIAL":
                break
            since = time_of(phase["start_time"])
        return since

    def _discounts(
        self, invoice: Row, phase: Row, start: datetime, wanted: Callable[[Row], object]
    ) -> Iterator[Row]:
        """The plan's, for the first periods on it, then the subscription's own."""
        calendar = self.calendar_of(invoice, phase)
        begun_with = calendar.number_at(self._on_plan_since(invoice, phase, start))
        number = calendar.number_at(start) - begun_with
        for each in self.plan_of(phase)["discounts"]:
            periods = each.get("periods")
            if wanted(each) is not None and (periods is None or number < int(periods)):
                yield each
        for each in self.subscriptions[invoice["subscription_id"]]["discounts"]:
            begun = time_of(each["start_time"]) <= start
            ended = each["end_time"] is not None and start >= time_of(each["end_time"])
            if wanted(each) is not None and begun and not ended:
                yield each


def _priced_from(phase: Row) -> datetime:
    return time_of(phase["exact_start_time"] or phase["start_time"])


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
