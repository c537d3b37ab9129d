"""What has to be sent is written in the transaction that decides it, and sent until it has arrived.

A relay publishes what is new, asks the consumer's inbox which messages it lacks, publishes those
again, and confirms the others. So a message survives a crash of the sender, an outage of NATS and
the loss of everything NATS had stored; the inbox makes sure that it is applied once.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy import (
    Column,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Text,
    any_,
    delete,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1 import events_pb2

from services.kit import faults
from services.kit.database import Database
from services.kit.errors import UnavailableError
from services.kit.messaging import SENT_AGAIN, Messaging
from services.kit.waiting import happens

log = structlog.get_logger()

PENDING_MAX = 1_000
LOAD_MAX = 50
POLL_BUSY_S = 0.2
POLL_IDLE_S = 1.0
ASK_TIMEOUT_S = 5.0
# A message that the consumer lacks may only be queued: it is sent again after 5 s, 10 s, .. 40 s.
REPUBLISH_AFTER_S = 5.0
REPUBLISH_AFTER_MAX_S = 40.0
PUBLISHED_REMEMBERED_MAX = 50_000


def outbox_table(metadata: MetaData, name: str = "outbox") -> Table:
    """The outbox of a service for one consumer: rows leave it when the consumer has them."""
    return Table(
        name,
        metadata,
        Column("message_id", Text, primary_key=True),
        Column("subject", Text, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


async def add_to_outbox(
    connection: AsyncConnection, table: Table, *, message_id: str, subject: str, payload: bytes
) -> None:
    """Write a message in the caller's transaction; wake the relay after the commit."""
    await connection.execute(
        table.insert().values(message_id=message_id, subject=subject, payload=payload)
    )


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A message to publish."""

    message_id: str
    subject: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message whose consumer has not confirmed it, and how long ago it was written.

    `anyones`: whichever replica sees it first sends it; otherwise it is for the one that wrote it.
    """

    message_id: str
    age_s: float
    anyones: bool = False


class OutboxSource(Protocol):
    """Where a relay finds what is to be sent."""

    async def pending(self, limit: int) -> list[PendingMessage]:
        """Messages that are not confirmed, oldest first."""

    async def load(self, message_ids: Sequence[str]) -> list[OutboxMessage]:
        """Their contents."""

    async def confirm(self, message_ids: Sequence[str]) -> None:
        """The consumer has them."""


class TableOutbox:
    """An OutboxSource over `outbox_table`. `anyones`: whichever replica sees a message sends it,
    so that nobody has to wake the relay.
    """

    def __init__(self, database: Database, table: Table, *, anyones: bool = False) -> None:
        self._database = database
        self._table = table
        self._anyones = anyones

    async def pending(self, limit: int) -> list[PendingMessage]:
        """Messages that are not confirmed, oldest first."""
        age = func.extract("epoch", func.now() - self._table.c.create_time)
        query = (
            select(self._table.c.message_id, age)
            .order_by(self._table.c.create_time, self._table.c.message_id)
            .limit(limit)
        )
        async with self._database.transaction() as connection:
            rows = await connection.execute(query)
            return [
                PendingMessage(message_id, float(seconds), self._anyones)
                for message_id, seconds in rows
            ]

    async def load(self, message_ids: Sequence[str]) -> list[OutboxMessage]:
        """Their contents."""
        columns = self._table.c
        query = (
            select(columns.message_id, columns.subject, columns.payload)
            .where(columns.message_id == any_(literal(list(message_ids), ARRAY(Text))))
            .order_by(columns.create_time, columns.message_id)
        )
        async with self._database.transaction() as connection:
            return [OutboxMessage(*row) for row in await connection.execute(query)]

    async def confirm(self, message_ids: Sequence[str]) -> None:
        """The consumer has them: they leave the table."""
        async with self._database.transaction() as connection:
            ids = any_(literal(list(message_ids), ARRAY(Text)))
            await connection.execute(delete(self._table).where(self._table.c.message_id == ids))


