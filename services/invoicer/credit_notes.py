"""Credit notes: what a customer need not pay of an invoice after all, or has back. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from services.invoicer.domain import Invoice, InvoiceLine, InvoiceStatus, LineKind
from services.invoicer.exact import ZERO, add, percent, subtract, total
from services.kit.errors import ConflictError, FieldChecks, PreconditionError
from services.kit.money import format_money, minor_digits, round_money

CREDIT_NOTE_SERIES = "CN"
# Taxes are credited with what they are taxes of; carried credit only with all that is left.
_NOT_ALONE = (LineKind.TAX, LineKind.CREDIT_CARRIED)


@dataclass(frozen=True, slots=True)
class CreditNoteLine:
    """What is credited of the line at `position` (from 1) of the invoice; a TAX line's is tax."""

    position: int
    description: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class CreditNoteDraft:
    """What a credit note will say; `amount` is the sum of its lines, above 0.

    `changes`: what usage of the invoice's period comes to less than was billed; none: it was made
    for other reasons.
    """

    invoice_id: str
    customer_id: str
    currency: str
    amount: Decimal
    reason: str
    refund_reference: str
    lines: tuple[CreditNoteLine, ...]
    changes: tuple[InvoiceLine, ...] = ()


@dataclass(frozen=True, slots=True)
class LateOrigin:
    """What a credit note of late usage comes from: what was read, and the invoice that is written
    in the same transaction, "" for none.
    """

    reading_id: str
    next_invoice_id: str


@dataclass(frozen=True, slots=True)
class CreditNote:
    """A correction of an invoice; it never changes.

    `hash`: SHA-256 of its content and of the hash of the credit note before, hexadecimal.
    """

    id: str
    number: str
    draft: CreditNoteDraft
    create_time: datetime
    hash: str


def check_creditable(invoice: Invoice, *, refunded: bool) -> None:
    """PreconditionError when the invoice is void, or a refund does not go with its state."""
    if invoice.status is InvoiceStatus.VOID:
        raise PreconditionError("The invoice is void", reason="invoice_void")
    paid = invoice.status is InvoiceStatus.PAID
    if paid and not refunded:
        raise PreconditionError(
            "The invoice is paid: give the reference of the refund, or refund to credits",
            reason="refund_required",
        )
    if refunded and not paid:
        raise PreconditionError("The invoice is not paid", reason="invoice_not_paid")


def credit_needed_no_more(invoice: Invoice, amount: Decimal) -> Decimal:
    """What prepaid credits paid of an invoice that is not paid, and is too much once a credit note
    of `amount` takes so much off it.
    """
    return max(subtract(amount, invoice.amount_due), ZERO)


def key_conflict() -> ConflictError:
    """An idempotency key was used for another credit note."""
    return ConflictError(
        "The idempotency key was used for another credit note", reason="idempotency_conflict"
    )


def credit_lines(
    checks: FieldChecks,
    invoice: Invoice,
    credited: Mapping[int, Decimal],
    wanted: Mapping[int, Decimal] | None,
) -> tuple[CreditNoteLine, ...]:
    """The lines of a credit note, noting what is wrong with `wanted`.

    `credited`: what earlier credit notes have credited, by the lines' positions. `wanted`: what to
    credit of lines, without taxes that are added; None: all that is left of the invoice. No lines
    when something is wrong with one of `wanted`.
    """
    left = {
        position: subtract(line.amount, credited.get(position, ZERO))
        for position, line in enumerate(invoice.lines, start=1)
    }
    if wanted is None:
        amounts = left
    else:
        amounts = _wanted(checks, invoice, left, wanted)
        if checks.problems:  # what is wrong with lines says nothing of their sum
            return ()
        amounts |= _taxes(invoice, credited, amounts)
    whole = total(amounts.values())
    checks.require(whole > 0, "lines", "nothing of it is left to credit")
    rest = subtract(invoice.amount, total(credited.values()))
    fits = whole <= rest
    message = f"come to {format_money(whole, invoice.currency)} with taxes; of the invoice "
    message += f"{format_money(rest, invoice.currency)} is left"
    checks.require(fits, "lines", message)
    return tuple(
        CreditNoteLine(position, invoice.lines[position - 1].description, amount)
        for position, amount in sorted(amounts.items())
        if amount
    )


