"""What follows from an invoice's other lines: sums of periods, taxes, carried credit. Pure."""

from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction

from cli.auditing.invoices.books import ADJUSTMENTS, Books, Entry, Row, amount_of, entries_of
from cli.auditing.invoices.chain import Problem
from cli.auditing.invoices.money import fraction, rounded, total
from cli.auditing.invoices.seconds import Stay, about, minimums_of_usage, stays

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
    """Amounts off, maximum and minimum of all that the invoice has prices of."""
    if not invoice["subscription_id"]:
        return
    before, now = books.before(invoice), list(entries_of(invoice))
    strange = [each for each in now if each.kind in ADJUSTMENTS]
    for stay, others, ahead in _stays(books, invoice, now):
        billed, stored = (list(about(stay, others, each)) for each in (before, now))
        strange = [each for each in strange if each not in stored]
        stages = _stages(books, invoice, stay, [*billed, *stored])
        for kind, due in zip(ADJUSTMENTS, stages, strict=True):
            if kind == "MINIMUM" and ahead:
                continue
            expected = due - amount_of(each for each in billed if each.kind == kind)
            found = amount_of(each for each in stored if each.kind == kind)
            what = f"{kind} of {stay.part[0]:%Y-%m-%d}"
            yield from compare(invoice, 0, what, found, expected)
    for each in strange:
        what = f"{each.kind} of {each.start:%Y-%m-%d}"
        yield Problem(invoice["number"], 0, what, plain(each.amount), "none of its prices are")


def _stays(
    books: Books, invoice: Row, entries: list[Entry]
) -> Iterator[tuple[Stay, list[Stay], bool]]:
    """Those of its own period, of those of late usage, and of the one that it charges in advance,
    each with all of its part; whether in advance.
    """
    start, end = (datetime.fromisoformat(invoice[f"period_{each}"]) for each in ("start", "end"))
    opening, window = invoice["kind"] == "OPENING", books.window(invoice, start, end)
    if invoice["kind"] == "PERIOD":
        own = stays(books, invoice, (start, end), window)
        yield from ((stay, own, False) for stay in own)
    late = {(e.start, e.end) for e in entries if e.kind == "LATE_USAGE"}
    for part in sorted(late):
        of_part = stays(books, invoice, part, books.window(invoice, *part))
        yield of_part[0], of_part, False
    based = [e for e in entries if e.kind == "BASE" and e.amount >= 0]
    charged = [e for e in based if opening or e.start >= window[1]]
    if charged:
        # It may have been cut since, and what an opening charged replaced in its first second.
        ahead = (min(e.start for e in charged), max(e.end for e in charged))
        first = books.phase_by_time(invoice, ahead[0])
        if opening and first["plan_id"] != invoice["plan_id"]:
            return
        part = (start if opening else end, ahead[1])
        stay = Stay(first, part, ahead, [ahead], has_usage=True)
        yield stay, [stay], True


def _stages(
    books: Books, invoice: Row, stay: Stay, entries: list[Entry]
) -> tuple[Fraction, Fraction, Fraction]:
    """What amounts off, the maximum and the minimum change in all."""
    currency, plan = invoice["currency"], books.plan_of(stay.phase)
    used = minimums_of_usage(books, invoice, stay)
    charged = left = amount_of(each for each in entries if each.is_price) + used
    for amount in books.amounts_off(invoice, stay.phase, stay.part[0]):
        off = rounded(stay.part_of(books, invoice, amount, undivided=True), currency)
        left -= min(off, max(left, ZERO))
    capped = left
    if plan["maximum"] is not None:
        capped = min(left, rounded(fraction(plan["maximum"]), currency))
    raised = capped
    if plan["minimum"] is not None:
        least = rounded(stay.part_of(books, invoice, fraction(plan["minimum"])), currency)
        raised = max(capped, least)
    return left - charged, capped - left, raised - capped + used


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
