"""Shares of a worker."""

import asyncio
from contextlib import AsyncExitStack

from services.notifier.limits import KeyedCount, KeyedSlots


async def test_a_key_has_so_many_slots_and_other_keys_have_their_own() -> None:
    slots = KeyedSlots(2)
    async with AsyncExitStack() as held:
        for key in ("a", "a", "b"):
            await asyncio.wait_for(held.enter_async_context(slots.hold(key)), 1)
        third = asyncio.create_task(held.enter_async_context(slots.hold("a")))
        done, _ = await asyncio.wait([third], timeout=0.05)
        assert not done
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)


async def test_a_slot_that_is_given_back_goes_to_who_waits() -> None:
    slots = KeyedSlots(1)
    entered = asyncio.Event()

    async def second() -> None:
        async with slots.hold("a"):
            entered.set()

    async with slots.hold("a"):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        assert not entered.is_set()
    await asyncio.wait_for(entered.wait(), 1)
    await waiting


async def test_keys_that_nobody_uses_are_forgotten() -> None:
    slots = KeyedSlots(1)
    for number in range(100):
        async with slots.hold(f"endpoint {number}"):
            assert len(slots) == 1
    assert len(slots) == 0


def test_a_key_is_topped_up_when_it_has_come_down_to_half() -> None:
    count = KeyedCount(4)
    for _ in range(4):
        count.take("a")
    assert not count.has_room("a")
    assert count.has_room("b")
    assert [count.give_back("a") for _ in range(4)] == [False, True, False, False]
    assert count.has_room("a")