@dataclass(slots=True)
class _Published:
    """When this process published a message last, and how often."""

    at_s: float
    times: int = 1

    def due(self, now_s: float) -> bool:
        wait_s = min(REPUBLISH_AFTER_S * (1 << min(self.times - 1, 8)), REPUBLISH_AFTER_MAX_S)
        return now_s - self.at_s >= wait_s


class OutboxRelay:
    """Sends what the source holds to `consumer`, whose process calls inbox.serve_inbox."""

    def __init__(self, source: OutboxSource, messaging: Messaging, consumer: str) -> None:
        self._source = source
        self._messaging = messaging
        self._consumer = consumer
        self._wake = asyncio.Event()
        self._woken = False
        self._published: dict[str, _Published] = {}

    def wake(self) -> None:
        """A transaction with messages has committed: publish without waiting for the next round."""
        self._woken = True
        self._wake.set()

    def mark_published(self, message_id: str) -> None:
        """The caller has published this message itself."""
        self._published[message_id] = _Published(time.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Relay until cancelled."""
        while True:
            try:
                busy = await self._round()
            except UnavailableError as error:
                log.debug("outbox_waits", consumer=self._consumer, error=error.message)
                busy = True
            if busy:
                await asyncio.sleep(POLL_BUSY_S)
            await happens(self._wake, POLL_BUSY_S if busy else POLL_IDLE_S)
            self._wake.clear()

    async def _round(self) -> bool:
        """Publish, ask, confirm. Returns whether anything is still pending."""
        woken, self._woken = self._woken, False
        pending = await self._source.pending(PENDING_MAX)
        if not pending:
            self._published.clear()
            return False
        now_s = time.monotonic()
        # What was just committed here goes out at once; what another replica has committed is
        # its own to publish, unless it has been waiting for long.
        fresh = [
            message.message_id
            for message in pending
            if message.message_id not in self._published
            and (woken or message.anyones or message.age_s >= REPUBLISH_AFTER_S)
        ]
        await self._publish(fresh)
        missing = await self._find_missing([message.message_id for message in pending])
        if missing is None:
            return True
        if faults.seeded(faults.Fault.DROPPED_OUTBOX_ROW):
            missing.clear()
        arrived = [m.message_id for m in pending if m.message_id not in missing]
        if arrived:
            await self._source.confirm(arrived)
        for message_id in arrived:
            self._published.pop(message_id, None)
        lost = [
            message_id
            for message_id in missing
            if (entry := self._published.get(message_id)) is not None and entry.due(now_s)
        ]
        await self._publish(lost)
        self._forget_old()
        return bool(missing)

    async def _publish(self, message_ids: Sequence[str]) -> None:
        for start in range(0, len(message_ids), LOAD_MAX):
            chunk = message_ids[start : start + LOAD_MAX]
            for message in await self._source.load(chunk):
                entry = self._published.get(message.message_id)
                # A second sending must get past JetStream's own recognition of duplicates.
                suffix = f"{SENT_AGAIN}{time.time_ns()}" if entry else ""
                await self._messaging.publish(
                    message.subject, message.payload, message.message_id + suffix
                )
                times = entry.times + 1 if entry else 1
                self._published[message.message_id] = _Published(time.monotonic(), times)
                if suffix:
                    log.info("message_sent_again", message_id=message.message_id, times=times)

    async def _find_missing(self, message_ids: Sequence[str]) -> set[str] | None:
        """What the consumer's inbox lacks; None when no consumer answers."""
        request = events_pb2.FindMissingMessagesRequest(message_ids=message_ids)
        try:
            answer = await self._messaging.request(
                f"usageflow.inbox.{self._consumer}", request.SerializeToString(), ASK_TIMEOUT_S
            )
        except UnavailableError:
            return None
        response = events_pb2.FindMissingMessagesResponse.FromString(answer)
        return set(response.missing_message_ids)

    def _forget_old(self) -> None:
        """Messages that another replica has confirmed leave our memory too."""
        excess = len(self._published) - PUBLISHED_REMEMBERED_MAX
        for message_id in list(self._published)[: max(excess, 0)]:
            del self._published[message_id]
