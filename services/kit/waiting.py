"""Waiting for an event, for a bounded time."""

import asyncio


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Return when `event` is set, True, or after `within_s` seconds, False.

    asyncio.wait_for does the same, but in Python 3.11 it forgets to be cancelled when the event was
    set at the same moment: a loop goes on that was told to end.
    """
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False
