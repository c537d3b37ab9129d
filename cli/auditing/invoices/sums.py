"""What follows from an invoice's other lines: sums of periods, taxes, carried credit. Pure."""

from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction

from cli.auditing.invoices.books import ADJUSTMENTS, Books, Entry, Row, amount_of, entries_of
from cli.auditing.invoices.chain import Problem
from cli.auditing.invoices.money import fraction, rounded, total
from cli.auditing.invoices.prices import part_of

ZERO = Fraction(0)


def check_amount(document: Row) -> Iterator[Problem]:
    """A document amounts to its lines."""
    lines = total(fraction(line["amount"]) for line in document["lines"])
    yield from compare(document, 0, "amount", fraction(document["amount"]), lines)


def check_taxes(invoice: Row) -> Iterator[Problem]:
    """Each rate is that of all lines that are taxed; those that are added have lines."""
    currency = invoice["currency"]
    taxed = [line for line in invoice["lines"] if line["kind"] not in ("TAX", "CREDIT_CARRIED")]
    whole = total(fraction(line["amount"]) for line in taxed)
    inside = total(fraction(tax["percent"]) for tax in invoice["taxes"] if tax["inclusive"])
    added = []
    for tax in invoice["taxes"]:
        per = 100 + inside if tax["inclusive"] else 100
        expected = rounded(whole * fraction(tax["percent"]) / per, currency)
        yield from compare(invoice, 0, tax["name"], fraction(tax["amount"]), expected)
        added += [] if tax["inclusive"] else [expected]
    found = [line for line in invoice["lines"] if line["kind"] == "TAX"]
    yield from compare(invoice, 0, "lines of taxes", Fraction(len(found)), Fraction(len(added)))
    for line, expected in zip(found, added, strict=False):
        stored = fraction(line["amount"])
        yield from compare(invoice, int(line["position"]), "tax", stored, expected)


def check_carried(books: Books, invoice: Row) -> Iterator[Problem]:
    """No invoice is below 0: what does not fit is carried, and taken off the next."""
    if not invoice["subscription_id"]:
        return
    others = [line for line in invoice["lines"] if line["kind"] != "CREDIT_CARRIED"]
    amount = total(fraction(line["amount"]) for line in others)
    credit = amount_of(each for each in books.before(invoice) if each.kind == "CREDIT_CARRIED")
    stored = total(fraction(line["amount"]) for line in invoice["lines"]) - amount
    yield from compare(invoice, 0, "credit carried", stored, max(amount - credit, ZERO) - amount)


def check_sums(books: Books, invoice: Row) -> Iterator[Problem]:
    """Amounts off, maximum and minimum of each period that the invoice has prices of."""
    if not invoice["subscription_id"]:
        return
    before, now = books.before(invoice), list(entries_of(invoice))
    own = datetime.fromisoformat(invoice["period_start"])
    for start, end in sorted(_periods(books, invoice, now)):
        of_period = [each for each in before + now if start <= each.start < end]
        stages = _stages(books, invoice, (start, end), of_period)
        for kind, due in zip(ADJUSTMENTS, stages, strict=True):
            if kind == "MINIMUM" and (start > own or invoice["kind"] == "OPENING"):
                continue
            billed = amount_of(e for e in before if e.kind == kind and start <= e.start < end)
            stored = amount_of(e for e in now if e.kind == kind and start <= e.start < end)
            yield from compare(invoice, 0, f"{kind} of {start:%Y-%m-%d}", stored, due - billed)


def _periods(books: Books, invoice: Row, entries: list[Entry]) -> set[tuple[datetime, datetime]]:
    """Its own, those of late usage, and the one that it charges in advance, as usage is cut."""
    start, end = (datetime.fromisoformat(invoice[f"period_{each}"]) for each in ("start", "end"))
    of = {(e.start, e.end) for e in entries if e.kind in (*ADJUSTMENTS, "LATE_USAGE")}
    if invoice["kind"] == "PERIOD":
        of.add((start, end))
    ahead = start if invoice["kind"] == "OPENING" else end
    based = [e for e in entries if e.kind == "BASE" and e.start >= ahead]
    if based:
        aligned = dict(books.phase_ends(invoice))
        first, last = min(e.start for e in based), max(e.end for e in based)
        of.add((aligned.get(first, first), aligned.get(last, last)))
    return of


def _stages(
    books: Books,
    invoice: Row,
    period: tuple[datetime, datetime],
    of_period: list[Entry],
) -> tuple[Fraction, Fraction, Fraction]:
    """What amounts off, the maximum and the minimum change in all."""
    currency, start = invoice["currency"], period[0]
    plan, calendar = books.plan(invoice, start), books.calendar(invoice, start)
    charged = left = amount_of(each for each in of_period if each.is_price)
    exact = books.exact(invoice, *period)
    number = calendar.number_at(start)
    begun, _ = books.exact(invoice, max(calendar.begin(number), calendar.start), period[1])
    whole = calendar.share(*exact, undivided=begun)
    for amount in books.amounts_off(invoice, start):
        off = rounded(part_of(amount, whole, currency), currency)
        left -= min(off, max(left, ZERO))
    capped = raised = left
    if plan["maximum"] is not None:
        capped = raised = min(left, rounded(fraction(plan["maximum"]), currency))
    if plan["minimum"] is not None:
        share = calendar.share(*exact)
        least = rounded(part_of(fraction(plan["minimum"]), share, currency), currency)
        raised = max(capped, least)
    return left - charged, capped - left, raised - capped


def compare(
    document: Row, line: int, what: str, stored: Fraction, expected: Fraction
) -> Iterator[Problem]:
    """A problem when they are not the same."""
    if stored != expected:
        yield Problem(document["number"], line, what, plain(stored), plain(expected))


def plain(number: Fraction) -> str:
    """Digits, where a number has an end."""
    scaled = number * 10**24
    if scaled.denominator != 1:
        return str(number)
    sign, digits = "-" * (number < 0), str(abs(scaled.numerator)).rjust(25, "0")
    return sign + f"{digits[:-24]}.{digits[-24:]}".rstrip("0").rstrip(".")
