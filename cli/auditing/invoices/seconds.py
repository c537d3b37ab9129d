"""Which plan's each second of an invoice is, and which lines are about that. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from cli.auditing.invoices.books import ADJUSTMENTS, APART, Books, Entry, Row, time_of
from cli.auditing.invoices.money import fraction, total
from cli.auditing.invoices.prices import part_of

Span = tuple[datetime, datetime]
_QUARTER_S = 900


@dataclass(frozen=True, slots=True)
class Stay:
    """The seconds that a plan has of a part of a period; usage of the part is of the first one."""

    phase: Row
    part: Span
    window: Span
    spans: list[Span]
    has_usage: bool

    def shares(
        self, books: Books, invoice: Row, *, undivided: bool = False
    ) -> list[tuple[Fraction, Fraction]]:
        """Of each span, what is left of its period at its start and its end; `undivided`: of what
        counts as a whole period for amounts off.
        """
        calendar = books.calendar_of(invoice, self.phase)
        since = calendar.exact_start if undivided else None
        return [calendar.share(*span, undivided=since) for span in self.spans]

    def part_of(self, books: Books, invoice: Row, amount: Fraction, **how: bool) -> Fraction:
        """What of an amount for a whole period falls on it."""
        currency = invoice["currency"]
        shares = self.shares(books, invoice, **how)
        return total(part_of(amount, share, currency) for share in shares)


def stays(books: Books, invoice: Row, part: Span, window: Span) -> list[Stay]:
    """Those of a part: first that of its usage, then others by time."""
    main = books.phase(invoice, part[0])
    found: list[tuple[Row, list[Span]]] = [(main, [])]
    for phase in books.phases(invoice):
        span = _within(phase, window)
        if span is None or phase["kind"] != "BILLED":
            continue
        known = next((spans for first, spans in found if _terms(first) == _terms(phase)), None)
        if known is None:
            found.append((phase, [span]))
        elif known and known[-1][1] == span[0]:
            known[-1] = (known[-1][0], span[1])
        else:
            known.append(span)
    return [
        Stay(phase, part, window, spans, index == 0) for index, (phase, spans) in enumerate(found)
    ]


def about(stay: Stay, others: Sequence[Stay], entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries that are prices of the stay, or change their sum."""
    begun = sorted((span[0], id(each)) for each in others for span in each.spans)
    for entry in entries:
        if entry.kind in APART:
            continue
        owner = [whose for start, whose in begun if start <= entry.start]
        own = (owner[-1] if owner else begun[0][1] if begun else id(stay)) == id(stay)
        if entry.kind == "BASE":
            if stay.window[0] <= entry.start < stay.window[1] and own:
                yield entry
        elif stay.part[0] <= entry.start < stay.part[1]:
            by_time = entry.kind in ADJUSTMENTS and entry.end.timestamp() % _QUARTER_S != 0
            if own if by_time else stay.has_usage:
                yield entry


def minimums_of_usage(books: Books, invoice: Row, stay: Stay) -> Fraction:
    """What usage costs at least where it has none."""
    if stay.has_usage:
        return Fraction(0)
    prices = books.plan_of(stay.phase)["prices"]
    limits = (fraction(each["minimum"]) for each in prices if each["minimum"] is not None)
    return total(stay.part_of(books, invoice, limit) for limit in limits)


def _terms(phase: Row) -> list[object]:
    names = "kind plan_id plan_version billing_period anchor_time exact_anchor_time"
    return [phase.get(name) for name in names.split()]


def _within(phase: Row, window: Span) -> Span | None:
    start = max(time_of(phase["exact_start_time"] or phase["start_time"]), window[0])
    until = phase["exact_end_time"] or phase["end_time"]
    end = window[1] if until is None else min(time_of(until), window[1])
    return (start, end) if start < end else None
