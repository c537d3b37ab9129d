"""The bounded queue between calls and committers."""

import asyncio

import pytest

from services.ingest.domain import ALL_ACCEPTED, Event, Tenant
from services.ingest.queue import PARALLEL_EVENTS_MIN, EventQueue
from services.kit.errors import OverloadedError

EVENT = Event(bytes(16), Tenant(bytes(16), 1), "m", "1", "", 0, True, "")


def queue(events_max: int = 10, bytes_max: int = 1_000) -> EventQueue:
    return EventQueue(events_max=events_max, bytes_max=bytes_max)


async def take(calls: EventQueue, events_max: int = 10_000) -> list[int]:
    """Take calls and be done with them at once; how many events each had."""
    async with calls.taken(events_max) as taken:
        return [len(call.events) for call in taken]


async def test_calls_are_taken_together_in_their_order() -> None:
    calls = queue()
    futures = [calls.put([EVENT] * count, 10) for count in (1, 2, 3)]
    async with calls.taken(10) as taken:
        assert [call.outcomes for call in taken] == futures
        assert [len(call.events) for call in taken] == [1, 2, 3]
        assert calls.events == 0


async def test_no_more_than_the_bound_is_taken_at_once() -> None:
    calls = queue()
    for _ in range(3):
        calls.put([EVENT] * 3, 10)
    assert await take(calls, 7) == [3, 3]
    assert await take(calls, 7) == [3]


async def test_a_call_larger_than_the_bound_is_taken_alone() -> None:
    calls = queue()
    calls.put([EVENT] * 8, 10)
    calls.put([EVENT], 10)
    assert await take(calls, 2) == [8]
    assert await take(calls, 2) == [1]


async def test_taking_waits_for_the_first_call() -> None:
    calls = queue()
    taking = asyncio.create_task(take(calls))
    await asyncio.sleep(0)
    assert not taking.done()
    calls.put([EVENT], 10)
    assert await taking == [1]


async def test_while_one_stores_what_comes_gathers_for_the_next() -> None:
    calls = queue()
    calls.put([EVENT], 10)
    async with calls.taken(10):
        taking = asyncio.create_task(take(calls))
        for _ in range(3):
            calls.put([EVENT], 10)
            await asyncio.sleep(0)
        assert not taking.done()
    assert await taking == [1, 1, 1]


async def test_while_one_stores_a_large_backlog_goes_to_the_next_at_once() -> None:
    calls = queue(events_max=10_000, bytes_max=10**6)
    calls.put([EVENT], 10)
    async with calls.taken(10):
        taking = asyncio.create_task(take(calls))
        await asyncio.sleep(0)
        calls.put([EVENT] * PARALLEL_EVENTS_MIN, 10)
        assert await taking == [PARALLEL_EVENTS_MIN]


async def test_while_one_is_stuck_the_next_goes_on() -> None:
    calls = queue()
    calls.put([EVENT], 10)
    async with calls.taken(10):
        calls.put([EVENT], 10)
        async with asyncio.timeout(5):
            assert await take(calls) == [1]


async def test_a_taker_that_fails_lets_the_next_one_go_on() -> None:
    calls = queue()
    calls.put([EVENT], 10)
    with pytest.raises(RuntimeError):
        async with calls.taken(10):
            raise RuntimeError
    calls.put([EVENT] * 2, 10)
    assert await take(calls) == [2]


async def test_two_takers_never_get_the_same_call() -> None:
    calls = queue()
    takers = [asyncio.create_task(take(calls)) for _ in range(2)]
    await asyncio.sleep(0)
    calls.put([EVENT], 10)
    await asyncio.wait(takers, return_when=asyncio.FIRST_COMPLETED)
    calls.put([EVENT] * 2, 10)
    assert sorted(await asyncio.gather(*takers)) == [[1], [2]]


async def test_too_many_events_are_refused_at_once_and_nothing_is_kept() -> None:
    calls = queue(events_max=3)
    calls.put([EVENT] * 2, 10)
    with pytest.raises(OverloadedError) as refused:
        calls.put([EVENT] * 2, 10)
    assert refused.value.retry_after_s
    assert calls.events == 2
    calls.put([EVENT], 10)


async def test_too_many_bytes_are_refused_at_once() -> None:
    calls = queue(bytes_max=100)
    calls.put([EVENT], 60)
    with pytest.raises(OverloadedError):
        calls.put([EVENT], 60)


async def test_room_comes_when_events_are_taken() -> None:
    calls = queue(events_max=3)
    calls.put([EVENT] * 3, 10)
    waiting = asyncio.create_task(calls.room(2, 10))
    await asyncio.sleep(0)
    assert not waiting.done()
    await take(calls)
    await waiting
    calls.put([EVENT] * 2, 10).set_result(ALL_ACCEPTED)
