"""Which events were in a figure."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from services.ingest.counted.repository import (
    CountedEvent,
    CountedFilter,
    are_dropped,
    list_counted_events,
    stream_counted_amounts,
)
from services.ingest.service import position_token, read_position
from services.kit import pages
from services.kit.database import Database

PAGE_SIZE_MAX = 2_000
AMOUNTS_PER_MESSAGE_MAX = 2_000
# Each holds one of the pool's connections; others wait their turn.
LISTS_RUNNING_MAX = 2
# One of them may be a stream, which is as long as there are events.
STREAMS_RUNNING_MAX = 1


@dataclass(frozen=True, slots=True)
class CountedPage:
    """Events, newest first, and the next page's token ("" after the last).

    `dropped`: others may have been in the figures, on this page or another, and are gone.
    """

    events: list[CountedEvent]
    next_token: str
    dropped: bool


class CountedEvents:
    """Answers a few lists and streams at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running = asyncio.Semaphore(LISTS_RUNNING_MAX)
        self._streaming = asyncio.Semaphore(STREAMS_RUNNING_MAX)

    async def list_counted_events(
        self, wanted: CountedFilter, page_size: int, page_token: str
    ) -> CountedPage:
        """A page of events."""
        limit = pages.page_limit(page_size, size_max=PAGE_SIZE_MAX)
        after = read_position(page_token) if page_token else None
        async with self._running, self._database.transaction() as connection:
            found = await list_counted_events(connection, wanted, after, limit + 1)
            # After the events: what goes in between is told.
            dropped = await are_dropped(connection, wanted)
        is_last = len(found) <= limit
        token = "" if is_last else position_token(found[limit - 1].event)
        return CountedPage(found[:limit], token, dropped)

    async def stream_amounts(self, wanted: CountedFilter) -> AsyncGenerator[list[str]]:
        """The amounts of the events in a figure, oldest first, none of the parts empty."""
        async with self._streaming, self._running, self._database.transaction() as connection:
            parts = stream_counted_amounts(connection, wanted, AMOUNTS_PER_MESSAGE_MAX)
            async with aclosing(parts):
                async for part in parts:
                    yield part
