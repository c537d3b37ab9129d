"""What an invoice shows, as plain texts that HTML and PDF have in common. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from services.invoicer.domain import Customer, Invoice, InvoiceLine, InvoiceStatus, LineKind
from services.invoicer.exact import ZERO, readable, subtract, total
from services.invoicer.issuers import NO_ISSUER, Issuer
from services.invoicer.periods import Period
from services.kit.money import format_money

_STATUS = {
    InvoiceStatus.DRAFT: "Draft",
    InvoiceStatus.PENDING: "To pay",
    InvoiceStatus.PAID: "Paid",
    InvoiceStatus.FAILED: "Payment failed",
    InvoiceStatus.VOID: "Void",
}
_BY_NUMBER = (LineKind.USAGE, LineKind.LATE_USAGE, LineKind.CHARGE)


@dataclass(frozen=True, slots=True)
class ViewLine:
    """A row of the table. `period` "": that of the invoice. `steps`: how the amount came about."""

    description: str
    period: str
    quantity: str
    unit_price: str
    amount: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """An invoice in words. `sums` are (label, amount); the last is the total, or what is due."""

    title: str
    status: str
    issuer: Issuer
    recipient: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    lines: tuple[ViewLine, ...]
    sums: tuple[tuple[str, str], ...]
    currency: str
    hash: str


def view_of(invoice: Invoice, customer: Customer, issuer: Issuer = NO_ISSUER) -> View:
    """What a finalized invoice shows; days are those of the customer's time zone."""
    zone = ZoneInfo(customer.time_zone or "UTC")
    facts = [("Invoice", invoice.number), ("Customer", invoice.customer_id)]
    if invoice.finalize_time is not None:
        facts.append(("Date", _day(invoice.finalize_time, zone)))
    facts.append(("Period", _days(invoice.period, zone)))
    sums = _sums(invoice)
    label, amount = sums[-1]
    facts.append((label.removesuffix(f" {invoice.currency}"), f"{amount} {invoice.currency}"))
    return View(
        title=f"Invoice {invoice.number}",
        status=_STATUS[invoice.status],
        issuer=issuer,
        recipient=tuple(each for each in (customer.name or customer.id, customer.email) if each),
        facts=tuple(facts),
        lines=tuple(
            _line(line, invoice, zone) for line in invoice.lines if line.kind is not LineKind.TAX
        ),
        sums=sums,
        currency=invoice.currency,
        hash=invoice.hash,
    )


def _line(line: InvoiceLine, invoice: Invoice, zone: ZoneInfo) -> ViewLine:
    counted = line.kind in _BY_NUMBER
    return ViewLine(
        description=line.description,
        period="" if line.period == invoice.period else _days(line.period, zone),
        quantity=readable(line.quantity) if counted else "",
        unit_price="" if line.unit_price is None or not counted else readable(line.unit_price),
        amount=money(line.amount, invoice.currency),
        steps=line.steps,
    )


def _sums(invoice: Invoice) -> tuple[tuple[str, str], ...]:
    """Taxes, where there are any, the total, and what is left of it to pay."""
    currency = invoice.currency
    added = [line for line in invoice.lines if line.kind is LineKind.TAX]
    sums: list[tuple[str, str]] = []
    if added:
        net = subtract(invoice.amount, total(line.amount for line in added))
        sums.append(("Sum without tax", money(net, currency)))
        sums += [(line.description, money(line.amount, currency)) for line in added]
    sums += [
        (f"Contains {tax.name} {readable(tax.percent)} %", money(tax.amount, currency))
        for tax in invoice.taxes
        if tax.inclusive
    ]
    sums.append((f"Total {currency}", money(invoice.amount, currency)))
    taken = (
        ("Paid by prepaid credits", invoice.credits_applied),
        ("Credited by credit notes", invoice.credited),
    )
    settled = [
        (label, money(subtract(ZERO, amount), currency)) for label, amount in taken if amount
    ]
    if settled:
        sums += settled
        sums.append((f"Amount due {currency}", money(invoice.amount_due, currency)))
    return tuple(sums)


def money(amount: Decimal, currency: str) -> str:
    """With the currency's digits and thousands apart: "1,234.50"."""
    text = format_money(amount.copy_abs(), currency)
    whole, point, digits = text.partition(".")
    sign = "\N{MINUS SIGN}" if amount < ZERO else ""
    return f"{sign}{int(whole):,}{point}{digits}"


def _days(period: Period, zone: ZoneInfo) -> str:
    """First and last day; with the time where a period is not made of days."""
    start, end = period.start.astimezone(zone), period.end.astimezone(zone)
    if start.second or end.second:
        return f"{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S}"
    if (start.hour, start.minute, end.hour, end.minute) != (0, 0, 0, 0):
        return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
    last = end - timedelta(days=1)
    return f"{start:%Y-%m-%d}" if last <= start else f"{start:%Y-%m-%d} to {last:%Y-%m-%d}"


def _day(time: datetime, zone: ZoneInfo) -> str:
    return f"{time.astimezone(zone):%Y-%m-%d}"
