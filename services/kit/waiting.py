"""Waiting that does not forget to be cancelled, as asyncio.wait_for does in Python 3.11.

What comes in the same moment as a cancellation makes wait_for return it and forget that it was told
to end: a loop goes on, and whoever has cancelled it waits for its end.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def happens(event: asyncio.Event, within_s: float) -> bool:
    """Return when `event` is set, True, or after `within_s` seconds, False."""
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False


async def cancellable(call: Awaitable[T]) -> T:
    """What `call` returns or raises; CancelledError when the task was cancelled meanwhile.

    For the calls of a library that uses asyncio.wait_for, as nats-py does.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await call
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError
