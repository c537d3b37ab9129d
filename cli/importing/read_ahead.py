"""Reads a file in a thread, so that a slow pipe holds up no answer and no retry."""

import asyncio
import threading
import zlib
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from cli.importing.batches import Batch
from cli.importing.errors import ImportStoppedError

BATCHES_AHEAD_MAX: Final = 2


async def read_ahead(batches: Iterator[Batch]) -> AsyncGenerator[Batch, None]:
    """The batches, up to two of them read before they are asked for.

    ImportStoppedError when the file can't be read on.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Batch | Exception | None] = asyncio.Queue(BATCHES_AHEAD_MAX)

    stopped = threading.Event()

    def put(item: Batch | Exception | None) -> None:
        if not stopped.is_set():
            asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()

    def read() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except Exception as error:
            put(error)

    # A daemon: who waits at a pipe for ever must not keep the process from ending.
    threading.Thread(target=read, daemon=True).start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, OSError | EOFError | zlib.error):
                raise ImportStoppedError(f"the file can't be read on: {item}") from item
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        # Whoever waits for room in the queue goes on, and sees that nobody wants more.
        stopped.set()
        while not queue.empty():
            queue.get_nowait()
