import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from services.kit.waiting import cancellable, happens


async def test_what_has_happened_is_told_at_once() -> None:
    event = asyncio.Event()
    event.set()
    assert await happens(event, 60.0)


async def test_what_does_not_happen_ends_in_time() -> None:
    assert not await happens(asyncio.Event(), 0.01)


async def test_what_a_call_returns_and_raises_is_kept() -> None:
    async def answer() -> str:
        return "stored"

    async def fail() -> None:
        raise OSError

    assert await cancellable(answer()) == "stored"
    with pytest.raises(OSError):
        await cancellable(fail())


async def test_a_deadline_that_a_library_forgets_is_kept() -> None:
    async def forgetful() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60.0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await cancellable(forgetful())


async def as_a_library(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 60.0)


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize(
    "wait",
    [lambda event: happens(event, 60.0), lambda event: cancellable(as_a_library(event))],
    ids=["happens", "cancellable"],
)
async def test_a_loop_ends_whenever_it_is_cancelled_after_its_event(
    turns: int, wait: Callable[[asyncio.Event], Awaitable[object]]
) -> None:
    event = asyncio.Event()
    ended = asyncio.Event()

    async def loop() -> None:
        try:
            while True:
                event.clear()
                await wait(event)
        finally:
            ended.set()

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    event.set()
    for _turn in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    assert await happens(ended, 5.0)
    with contextlib.suppress(asyncio.CancelledError):
        await task
