"""What is in an outbox arrives at the consumer's inbox, whatever becomes of NATS."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from nats.aio.msg import Msg
from sqlalchemy import MetaData, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cli.embedded import EmbeddedNats
from services.kit import outbox as outbox_module
from services.kit.database import Database, metadata_naming
from services.kit.inbox import inbox_table, serve_inbox, take_new
from services.kit.messaging import BILLING, Messaging
from services.kit.outbox import OutboxRelay, TableOutbox, add_to_outbox, outbox_table

SUBJECT = "usageflow.billing.event"
WAIT_S = 30

metadata = MetaData(naming_convention=metadata_naming)
OUTBOX = outbox_table(metadata)
INBOX = inbox_table(metadata)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield database
    await database.close()


class Watched(TableOutbox):
    """An outbox that tells the test when messages have left it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, OUTBOX)
        self.confirmed = asyncio.Event()

    async def confirm(self, message_ids: Sequence[str]) -> None:
        await super().confirm(message_ids)
        self.confirmed.set()


@dataclass
class Pair:
    """A sender with its relay and a consumer with its inbox, in one database."""

    database: Database
    messaging: Messaging
    outbox: Watched
    relay: OutboxRelay
    applied: list[str]

    async def handle(self, messages: list[Msg]) -> None:
        ids = [message.data.decode() for message in messages]
        async with self.database.transaction() as connection:
            new = await take_new(connection, INBOX, ids)
        self.applied += sorted(new)

    async def send(self, *message_ids: str) -> None:
        async with self.database.transaction() as connection:
            for message_id in message_ids:
                await self.add(connection, message_id)
        self.relay.wake()

    async def add(self, connection: AsyncConnection, message_id: str) -> None:
        await add_to_outbox(
            connection, OUTBOX, message_id=message_id, subject=SUBJECT, payload=message_id.encode()
        )

    async def until_empty(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while await self.left():
                await self.outbox.confirmed.wait()
                self.outbox.confirmed.clear()

    async def left(self) -> int:
        async with self.database.transaction() as connection:
            return int(await connection.scalar(select(func.count()).select_from(OUTBOX)) or 0)


@pytest.fixture
async def pair(
    database: Database, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    # Waits that are right in production would only make these tests slow.
    monkeypatch.setattr(outbox_module, "REPUBLISH_AFTER_S", 0.5)
    messaging = await Messaging.connect(nats_url, "test")
    outbox = Watched(database)
    relay = OutboxRelay(outbox, messaging, "tester")
    pair = Pair(database, messaging, outbox, relay, [])
    await serve_inbox(database, INBOX, messaging, "tester")
    consumer = messaging.consume(BILLING, "tester", pair.handle, batch_max=16)
    tasks = [asyncio.create_task(relay.run()), asyncio.create_task(consumer.run())]
    yield pair
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await messaging.close()


async def test_message_is_applied_and_leaves_the_outbox(pair: Pair) -> None:
    await pair.send("a", "b")
    await pair.until_empty()
    assert sorted(pair.applied) == ["a", "b"]


async def test_message_of_a_rolled_back_transaction_is_never_sent(pair: Pair) -> None:
    with pytest.raises(RuntimeError):
        async with pair.database.transaction() as connection:
            await pair.add(connection, "never")
            raise RuntimeError
    await pair.send("sent")
    await pair.until_empty()
    assert pair.applied == ["sent"]


async def test_message_that_was_written_before_a_crash_is_sent_by_the_next_process(
    pair: Pair,
) -> None:
    async with pair.database.transaction() as connection:
        await pair.add(connection, "left behind")
    # Nobody woke the relay: it finds the row by itself.
    await pair.until_empty()
    assert pair.applied == ["left behind"]


async def test_messages_sent_while_nats_is_down_arrive_later(
    pair: Pair, nats_server: EmbeddedNats
) -> None:
    nats_server.stop()
    try:
        await pair.send(*(f"m{number}" for number in range(20)))
        assert await pair.left() == 20
    finally:
        nats_server.start()
        await nats_server.ready()
    await pair.until_empty()
    assert sorted(pair.applied) == sorted(f"m{number}" for number in range(20))


async def test_nothing_is_lost_or_doubled_when_nats_loses_its_store(
    pair: Pair, nats_server: EmbeddedNats
) -> None:
    sent = []
    for number in range(60):
        sent.append(f"m{number:02}")
        await pair.send(sent[-1])
        if number == 30:
            nats_server.stop()
            shutil.rmtree(nats_server.directory / "jetstream")
            nats_server.start()
            await nats_server.ready()
    await pair.until_empty()
    assert sorted(pair.applied) == sent


async def test_same_message_is_new_to_one_of_many_transactions_only(database: Database) -> None:
    async def take() -> set[str]:
        async with database.transaction() as connection:
            return await take_new(connection, INBOX, ["x", "y"])

    taken = await asyncio.gather(*(take() for _ in range(20)))
    assert sorted(id_ for ids in taken for id_ in ids) == ["x", "y"]
