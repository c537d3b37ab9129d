"""What an audit of invoices prints."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from cli.auditing.invoices.audit import InvoiceOutcome


def report_invoices(outcomes: Mapping[str, InvoiceOutcome], console: Console) -> None:
    """A table of the differences, and what was looked at."""
    if any(outcome.problems for outcome in outcomes.values()):
        table = Table("mode", "document", "line", "what")
        for name in ("document says", "worked out"):
            table.add_column(name, justify="right", overflow="fold")
        for mode, outcome in outcomes.items():
            for each in outcome.problems:
                line = str(each.line or "")
                table.add_row(mode, each.document, line, each.what, each.stored, each.expected)
        console.print(table)
    for mode, outcome in outcomes.items():
        line = (
            f"{mode}: {outcome.documents} documents chained, {outcome.recomputed} worked out "
            f"({outcome.lines} lines, {outcome.events} events), {outcome.problem_count} differences"
        )
        if outcome.undecided:
            line += (
                f", {outcome.undecided} undecided: of these old invoices it is not known "
                "exactly which events they had counted"
            )
        if outcome.dropped:
            line += (
                f", {outcome.dropped} lines not recomputable: events of their periods were dropped "
                "after eventRetentionDays"
            )
        console.print(line, highlight=False, markup=False, soft_wrap=True)
