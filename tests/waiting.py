"""Waiting for what nothing tells a test: the state of another process, or of a database."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

POLL_S = 0.02
WAIT_S_MAX = 60.0


async def until(
    what: str, arrived: Callable[[], object | Awaitable[object]], wait_s: float = WAIT_S_MAX
) -> None:
    """Return when `arrived()` is true; AssertionError after `wait_s` seconds.

    Where the test's own process can tell, await an asyncio.Event instead.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + wait_s
    while True:
        answer = arrived()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        assert loop.time() < deadline_s, f"{what} did not come within {wait_s} s"
        await asyncio.sleep(POLL_S)
