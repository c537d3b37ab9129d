"""What is sent follows from the seed, is valid, and survives the journal."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random

from tests.chaos.journal import Journal
from tests.chaos.usage import NO_RECEIPT, Answer, Event, Memory, Receipt, Source, VoidAnswer

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
TENANTS = ["org_a/live", "org_b/test"]


def drawn(seed: str, parcels: int = 200) -> list[Event]:
    """What a sender sends whose every event is accepted."""
    memory, notes = Memory(), Random(1)
    source = Source(seed, TENANTS, memory, began=BEGAN)
    events = []
    for _ in range(parcels):
        parcel = source.parcel(20)
        assert len({event.tenant for event in parcel}) == 1
        for event in filter(lambda event: event.key, parcel):
            memory.sent(event, notes)
            memory.accepted(event, notes)
        events += parcel
    return events


def test_load_follows_from_its_seed() -> None:
    assert drawn("7/http-0") == drawn("7/http-0")
    assert drawn("7/http-0") != drawn("7/http-1")


def test_load_has_duplicates_conflicts_and_events_without_keys() -> None:
    contents: dict[tuple[str, str], list[Event]] = {}
    for event in drawn("7/http-0"):
        contents.setdefault((event.tenant, event.key), []).append(event)
    keyless = [key for key in contents if not key[1]]
    assert {tenant for tenant, _ in keyless} == set(TENANTS)
    keyed = [events for key, events in contents.items() if key[1]]
    assert sum(len(events) > len(set(events)) for events in keyed) > 100
    assert sum(len(set(events)) > 1 for events in keyed) > 100


def test_every_event_is_valid() -> None:
    for event in drawn("7/http-0"):
        amount = Decimal(event.amount)
        assert amount >= 0
        assert len(amount.as_tuple().digits) <= 38
        exponent = amount.as_tuple().exponent
        assert isinstance(exponent, int)
        assert exponent >= -12
        assert len(event.metric) <= 128
        assert len(event.customer) <= 255
        assert event.time is None or 0 <= (BEGAN - event.time).days < 35


def test_journal_tells_every_attempt_and_its_last_answer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    events = list(islice(drawn("7/http-0", parcels=1), 3))
    attempts = journal.attempts("http", events)
    receipts = [Receipt(Answer.ACCEPTED, "evt_1"), NO_RECEIPT, Receipt(Answer.CONFLICT)]
    journal.answered(attempts, receipts)
    voids = journal.void_attempts("org_a/live", ["evt_1", "evt_2"])
    journal.voids_answered(voids[:1], [VoidAnswer.VOIDED])
    read, read_voids = journal.read()
    journal.close()
    assert [attempt.event for attempt in read] == events
    assert [attempt.number for attempt in read] == [1, 2, 3]
    assert [attempt.receipt for attempt in read] == receipts
    assert [(void.event_id, void.answer) for void in read_voids] == [
        ("evt_1", "VOIDED"),
        ("evt_2", "UNKNOWN"),
    ]
