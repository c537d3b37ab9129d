"""The bounded queue between calls and committers."""

import asyncio

import pytest

from services.ingest.domain import ALL_ACCEPTED, Event, Recorded, Tenant
from services.ingest.events import Events
from services.ingest.queue import EventQueue
from services.kit.errors import OverloadedError

EVENT = Event(bytes(16), Tenant(bytes(16), 1), "m", "1", "", 0, True, "")


def queue(events_max: int = 10, bytes_max: int = 1_000) -> EventQueue:
    return EventQueue(events_max=events_max, bytes_max=bytes_max)


async def take(calls: EventQueue, events_max: int = 10_000) -> list[int]:
    """Take calls; how many events each had."""
    return [len(call.events) for call in await calls.take(events_max)]


async def test_calls_are_taken_together_in_their_order() -> None:
    calls = queue()
    futures = [calls.put(Events.of([EVENT] * count), 10) for count in (1, 2, 3)]
    taken = await calls.take(10)
    assert [call.recorded for call in taken] == futures
    assert [len(call.events) for call in taken] == [1, 2, 3]
    assert calls.events == 0


async def test_no_more_than_the_bound_is_taken_at_once() -> None:
    calls = queue()
    for _ in range(3):
        calls.put(Events.of([EVENT] * 3), 10)
    assert await take(calls, 7) == [3, 3]
    assert await take(calls, 7) == [3]


async def test_a_call_larger_than_the_bound_is_taken_alone() -> None:
    calls = queue()
    calls.put(Events.of([EVENT] * 8), 10)
    calls.put(Events.of([EVENT]), 10)
    assert await take(calls, 2) == [8]
    assert await take(calls, 2) == [1]


async def test_taking_waits_for_the_first_call() -> None:
    calls = queue()
    taking = asyncio.create_task(take(calls))
    await asyncio.sleep(0)
    assert not taking.done()
    calls.put(Events.of([EVENT]), 10)
    assert await taking == [1]


async def test_two_takers_never_get_the_same_call() -> None:
    calls = queue()
    takers = [asyncio.create_task(take(calls)) for _ in range(2)]
    await asyncio.sleep(0)
    calls.put(Events.of([EVENT]), 10)
    await asyncio.wait(takers, return_when=asyncio.FIRST_COMPLETED)
    calls.put(Events.of([EVENT] * 2), 10)
    assert sorted(await asyncio.gather(*takers)) == [[1], [2]]


async def test_too_many_events_are_refused_at_once_and_nothing_is_kept() -> None:
    calls = queue(events_max=3)
    calls.put(Events.of([EVENT] * 2), 10)
    with pytest.raises(OverloadedError) as refused:
        calls.put(Events.of([EVENT] * 2), 10)
    assert refused.value.retry_after_s
    assert calls.events == 2
    calls.put(Events.of([EVENT]), 10)


async def test_too_many_bytes_are_refused_at_once() -> None:
    calls = queue(bytes_max=100)
    calls.put(Events.of([EVENT]), 60)
    with pytest.raises(OverloadedError):
        calls.put(Events.of([EVENT]), 60)


async def test_room_comes_when_events_are_taken() -> None:
    calls = queue(events_max=3)
    calls.put(Events.of([EVENT] * 3), 10)
    waiting = asyncio.create_task(calls.room(2, 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    await take(calls)
    await waiting
    calls.put(Events.of([EVENT] * 2), 10).set_result(Recorded(ALL_ACCEPTED, ""))