def late_credit_lines(
    invoice: Invoice, credited: Mapping[int, Decimal], changes: Sequence[InvoiceLine]
) -> tuple[CreditNoteLine, ...]:
    """The lines of a credit note that corrects an invoice by `changes` of its period, which sum to
    less than 0: they credit the lines of the metrics that cost less. None when they can't, since
    too little is left of those or of the invoice, or later invoices billed some of it.
    """
    usage = {
        line.metric: position
        for position, line in enumerate(invoice.lines, start=1)
        if line.kind is LineKind.USAGE
    }
    rest = subtract(ZERO, total(change.amount for change in changes))
    wanted: dict[int, Decimal] = {}
    words: dict[int, str] = {}
    for change in changes:
        position = usage.get(change.metric)
        if change.kind is not LineKind.LATE_USAGE or change.amount >= 0 or position is None:
            continue
        line = invoice.lines[position - 1]
        left = max(subtract(line.amount, credited.get(position, ZERO)), ZERO)
        taken = min(rest, subtract(ZERO, change.amount), left)
        if taken > 0:
            wanted[position], words[position] = taken, change.description
            rest = subtract(rest, taken)
    if rest > 0:
        return ()
    checks = FieldChecks()
    lines = credit_lines(checks, invoice, credited, wanted)
    if checks.problems:
        return ()
    return tuple(
        replace(line, description=words.get(line.position, line.description)) for line in lines
    )


def _wanted(
    checks: FieldChecks,
    invoice: Invoice,
    left: Mapping[int, Decimal],
    wanted: Mapping[int, Decimal],
) -> dict[int, Decimal]:
    amounts = {}
    for index, (position, amount) in enumerate(wanted.items()):
        where = f"lines[{index}]"
        there = 1 <= position <= len(invoice.lines)
        if not checks.require(there, f"{where}.line", f"must be from 1 to {len(invoice.lines)}"):
            continue
        alone = invoice.lines[position - 1].kind not in _NOT_ALONE
        message = "is credited with the lines that it comes from"
        if not checks.require(alone, f"{where}.line", message):
            continue
        digits = minor_digits(invoice.currency)
        minor = amount == round_money(amount, invoice.currency)
        checks.require(
            minor, f"{where}.amount", f"must have at most {digits} digits after the point"
        )
        most = max(left[position], ZERO)
        fits = 0 < amount <= most
        message = f"must be more than 0 and at most {format_money(most, invoice.currency)}"
        checks.require(fits, f"{where}.amount", message)
        amounts[position] = amount if minor and fits else ZERO
    return amounts


def _taxes(
    invoice: Invoice, credited: Mapping[int, Decimal], amounts: Mapping[int, Decimal]
) -> dict[int, Decimal]:
    """The part of each added tax, by its line.

    The tax of all that is credited by now, rounded as on the invoice, less what was credited of it
    before: all credit notes of the whole have exactly the tax of the invoice.
    """
    untaxed = {
        position for position, line in enumerate(invoice.lines, start=1) if line.kind in _NOT_ALONE
    }
    before = total(amount for position, amount in credited.items() if position not in untaxed)
    net = add(before, total(amounts.values()))
    added = [tax for tax in invoice.taxes if not tax.inclusive]
    lines = [
        position
        for position, line in enumerate(invoice.lines, start=1)
        if line.kind is LineKind.TAX
    ]
    return {
        position: subtract(
            round_money(percent(net, tax.percent), invoice.currency),
            credited.get(position, ZERO),
        )
        for position, tax in zip(lines, added, strict=True)
    }
