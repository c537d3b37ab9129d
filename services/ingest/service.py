"""What ingest can be asked to do."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime

from services.ingest import repository
from services.ingest.domain import (
    NOTHING_RECORDED,
    EventFilter,
    EventPosition,
    Recorded,
    StoredEvent,
    Tenant,
)
from services.ingest.events import Events
from services.ingest.queue import EventQueue
from services.kit import pages
from services.kit.database import Database
from services.kit.errors import NotFoundError
from services.kit.events import EVENT_ID_BYTES, event_ids, parse_event_id


class Ingest:
    """The use cases; whoever calls has been authenticated."""

    def __init__(self, database: Database, queue: EventQueue) -> None:
        self._database = database
        self._queue = queue

    def record(self, events: Events, size_bytes: int) -> Awaitable[Recorded]:
        """Store valid events; what is awaited comes once they are durable, and tells which were
        not accepted.

        OverloadedError, at once: nothing is stored. UnavailableError: perhaps they are stored; the
        same events again are safe when they have idempotency keys.
        """
        if events:
            return self._queue.put(events, size_bytes)
        nothing: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        nothing.set_result(NOTHING_RECORDED)
        return nothing

    def require_room(self, events: int) -> None:
        """OverloadedError when `record` has no room for so many events now."""
        self._queue.require_room(events)

    async def room(self, events: int, size_bytes: int) -> None:
        """Return when `record` would take a call of this size."""
        await self._queue.room(events, size_bytes)

    async def get_event(self, tenant: Tenant, event_id: str) -> StoredEvent:
        """One of the tenant's events; NotFoundError."""
        event_id_bytes = parse_event_id(event_id)
        found = None
        if event_id_bytes is not None:
            async with self._database.transaction() as connection:
                found = await repository.find_event(connection, tenant, event_id_bytes)
        if found is None:
            raise NotFoundError("No such event")
        return found

    async def list_events(
        self, tenant: Tenant, wanted: EventFilter, page_size: int, page_token: str
    ) -> tuple[list[StoredEvent], str]:
        """A page of the tenant's events, newest first by when they happened, and the next page's
        token ("" after the last).
        """
        limit = pages.page_limit(page_size)
        after = read_position(page_token) if page_token else None
        if wanted.idempotency_key is not None:
            return await self._sent_with(wanted.idempotency_key, tenant, wanted), ""
        async with self._database.transaction() as connection:
            events = await repository.list_events(connection, tenant, wanted, after, limit + 1)
        if len(events) <= limit:
            return events, ""
        last = events[limit - 1]
        return events[:limit], position_token(last)

    async def _sent_with(
        self, idempotency_key: str, tenant: Tenant, wanted: EventFilter
    ) -> list[StoredEvent]:
        event_id_bytes = event_ids(*tenant)(idempotency_key.encode())
        async with self._database.transaction() as connection:
            found = await repository.find_event(connection, tenant, event_id_bytes)
        return [found] if found is not None and wanted.has(found) else []

    async def watermark(self) -> repository.Watermark:
        """Up to when everything that was committed has been applied."""
        async with self._database.transaction() as connection:
            return await repository.watermark(connection)


def position_token(last: StoredEvent) -> str:
    """What read_position() reads: the place after a page's last event."""
    return pages.encode_token(last.event_time.isoformat(), last.event_id.hex())


def read_position(page_token: str) -> EventPosition:
    """Where a page of a list goes on; InvalidArgumentError for a token that is none."""
    time_text, event_id_text = pages.decode_token(page_token, 2)
    try:
        position = EventPosition(
            datetime.fromisoformat(time_text).astimezone(UTC), bytes.fromhex(event_id_text)
        )
    except (ValueError, OverflowError):
        raise pages.invalid_token() from None
    if len(position.event_id) != EVENT_ID_BYTES:
        raise pages.invalid_token()
    return position
