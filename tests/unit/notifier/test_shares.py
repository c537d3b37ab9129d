"""Shares of a worker."""

import asyncio
from contextlib import AsyncExitStack

from services.notifier.limits import KeyedCount, KeyedSlots, Lanes, Shares


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


def lanes(**changed: float) -> Lanes:
    """Two quick slots, one of them for each key, and two slow ones for each of two keys."""
    sizes = {"quick": 2, "quick_of_key": 1, "slow": 3, "slow_of_key": 2, "slow_after_s": 0.01}
    return Lanes(**(sizes | changed))  # type: ignore[arg-type] # only the last is no int


async def test_who_takes_long_leaves_the_quick_lane_to_others() -> None:
    slots = lanes()
    async with AsyncExitStack() as held:
        async with asyncio.timeout(5):
            for _ in range(3):  # one quick, after two that have gone over
                await held.enter_async_context(slots.hold("a"))
        # The slow lane is full for this key: its last one stays where it is.
        fourth = asyncio.create_task(held.enter_async_context(slots.hold("a")))
        done, _ = await asyncio.wait([fourth], timeout=0.1)
        assert not done
        # And another key has its own.
        async with asyncio.timeout(5):
            await held.enter_async_context(slots.hold("b"))
        fourth.cancel()
        await asyncio.gather(fourth, return_exceptions=True)


async def test_those_that_nobody_knows_leave_a_4th_to_the_proven() -> None:
    slots = lanes(quick=16, quick_of_key=4, slow=100, slow_of_key=100, slow_after_s=60)
    async with AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(slots.hold("a"))
        unknown = asyncio.create_task(held.enter_async_context(slots.hold("a")))
        done, _ = await asyncio.wait([unknown], timeout=0.05)
        assert not done
        async with asyncio.timeout(5), slots.hold("a", proven=True):
            pass
        unknown.cancel()
        await asyncio.gather(unknown, return_exceptions=True)
        # Of all keys together too: 12 of 16.
        for key in "bbbcccddd":
            await held.enter_async_context(slots.hold(key))
        unknown = asyncio.create_task(held.enter_async_context(slots.hold("e")))
        done, _ = await asyncio.wait([unknown], timeout=0.05)
        assert not done
        async with asyncio.timeout(5), slots.hold("e", proven=True):
            pass
        unknown.cancel()
        await asyncio.gather(unknown, return_exceptions=True)


async def test_the_slow_lane_is_bounded_over_all_keys() -> None:
    slots = lanes(quick=10, quick_of_key=10, slow=1, slow_of_key=10)
    async with AsyncExitStack() as held:
        for key in "abc":
            await held.enter_async_context(slots.hold(key))
        await asyncio.sleep(0.1)
        assert not slots.change_lane("d")


async def test_both_lanes_are_empty_when_all_have_left() -> None:
    slots = lanes(slow_after_s=0.001)
    for pause_s in (0.0, 0.02, 0.02, 0.02):
        async with slots.hold("a"):
            await asyncio.sleep(pause_s)
    async with asyncio.timeout(5), AsyncExitStack() as held:
        for key in "abab":
            await held.enter_async_context(slots.hold(key))


async def test_who_stops_waiting_for_a_lane_takes_no_slot_with_him() -> None:
    slots = lanes(quick=1, slow_after_s=60)
    async with slots.hold("a"):
        waiting = [asyncio.create_task(_pass(slots, key)) for key in "ab"]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with asyncio.timeout(5):
        await _pass(slots, "a")
        await _pass(slots, "b")


async def _pass(slots: Lanes, key: str) -> None:
    async with slots.hold(key):
        pass


def test_a_share_grows_with_quick_successes_and_shrinks_with_what_is_slow() -> None:
    shares = Shares(first=4, slow=8, most=64)
    assert shares.room("a") == 4
    for expected in (8, 16, 32, 64, 64):
        shares.note("a", slow=False, failed=False)
        assert shares.room("a") == expected
    shares.note("a", slow=False, failed=True)
    assert shares.room("a") == 64
    shares.note("a", slow=True, failed=False)
    assert shares.room("a") == 8
    shares.note("a", slow=True, failed=True)
    assert (shares.room("a"), shares.room("b")) == (1, 4)


def test_who_answered_quickly_the_last_time_is_quick() -> None:
    shares = Shares(first=4, slow=8, most=64)
    assert not shares.quick("a")
    for slow, failed in ((False, False), (True, False), (False, True), (False, False)):
        shares.note("a", slow=slow, failed=failed)
        assert shares.quick("a") is (not slow and not failed)


def test_a_share_is_topped_up_when_it_has_come_down_to_half() -> None:
    shares = Shares(first=4, slow=8, most=64)
    for _ in range(4):
        shares.take("a")
    assert shares.room("a") == 0
    assert [shares.give_back("a") for _ in range(4)] == [False, True, False, False]
    for _ in range(4):
        shares.take("a")
    shares.note("a", slow=False, failed=False)  # a share of 8 has room at 4
    assert [shares.give_back("a"), shares.room("a")] == [True, 5]


def test_what_is_known_of_keys_is_bounded() -> None:
    shares = Shares(first=4, slow=8, most=64)
    for number in range(Shares.REMEMBERED_MAX + 1):
        shares.note(str(number), slow=True, failed=True)
    assert (shares.room("0"), shares.room("1")) == (4, 1)
