"""Which events go into one transaction, and how its result reaches the calls."""

import asyncio
from uuid import UUID

from services.ingest.domain import ALL_ACCEPTED, DUPLICATE, Difference, Event, Status, Tenant
from services.ingest.group import Group
from services.ingest.queue import Call

TENANT = Tenant(bytes(16), 1)


def event(number: int) -> Event:
    return Event(number.to_bytes(16), TENANT, "m", "1", "", 0, True, "")


def group(*calls: list[int]) -> Group:
    loop = asyncio.get_running_loop()
    return Group(
        [Call([event(n) for n in numbers], 0, loop.create_future(), 0.0) for numbers in calls]
    )


def duplicate(ordinal: int) -> Difference:
    return Difference(ordinal, metric=False, amount=False, customer=False, time=False)


async def test_new_events_are_stored_in_the_order_of_their_ids() -> None:
    [batch] = group([5, 1], [3]).new_rows().batches
    assert batch.events == [event(1), event(3), event(5)]


async def test_staged_events_keep_the_order_in_which_they_came() -> None:
    [batch] = group([5, 1], [3]).staged_rows().batches
    assert batch.events == [event(5), event(1), event(3)]


async def test_copies_of_an_id_are_noticed_within_a_call_and_across_calls() -> None:
    assert not group([1, 2], [3]).has_copies()
    assert group([1, 1]).has_copies()
    assert group([1], [2], [1]).has_copies()


async def test_a_group_that_is_tried_again_keeps_its_batch_ids() -> None:
    """So that it is recognized when its first transaction was committed after all."""
    tried = group([1, 2])
    [first] = tried.new_rows().batches
    [again] = tried.staged_rows().batches
    assert first.batch_id == again.batch_id
    assert tried.batch_ids == [first.batch_id]


async def test_without_differences_every_call_is_told_that_all_was_accepted() -> None:
    assert group([1], [2, 3]).outcomes([]) == [ALL_ACCEPTED, ALL_ACCEPTED]


async def test_each_call_is_told_what_became_of_its_own_events() -> None:
    conflict = Difference(3, metric=False, amount=True, customer=False, time=True)
    told = group([1, 2], [3], [4, 5]).outcomes([duplicate(1), conflict])
    assert told[0] == {1: DUPLICATE}
    assert told[1] == {}
    assert told[2][0].status is Status.CONFLICT
    assert [problem.field for problem in told[2][0].problems] == ["amount", "timestamp"]


async def test_only_what_was_stored_now_is_published() -> None:
    stored = group([1, 2], [3, 1])
    batches = stored.staged_rows().batches
    [kept] = stored.accepted(batches, [duplicate(1), duplicate(3)])
    assert kept.batch_id == stored.batch_ids[0]
    assert kept.events == [event(1), event(3)]


async def test_batch_ids_are_uuids_that_sort_by_time() -> None:
    [earlier] = group([1]).new_rows().batches
    assert isinstance(earlier.batch_id, UUID)
    assert earlier.batch_id.version == 7
