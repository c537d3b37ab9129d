"""Credit notes of invoices whose periods cost less after all. Pure.

They come before the invoices, whose lines tell what was billed by then. So they are kept until the
invoice comes that was written with them; those without one, at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from cli.auditing.invoices.books import Books, Row
from cli.auditing.invoices.chain import Problem
from cli.auditing.invoices.money import fraction, total
from cli.auditing.invoices.sums import compare

# After all invoices there are.
_LAST = 2**63


@dataclass(slots=True)
class LateNotes:
    """Credit notes that wait for their invoice."""

    _waiting: dict[int, list[Row]] = field(default_factory=dict)
    _tax_lines: dict[str, set[int]] = field(default_factory=dict)

    def keep(self, note: Row) -> None:
        """A credit note with changes."""
        sequence = _LAST if note["next_sequence"] is None else int(note["next_sequence"])
        self._waiting.setdefault(sequence, []).append(note)
        self._tax_lines[note["invoice_id"]] = set()

    def see(self, invoice: Row) -> None:
        """Note which lines of an invoice are taxes, if it is one that was credited so."""
        if invoice["id"] in self._tax_lines:
            taxes = (line for line in invoice["lines"] if line["kind"] == "TAX")
            self._tax_lines[invoice["id"]] = {int(line["position"]) for line in taxes}

    def take(self, invoice: Row | None) -> list[Row]:
        """Those that were written with an invoice; None: with none."""
        return self._waiting.pop(_LAST if invoice is None else int(invoice["sequence"]), [])

    def check(self, note: Row) -> Iterator[Problem]:
        """It credits what its changes come to, and the taxes of that."""
        taxes = self._tax_lines[note["invoice_id"]]
        lines = (line for line in note["lines"] if int(line["position"]) not in taxes)
        credited = total(fraction(line["amount"]) for line in lines)
        changes = total(fraction(change["amount"]) for change in note["changes"])
        yield from compare(note, 0, "changes", changes, Fraction(0) - credited)


def changes_of(note: Row) -> Row:
    """The changes of a credit note as if they were the lines of an invoice of their own."""
    sequence = _LAST if note["next_sequence"] is None else int(note["next_sequence"])
    return {
        **note,
        "lines": note["changes"],
        "kind": "LATE",
        "sequence": str(sequence),
        "period_start": note["changes"][0]["period_end"],
        "period_end": note["changes"][0]["period_end"],
        "finalize_time": note["create_time"],
        "void_time": None,
    }


def enter(books: Books, note: Row) -> None:
    """Its changes count for the invoice that was written with it, and those that come."""
    changes = changes_of(note)
    books.enter({**changes, "sequence": str(int(changes["sequence"]) - 1)})
