"""Goes through all documents of an organization, by series and number."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from usageflow.invoicer.v1 import audit_pb2

from cli.auditing.invoices.books import Books, Row, time_of
from cli.auditing.invoices.chain import Chain, Problem
from cli.auditing.invoices.late_notes import LateNotes, changes_of, enter
from cli.auditing.invoices.ledger import Ledger
from cli.auditing.invoices.lines import Lines
from cli.auditing.invoices.parts import BillingParts
from cli.auditing.invoices.sums import check_amount, check_carried, check_sums, check_taxes

# More are counted, not kept.
PROBLEMS_KEPT_MAX = 1_000
TOLD_EVERY = 1_000


@dataclass(slots=True)
class InvoiceOutcome:
    """What an audit of invoices has found so far."""

    documents: int = 0
    recomputed: int = 0
    lines: int = 0
    events: int = 0
    undecided: int = 0
    dropped: int = 0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    def note(self, problem: Problem) -> None:
        """Count a problem, and keep it when there are not too many."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_KEPT_MAX:
            self.problems.append(problem)


async def audit_invoices(
    parts: BillingParts,
    start: datetime,
    end: datetime,
    progress: Callable[[str], None],
) -> InvoiceOutcome:
    """Follow documents and credits, and work out anew those finalized in [start, end); then
    look for usage that the last of them had to bill, each of its subscription, and did not.

    StackError.
    """
    outcome, books, chain, ledger = InvoiceOutcome(), Books(), Chain(), Ledger()
    notes = LateNotes()
    metrics = {metric.key: metric for metric in await parts.metrics()}
    lines = Lines(parts, books, metrics)
    # Of each subscription, the last invoice of the range that was made from usage.
    newest: dict[str, Row] = {}
    async for kind, row in parts.billing_rows():
        if kind == audit_pb2.BILLING_ROW_KIND_CREDIT_ENTRY:
            for problem in ledger.follow(row):
                outcome.note(problem)
            continue
        if kind != audit_pb2.BILLING_ROW_KIND_DOCUMENT:
            _keep(books, chain, ledger, kind, row)
            continue
        for problem in chain.follow(row):
            outcome.note(problem)
        if row["document"] is None:
            continue
        if row["document"]["type"] == "invoice":
            for problem in ledger.check(row["document"]):
                outcome.note(problem)
        outcome.documents += 1
        if outcome.documents % TOLD_EVERY == 0:
            progress(f"{outcome.documents} documents")
        document = row["document"]
        if document["type"] == "invoice":
            for note in notes.take(document):
                await _late_note(lines, books, notes, note, (start, end), outcome)
            notes.see(document)
        elif document["changes"]:
            notes.keep(document)
        await _document(lines, books, document, (start, end), outcome)
        if _bills_late_usage(document) and start <= time_of(document["finalize_time"]) < end:
            newest[document["subscription_id"]] = document
    for note in notes.take(None):
        await _late_note(lines, books, notes, note, (start, end), outcome)
    for invoice in newest.values():
        async for problem in lines.unbilled(invoice, start):
            outcome.note(problem)
    for problem in chain.finish():
        outcome.note(problem)
    outcome.events, outcome.undecided = lines.events, lines.undecided
    outcome.dropped = lines.dropped
    return outcome


def _bills_late_usage(document: Row) -> bool:
    """Whether it had to bill what came late, by figures that are known exactly."""
    billing = document["type"] == "invoice" and document["kind"] in ("PERIOD", "LATE")
    return billing and document["reading"] is not None


def _keep(books: Books, chain: Chain, ledger: Ledger, kind: int, row: Row) -> None:
    if kind == audit_pb2.BILLING_ROW_KIND_PLAN:
        books.plans[row["plan_id"], int(row["version"])] = row
    elif kind == audit_pb2.BILLING_ROW_KIND_SUBSCRIPTION:
        books.subscriptions[row["id"]] = row
    elif kind == audit_pb2.BILLING_ROW_KIND_CHARGE:
        books.charges[row["id"]] = row
    elif kind == audit_pb2.BILLING_ROW_KIND_COUNTER:
        chain.newest[row["series"]] = int(row["newest_sequence"])
    elif kind == audit_pb2.BILLING_ROW_KIND_CREDIT_WALLET:
        ledger.wallets[row["customer_id"], row["currency"]] = row


async def _late_note(
    lines: Lines,
    books: Books,
    notes: LateNotes,
    note: Row,
    wanted: tuple[datetime, datetime],
    outcome: InvoiceOutcome,
) -> None:
    """What a credit note changes of what was billed, from the raw events."""
    if wanted[0] <= time_of(note["create_time"]) < wanted[1]:
        changes = changes_of(note)
        async for problem in lines.check(changes):
            outcome.note(problem)
        for problem in (*check_sums(books, changes), *notes.check(note)):
            outcome.note(problem)
    enter(books, note)


async def _document(
    lines: Lines,
    books: Books,
    document: Row,
    wanted: tuple[datetime, datetime],
    outcome: InvoiceOutcome,
) -> None:
    made = time_of(document["finalize_time" if document["type"] == "invoice" else "create_time"])
    asked = wanted[0] <= made < wanted[1]
    if asked:
        outcome.recomputed += 1
        outcome.lines += len(document["lines"])
        for problem in check_amount(document):
            outcome.note(problem)
    if document["type"] != "invoice":
        return
    books.see(document)
    if asked:
        async for problem in lines.check(document):
            outcome.note(problem)
        for check in (check_sums, check_carried):
            for problem in check(books, document):
                outcome.note(problem)
        for problem in check_taxes(document):
            outcome.note(problem)
    books.enter(document)
