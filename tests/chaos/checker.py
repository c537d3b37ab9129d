"""Compares what was promised with what is stored, and what is stored with what is counted.

Shares no code with the services: contents are compared as Fractions, usage is counted again from
the raw events one by one.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction

from tests.chaos.facts import Cell, Count, Counts, StoredEvent
from tests.chaos.findings import Findings, Problem
from tests.chaos.journal import Attempt, VoidAttempt
from tests.chaos.usage import ACKNOWLEDGED, Answer, Event, VoidAnswer


def acknowledged(attempts: Iterable[Attempt]) -> int:
    """How many events were acknowledged: keys, and attempts without one."""
    return len({_identity(each) for each in attempts if each.answer in ACKNOWLEDGED})


def check_stored(
    attempts: Sequence[Attempt], stored: Sequence[StoredEvent], findings: Findings
) -> None:
    """Acknowledged is within stored, stored is within attempted, contents are the same."""
    by_number = {attempt.number: attempt for attempt in attempts}
    found: dict[object, list[StoredEvent]] = defaultdict(list)
    seen_ids: set[bytes] = set()
    for event in stored:
        if event.event_id in seen_ids:
            findings.add(Problem.STORED_TWICE, f"event id {event.event_id.hex()}")
        seen_ids.add(event.event_id)
        origin = by_number.get(event.attempt)
        if origin is None:
            findings.add(Problem.NOT_SENT, str(event))
        elif not same_content(origin.event, event):
            findings.add(Problem.NOT_SENT, f"sent {origin}, stored {event}")
        else:
            found[_identity(origin)].append(event)
    tried: dict[object, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        tried[_identity(attempt)].append(attempt)
    for identity, group in tried.items():
        _check_one(identity, group, found.get(identity, []), findings)


def _identity(attempt: Attempt) -> object:
    """What an event is known by: tenant and key, or the attempt itself."""
    event = attempt.event
    return (event.tenant, event.key) if event.key else attempt.number


def same_content(sent: Event, stored: StoredEvent) -> bool:
    """Whether both bill the same; a time that was not sent is whatever it is."""
    return (
        (sent.tenant, sent.metric, sent.customer) == (stored.tenant, stored.metric, stored.customer)
        and Fraction(sent.amount) == stored.amount
        and sent.time in (None, stored.time)
    )


def _check_one(
    identity: object, attempts: Sequence[Attempt], stored: Sequence[StoredEvent], findings: Findings
) -> None:
    """All attempts under one key, and all that is stored of them."""
    if len(stored) > 1:
        findings.add(Problem.STORED_TWICE, f"{identity} {len(stored)} times", len(stored) - 1)
    accepted = sum(attempt.answer is Answer.ACCEPTED for attempt in attempts)
    if accepted > 1:
        findings.add(Problem.ACCEPTED_TWICE, f"{identity} {accepted} times", accepted - 1)
    promised = [attempt for attempt in attempts if attempt.answer in ACKNOWLEDGED]
    if not stored:
        if promised:
            findings.add(Problem.NOT_STORED, str(promised[0]))
        if any(attempt.answer is Answer.CONFLICT for attempt in attempts):
            findings.add(Problem.NO_CONFLICT, str(identity))
        return
    others = [attempt for attempt in promised if not same_content(attempt.event, stored[0])]
    for content in {attempt.event: attempt for attempt in others}.values():
        findings.add(Problem.OTHER_CONTENT_STORED, f"{content}, {stored[0]}")
    stored_id = _id_text(stored[0])
    for attempt in attempts:
        if attempt.receipt.event_id not in ("", stored_id):
            findings.add(Problem.OTHER_ID, f"{attempt}, {stored_id}")
        if attempt.answer is Answer.CONFLICT and same_content(attempt.event, stored[0]):
            findings.add(Problem.NO_CONFLICT, f"{attempt}, {stored[0]}")
        if attempt.answer is Answer.REJECTED:
            findings.add(Problem.REFUSED, str(attempt))


def check_voided(
    attempts: Iterable[VoidAttempt], stored: Sequence[StoredEvent], findings: Findings
) -> None:
    """What was told to be void is, and nothing else is."""
    void = {_id_text(event) for event in stored if event.void}
    there = {_id_text(event) for event in stored}
    answers: dict[str, list[VoidAnswer]] = defaultdict(list)
    for attempt in attempts:
        answers[attempt.event_id].append(attempt.answer)
    for event_id, told in answers.items():
        voided = told.count(VoidAnswer.VOIDED)
        if event_id not in void and (voided or VoidAnswer.ALREADY_VOIDED in told):
            findings.add(Problem.NOT_VOIDED, f"{event_id}: {told}")
        if voided > 1:
            findings.add(Problem.VOIDED_TWICE, f"{event_id}: {told}", voided - 1)
        if event_id in there and VoidAnswer.NOT_FOUND in told:
            findings.add(Problem.REFUSED, f"{event_id} was not found to be voided")
    for event_id in void - answers.keys():
        findings.add(Problem.VOID_NOT_SENT, event_id)


def _id_text(event: StoredEvent) -> str:
    return f"evt_{event.event_id.hex()}"


def recount(events: Iterable[StoredEvent]) -> dict[Cell, Count]:
    """Usage by the definition: what is in each cell and not void, one event after the other."""
    cells: dict[Cell, list[StoredEvent]] = defaultdict(list)
    for event in events:
        if not event.void:
            cells[event.cell].append(event)
    return {cell: _count(inside) for cell, inside in cells.items()}


def _count(events: Sequence[StoredEvent]) -> Count:
    amounts = [event.amount for event in events]
    latest = max(events, key=lambda event: (event.time, event.event_id))
    extremes = (min(amounts), max(amounts), latest.amount)
    return Count(len(events), sum(amounts, Fraction()), extremes)


def check_counted(wanted: Counts, counted: Counts, findings: Findings) -> None:
    """What aggregator has counted is what there is to count."""
    nothing = Count(0, Fraction(), None)
    for cell in wanted.keys() | counted.keys():
        want, have = wanted.get(cell, nothing), counted.get(cell, nothing)
        if want == have:
            continue
        text = f"{cell}: stored {_words(want)}, counted {_words(have)}"
        if (have.events, have.total) == (want.events, want.total):
            findings.add(Problem.OTHER_EXTREMES, text)
        elif have.events == want.events:
            more = have.total > want.total
            findings.add(Problem.COUNTED_TWICE if more else Problem.NOT_COUNTED, text)
        elif have.events > want.events:
            findings.add(Problem.COUNTED_TWICE, text, have.events - want.events)
        else:
            findings.add(Problem.NOT_COUNTED, text, want.events - have.events)


def check_customers(
    stored: Iterable[StoredEvent], known: set[tuple[str, str]], findings: Findings
) -> None:
    """invoicer knows every customer that an event has named, in its tenant, and no other."""
    named = {(event.tenant, event.customer) for event in stored if event.customer}
    for tenant, customer in named - known:
        findings.add(Problem.UNKNOWN_CUSTOMER, f"{tenant} {customer}")
    for tenant, customer in known - named:
        findings.add(Problem.INVENTED_CUSTOMER, f"{tenant} {customer}")


def _words(count: Count) -> str:
    extremes = ", ".join(map(str, count.extremes)) if count.extremes else "not known"
    return f"{count.events} events (sum: {count.total}; min, max, last: {extremes})"
