"""Which events go into one transaction, and how its result reaches the calls."""

import asyncio
from uuid import UUID

from services.ingest.domain import (
    ALL_ACCEPTED,
    DUPLICATE,
    Event,
    Status,
    StoredContent,
    Tenant,
)
from services.ingest.events import Events
from services.ingest.group import Group
from services.ingest.queue import Call

TENANT = Tenant(bytes(16), 1)


EARLIER = UUID(int=7)


def event(number: int, *, amount: str = "1") -> Event:
    return Event(number.to_bytes(16), TENANT, "m", amount, "", 0, True, "")


def group(*calls: list[int] | list[Event]) -> Group:
    loop = asyncio.get_running_loop()
    return Group(
        [
            Call(
                Events.of(event(n) if isinstance(n, int) else n for n in call),
                0,
                loop.create_future(),
            )
            for call in calls
        ]
    )


def stored(number: int, *, amount: str = "1", batch_id: UUID = EARLIER) -> StoredContent:
    return StoredContent(number.to_bytes(16), batch_id, "m", amount, "", 0)


async def test_new_events_are_stored_in_the_order_of_their_ids() -> None:
    [batch] = group([5, 1], [3]).rows().batches
    assert list(batch.events) == [event(1), event(3), event(5)]


async def test_of_copies_of_an_id_the_first_is_stored() -> None:
    assert group([1, 2], [1], [3, 1]).events == Events.of([event(1), event(2), event(3)])


async def test_a_later_copy_is_a_duplicate_or_a_conflict_of_the_first() -> None:
    told = group([1, 2], [event(1), event(2, amount="7")]).outcomes()
    assert told[0] == {}
    assert told[1][0] == DUPLICATE
    assert told[1][1].status is Status.CONFLICT


async def test_what_is_stored_already_is_not_stored_again() -> None:
    tried = group([1, 2, 3], [2])
    tried.learn([stored(2)])
    assert tried.events == Events.of([event(1), event(3)])
    assert tried.known_batch_ids() == {EARLIER}
    assert tried.outcomes() == [{1: DUPLICATE}, {0: DUPLICATE}]


async def test_a_group_that_is_tried_again_keeps_its_batch_ids() -> None:
    """So that it is recognized when its first transaction was committed after all."""
    tried = group([1, 2])
    [first] = tried.rows().batches
    [again] = tried.rows().batches
    assert first.batch_id == again.batch_id
    assert tried.batch_ids == [first.batch_id]


async def test_what_its_own_lost_transaction_has_stored_was_accepted() -> None:
    tried = group([1, 2], [1])
    [batch] = tried.rows().batches
    tried.learn([stored(1, batch_id=batch.batch_id), stored(2, batch_id=batch.batch_id)])
    assert not tried.events
    assert tried.outcomes() == [{}, {0: DUPLICATE}]


async def test_when_all_was_new_every_call_is_told_so() -> None:
    assert group([1], [2, 3]).outcomes() == [ALL_ACCEPTED, ALL_ACCEPTED]


async def test_each_call_is_told_what_became_of_its_own_events() -> None:
    tried = group([1, 2], [3], [4, 5])
    tried.learn([stored(2), stored(4, amount="2")])
    told = tried.outcomes()
    assert told[0] == {1: DUPLICATE}
    assert told[1] == {}
    assert told[2][0].status is Status.CONFLICT
    assert [problem.field for problem in told[2][0].problems] == ["amount"]


async def test_batch_ids_are_uuids_that_sort_by_time() -> None:
    [earlier] = group([1]).rows().batches
    assert isinstance(earlier.batch_id, UUID)
    assert earlier.batch_id.version == 7
