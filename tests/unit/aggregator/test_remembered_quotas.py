"""What is remembered of quotas grows by each change exactly once, in the periods it lies in."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.aggregator.domain import QUARTER
from services.aggregator.quotas.change_repository import Change, Snapshot
from services.aggregator.quotas.domain import Customer, Quota, QuotaSettings, QuotaState
from services.aggregator.quotas.remembered import RememberedStates
from services.aggregator.quotas.states import CustomerStates
from services.kit.tenant import TenantKey

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
USER = Customer(TenantKey("org", "live"), "A", "user_1")
OTHER = USER._replace(customer_id="user_2")
# 100 and 103 have ended, 101 and 105 have not.
SEEN = Snapshot("101:106:101,105")


def state(limit: str, start: datetime = START, end: datetime = END) -> QuotaState:
    """A quota of which 10 are used."""
    quota = Quota(f"quota_{limit}", QuotaSettings("A", limit=Decimal(limit)), START, START)
    return QuotaState(quota, start, end, Decimal(10), Decimal(0))


def remembering(*states: QuotaState, customer: Customer = USER, **more: bool) -> RememberedStates:
    """What was read in SEEN."""
    memory = RememberedStates()
    found = CustomerStates(1, states, END, **more)
    memory.remember(customer, found, SEEN, until_s=100.0)
    return memory


def grown(transaction_id: int, at: datetime = START, customer_id: str = "user_1") -> Change:
    """3 events of 2.5 in all."""
    quarter = (at - EPOCH) // QUARTER
    return Change(transaction_id, [1], [customer_id], [quarter], [3], [Decimal("2.5")])


def used(memory: RememberedStates, customer: Customer = USER) -> list[Decimal] | None:
    """What is used of each quota, the tightest first."""
    found = memory.recall(customer, 0.0, START)
    return None if found is None else [each.used for each in found.states]


@pytest.mark.parametrize(
    ("transaction_id", "seen"),
    [(1, True), (100, True), (101, False), (103, True), (105, False), (106, False), (107, False)],
)
def test_only_what_the_snapshot_did_not_see_is_added(transaction_id: int, seen: bool) -> None:
    memory = remembering(state("100"))
    memory.apply(grown(transaction_id))
    assert SEEN.sees(transaction_id) is seen
    assert used(memory) == [Decimal(10 if seen else "12.5")]


def test_a_snapshot_in_which_nothing_runs_sees_all_before_it() -> None:
    quiet = Snapshot("7:7:")
    assert [quiet.sees(number) for number in (6, 7)] == [True, False]


def test_usage_counts_in_the_periods_that_it_lies_in() -> None:
    day = START + timedelta(days=1)
    memory = remembering(state("200"), state("100", START, day))
    for at in (START - QUARTER, START, day - QUARTER, day, END - QUARTER, END):
        memory.apply(grown(107, at))
    assert used(memory) == [Decimal(15), Decimal(20)]


def test_the_tightest_comes_first_also_when_another_one_has_become_it() -> None:
    memory = remembering(state("100"), state("101", START, START + QUARTER))
    memory.apply(grown(107))
    memory.apply(grown(108, START + QUARTER))
    assert used(memory) == [Decimal(15), Decimal("12.5")]
    for _ in range(2):
        memory.apply(grown(109, START + QUARTER))
    found = memory.recall(USER, 0.0, START)
    assert found is not None
    assert [each.remaining for each in found.states] == [Decimal(80), Decimal("88.5")]


def test_of_a_count_events_are_added() -> None:
    memory = remembering(state("100"), counts_events=True)
    memory.apply(grown(107))
    assert used(memory) == [Decimal(13)]


def test_the_same_is_told_until_something_has_changed() -> None:
    """What was translated for the answer is used again."""
    memory = remembering(state("100"))
    before = memory.recall(USER, 0.0, START)
    memory.apply(grown(107, END))
    memory.apply(grown(107, customer_id="user_2"))
    assert memory.recall(USER, 0.0, START) is before


@pytest.mark.parametrize("customer_id", ["user_1", ""])
def test_after_any_other_change_nothing_is_told(customer_id: str) -> None:
    memory = remembering(state("100"))
    memory.take_over(remembering(state("100"), customer=OTHER))
    memory.apply(Change(100, [1], [customer_id], None))
    memory.apply(Change(107, [2], [customer_id], None))
    assert used(memory) == used(memory, OTHER) == [Decimal(10)]
    memory.apply(Change(107, [1], [customer_id], None))
    assert used(memory) is None
    assert used(memory, OTHER) == ([Decimal(10)] if customer_id else None)


def test_what_is_read_anew_takes_the_place_of_what_was() -> None:
    memory = remembering(state("100"))
    memory.apply(grown(107))
    memory.take_over(remembering(state("50")))
    assert used(memory) == [Decimal(10)]
    memory.apply(grown(108))
    assert used(memory) == [Decimal("12.5")]


def test_nothing_is_told_when_its_time_is_over() -> None:
    memory = remembering(state("100"))
    assert memory.recall(USER, 100.0, START) is None
    assert memory.recall(USER, 0.0, END) is None
    assert memory.recall(OTHER, 0.0, START) is None


def test_the_oldest_are_forgotten_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.aggregator.quotas.remembered.REMEMBERED_MAX", 1)
    memory = remembering(state("100"))
    memory.take_over(remembering(state("100"), customer=OTHER))
    assert (used(memory), used(memory, OTHER)) == (None, [Decimal(10)])
    memory.apply(grown(107))
    assert USER not in memory
