"""Publishes batches from memory right after their commit; nobody waits for it.

What it drops (its queue is full, NATS is away, the process ends) the outbox relay finds among the
unapplied batches and rebuilds from the database.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog
from prometheus_client import Counter

from services.ingest.batches import message_of
from services.ingest.events import StoredBatch
from services.kit.errors import UnavailableError
from services.kit.messaging import Messaging
from services.kit.outbox import OutboxRelay

log = structlog.get_logger()

_BATCHES = Counter("usageflow_ingest_batches", "Batches offered to NATS", ["result"])


class Publisher:
    """A bounded queue of batches on their way to NATS."""

    def __init__(self, messaging: Messaging, relay: OutboxRelay, *, events_max: int) -> None:
        self._messaging = messaging
        self._relay = relay
        self._events_max = events_max
        self._batches: deque[StoredBatch] = deque()
        self._events = 0
        self._offered = asyncio.Event()

    def offer(self, batches: Sequence[StoredBatch]) -> None:
        """Take batches, or drop them when there is no room."""
        for stored in batches:
            events = len(stored.batch.events)
            if self._events + events > self._events_max or not self._messaging.connected:
                _BATCHES.labels("dropped").inc()
                continue
            self._batches.append(stored)
            self._events += events
        if self._batches:
            self._offered.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            while self._batches:
                await self._publish(self._batches.popleft())

    async def _publish(self, stored: StoredBatch) -> None:
        self._events -= len(stored.batch.events)
        message = message_of(stored)
        try:
            await self._messaging.publish(message.subject, message.payload, message.message_id)
        except UnavailableError as error:
            log.debug("batch_dropped", batch_id=message.message_id, error=error.message)
            _BATCHES.labels("dropped").inc()
            return
        _BATCHES.labels("published").inc()
        self._relay.mark_published(message.message_id)
