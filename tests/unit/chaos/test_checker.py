"""The checker of the fault campaign finds what is lost, doubled or altered, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest

from tests.chaos.checker import (
    acknowledged,
    check_counted,
    check_customers,
    check_stored,
    check_voided,
    recount,
)
from tests.chaos.facts import StoredEvent
from tests.chaos.findings import Findings, Kind, Problem
from tests.chaos.journal import Attempt, VoidAttempt
from tests.chaos.usage import Answer, Event, Receipt, VoidAnswer

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SENT = Event("org_a/live", "key", "API_CALL", "1.50", "customer", NOON)
STORED = StoredEvent(1, b"1" * 16, "org_a/live", "API_CALL", Fraction(3, 2), "customer", NOON)


def attempt(number: int, answer: Answer, **changes: Any) -> Attempt:
    return Attempt(number, replace(SENT, **changes), "http", Receipt(answer))


def stored_findings(
    attempts: Sequence[Attempt], stored: Sequence[StoredEvent]
) -> tuple[int, int, int]:
    """Lost, doubled, wrong."""
    findings = Findings()
    check_stored(attempts, stored, findings)
    return findings.lost, findings.doubled, findings.of(Kind.WRONG)


def test_acknowledged_event_that_is_stored_is_fine() -> None:
    assert stored_findings([attempt(1, Answer.ACCEPTED)], [STORED]) == (0, 0, 0)


@pytest.mark.parametrize("answer", [Answer.ACCEPTED, Answer.DUPLICATE])
def test_acknowledged_event_that_is_not_stored_is_lost(answer: Answer) -> None:
    assert stored_findings([attempt(1, answer)], []) == (1, 0, 0)


def test_acknowledged_event_without_key_that_is_not_stored_is_lost() -> None:
    attempts = [attempt(1, Answer.ACCEPTED, key=""), attempt(2, Answer.ACCEPTED, key="")]
    assert stored_findings(attempts, [STORED]) == (1, 0, 0)


@pytest.mark.parametrize("stored", [[], [STORED]])
def test_event_without_answer_may_be_stored_or_not(stored: list[StoredEvent]) -> None:
    assert stored_findings([attempt(1, Answer.UNKNOWN)], stored) == (0, 0, 0)


def test_retry_of_a_stored_event_is_fine() -> None:
    attempts = [attempt(1, Answer.UNKNOWN), attempt(2, Answer.DUPLICATE, amount="1.5")]
    assert stored_findings(attempts, [STORED]) == (0, 0, 0)
    assert acknowledged(attempts) == 1


def test_key_that_is_stored_twice_is_doubled() -> None:
    attempts = [attempt(1, Answer.ACCEPTED), attempt(2, Answer.DUPLICATE)]
    again = replace(STORED, attempt=2, event_id=b"2" * 16)
    assert stored_findings(attempts, [STORED, again]) == (0, 1, 0)


def test_event_id_that_is_stored_twice_is_doubled() -> None:
    attempts = [attempt(1, Answer.ACCEPTED), attempt(2, Answer.ACCEPTED, key="other")]
    assert stored_findings(attempts, [STORED, replace(STORED, attempt=2)]) == (0, 1, 0)


def test_key_that_is_accepted_twice_is_doubled() -> None:
    attempts = [attempt(1, Answer.ACCEPTED), attempt(2, Answer.ACCEPTED)]
    assert stored_findings(attempts, [STORED]) == (0, 1, 0)


@pytest.mark.parametrize(
    "changes", [{"amount": "2"}, {"metric": "OTHER"}, {"customer": "another"}], ids=str
)
def test_conflict_that_is_taken_for_a_duplicate_is_lost(changes: dict[str, str]) -> None:
    attempts = [attempt(1, Answer.ACCEPTED), attempt(2, Answer.DUPLICATE, **changes)]
    assert stored_findings(attempts, [STORED]) == (1, 0, 0)
    attempts[1].receipt = Receipt(Answer.CONFLICT)
    assert stored_findings(attempts, [STORED]) == (0, 0, 0)


def test_other_time_under_a_known_key_is_another_content() -> None:
    later = attempt(2, Answer.DUPLICATE, time=NOON + timedelta(seconds=1))
    unsaid = attempt(3, Answer.DUPLICATE, time=None)
    assert stored_findings([attempt(1, Answer.ACCEPTED), later], [STORED]) == (1, 0, 0)
    assert stored_findings([attempt(1, Answer.ACCEPTED), unsaid], [STORED]) == (0, 0, 0)


def test_answer_with_the_id_of_another_event_is_wrong() -> None:
    told = attempt(1, Answer.ACCEPTED)
    told.receipt = Receipt(Answer.ACCEPTED, f"evt_{STORED.event_id.hex()}")
    assert stored_findings([told], [STORED]) == (0, 0, 0)
    told.receipt = Receipt(Answer.ACCEPTED, f"evt_{b'2'.hex() * 16}")
    assert stored_findings([told], [STORED]) == (0, 0, 1)


def test_conflict_with_the_same_content_or_with_nothing_is_wrong() -> None:
    attempts = [attempt(1, Answer.ACCEPTED), attempt(2, Answer.CONFLICT)]
    assert stored_findings(attempts, [STORED]) == (0, 0, 1)
    assert stored_findings([attempt(1, Answer.CONFLICT)], []) == (0, 0, 1)


@pytest.mark.parametrize(
    "stored",
    [
        replace(STORED, attempt=7),
        replace(STORED, amount=Fraction(2)),
        replace(STORED, tenant="org_a/test"),
        replace(STORED, customer=""),
        replace(STORED, time=NOON + timedelta(microseconds=1)),
    ],
    ids=lambda stored: str(stored.attempt),
)
def test_stored_event_that_nobody_sent_so_is_wrong(stored: StoredEvent) -> None:
    assert stored_findings([attempt(1, Answer.UNKNOWN)], [stored]) == (0, 0, 1)


def test_recount_is_by_tenant_metric_customer_and_quarter_of_an_hour() -> None:
    events = [
        STORED,
        replace(STORED, amount=Fraction(1, 10), time=NOON + timedelta(minutes=14, seconds=59)),
        replace(STORED, time=NOON + timedelta(minutes=15)),
        replace(STORED, tenant="org_a/test"),
        replace(STORED, metric="OTHER"),
        replace(STORED, customer=""),
    ]
    counts = recount(events)
    assert len(counts) == 5
    first = counts[STORED.cell]
    assert (first.events, first.total) == (2, Fraction(8, 5))
    assert first.extremes == (Fraction(1, 10), Fraction(3, 2), Fraction(1, 10))


def test_void_event_is_not_recounted() -> None:
    assert recount([replace(STORED, void=True)]) == {}


STORED_ID = f"evt_{STORED.event_id.hex()}"
VOID = replace(STORED, void=True)


@pytest.mark.parametrize(
    ("answers", "stored", "problem"),
    [
        ([VoidAnswer.VOIDED, VoidAnswer.ALREADY_VOIDED], VOID, None),
        ([VoidAnswer.UNKNOWN], VOID, None),
        ([VoidAnswer.UNKNOWN], STORED, None),
        ([VoidAnswer.VOIDED], STORED, Problem.NOT_VOIDED),
        ([VoidAnswer.ALREADY_VOIDED], STORED, Problem.NOT_VOIDED),
        ([VoidAnswer.VOIDED, VoidAnswer.VOIDED], VOID, Problem.VOIDED_TWICE),
        ([VoidAnswer.NOT_FOUND], STORED, Problem.REFUSED),
        ([], VOID, Problem.VOID_NOT_SENT),
    ],
)
def test_voids_are_kept_and_nothing_else_is_void(
    answers: list[VoidAnswer], stored: StoredEvent, problem: Problem | None
) -> None:
    findings = Findings()
    attempts = [
        VoidAttempt(number, STORED.tenant, STORED_ID, answer)
        for number, answer in enumerate(answers)
    ]
    check_voided(attempts, [stored], findings)
    assert dict(findings.events) == ({problem: 1} if problem else {})


def counted_findings(counted: Sequence[StoredEvent]) -> tuple[int, int]:
    """Lost, doubled, when three events are stored and these are counted."""
    stored = [STORED, replace(STORED, event_id=b"2" * 16), replace(STORED, metric="OTHER")]
    findings = Findings()
    check_counted(recount(stored), recount(counted), findings)
    return findings.lost, findings.doubled


def test_counts_of_what_is_stored_are_fine() -> None:
    assert counted_findings([STORED, STORED, replace(STORED, metric="OTHER")]) == (0, 0)


def test_event_that_is_not_counted_is_lost() -> None:
    assert counted_findings([STORED, replace(STORED, metric="OTHER")]) == (1, 0)
    assert counted_findings([]) == (3, 0)


def test_event_that_is_counted_twice_is_doubled() -> None:
    assert counted_findings([STORED] * 4 + [replace(STORED, metric="OTHER")]) == (0, 2)


def test_right_sum_of_other_amounts_is_found() -> None:
    stored = [STORED, replace(STORED, event_id=b"2" * 16)]
    counted = [
        replace(STORED, amount=Fraction(1)),
        replace(STORED, amount=Fraction(2), event_id=b"2" * 16),
    ]
    findings = Findings()
    check_counted(recount(stored), recount(counted), findings)
    assert dict(findings.events) == {Problem.OTHER_EXTREMES: 1}


def test_customers_are_those_that_events_name() -> None:
    findings = Findings()
    stored = [STORED, replace(STORED, customer="")]
    check_customers(stored, {("org_a/live", "customer")}, findings)
    assert not findings
    check_customers(stored, {("org_a/test", "customer")}, findings)
    assert dict(findings.events) == {
        Problem.UNKNOWN_CUSTOMER: 1,
        Problem.INVENTED_CUSTOMER: 1,
    }


def test_event_that_is_counted_elsewhere_is_lost_there_and_doubled_here() -> None:
    elsewhere = replace(STORED, customer="another")
    assert counted_findings([STORED, elsewhere, replace(STORED, metric="OTHER")]) == (1, 1)


def test_right_number_of_events_with_another_sum_is_found() -> None:
    more, less = replace(STORED, amount=Fraction(2)), replace(STORED, amount=Fraction(1))
    other = replace(STORED, metric="OTHER")
    assert counted_findings([STORED, more, other]) == (0, 1)
    assert counted_findings([STORED, less, other]) == (1, 0)
