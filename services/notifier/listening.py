"""Streams the events of a test-mode organization to a developer's machine.

The database is the source, not the process that took an event: it does not matter which replica a
developer is connected to, and nothing is missed while NATS is away.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, OverloadedError, PreconditionError
from services.notifier import endpoint_checks, filters, repository, signing
from services.notifier.repository import TakenEvent

LISTENERS_MAX = 100  # in this process
LISTENERS_OF_TENANT_MAX = 5
POLL_S = 0.5
EVENTS_PER_POLL_MAX = 200
SIGN_OF_LIFE_S = 15.0
# Who reads by time must look back: a transaction may commit after one that began later.
LOOK_BACK = timedelta(seconds=10)
# A key may be revoked meanwhile: the developer's command then calls again, and is refused.
STREAM_S_MAX = 3_600.0


@dataclass(frozen=True, slots=True)
class Listened:
    """An event with the headers of its webhook."""

    event: TakenEvent
    timestamp_s: int
    signature: str


class Listening:
    """Who listens in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: dict[TenantKey, int] = {}

    @contextmanager
    def _listener(self, tenant: TenantKey) -> Iterator[None]:
        of_tenant = self._listeners.get(tenant, 0)
        if of_tenant >= LISTENERS_OF_TENANT_MAX or sum(self._listeners.values()) >= LISTENERS_MAX:
            raise OverloadedError("Too many listen already", retry_after_s=SIGN_OF_LIFE_S)
        self._listeners[tenant] = of_tenant + 1
        try:
            yield
        finally:
            self._listeners[tenant] -= 1
            if not self._listeners[tenant]:
                del self._listeners[tenant]

    async def listen(
        self, tenant: TenantKey, patterns: Sequence[str]
    ) -> AsyncIterator[str | Listened | None]:
        """The secret of this stream, then events as they come; None is a sign of life.

        PreconditionError in live mode, OverloadedError when too many listen.
        """
        if tenant.mode != "test":
            raise PreconditionError(
                "Only events of the test mode can be listened to", reason="test_mode_only"
            )
        checks = FieldChecks()
        endpoint_checks.check_event_types(checks, patterns)
        checks.done()
        with self._listener(tenant):
            key = signing.make_key(signing.HMAC)
            seen: dict[str, datetime] = {}
            loop = asyncio.get_running_loop()
            ends_s, alive_s = loop.time() + STREAM_S_MAX, loop.time()
            async with self._database.transaction() as connection:
                start = since = await repository.database_time(connection)
            yield key.secret
            while loop.time() < ends_s:
                for event in await self._next(tenant, max(start, since - LOOK_BACK), seen):
                    since = max(since, event.take_time)
                    if filters.takes(patterns, event.type):
                        alive_s = loop.time()
                        yield _signed(key, event)
                if loop.time() - alive_s >= SIGN_OF_LIFE_S:
                    alive_s = loop.time()
                    yield None
                await asyncio.sleep(POLL_S)

    async def _next(
        self, tenant: TenantKey, begin: datetime, seen: dict[str, datetime]
    ) -> list[TakenEvent]:
        """Events taken from `begin` on that this listener has not had, noted in `seen`."""
        for event_id in [known for known, time in seen.items() if time < begin]:
            del seen[event_id]
        async with self._database.transaction() as connection:
            found = await repository.events_taken_since(
                connection, tenant, begin, known=list(seen), limit=EVENTS_PER_POLL_MAX
            )
        seen.update((event.id, event.take_time) for event in found)
        return found


def _signed(key: signing.SigningKey, event: TakenEvent) -> Listened:
    timestamp_s = int((clock.now() - clock.offset()).timestamp())
    signature = signing.signature_header([key], event.id, timestamp_s, event.body)
    return Listened(event, timestamp_s, signature)
