import asyncio
import contextlib

import pytest

from services.kit.waiting import happens


async def test_what_has_happened_is_told_at_once() -> None:
    event = asyncio.Event()
    event.set()
    assert await happens(event, 60.0)


async def test_what_does_not_happen_ends_in_time() -> None:
    assert not await happens(asyncio.Event(), 0.01)


@pytest.mark.parametrize("turns", range(5))
async def test_a_loop_ends_whenever_it_is_cancelled_after_its_event(turns: int) -> None:
    event = asyncio.Event()
    ended = asyncio.Event()

    async def loop() -> None:
        try:
            while True:
                event.clear()
                await happens(event, 60.0)
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
