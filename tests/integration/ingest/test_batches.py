"""Batches reach aggregator whatever NATS does, and the watermark never runs ahead of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from nats.aio.msg import Msg
from usageflow.events.v1 import events_pb2

from services.ingest.batches import BATCH_SUBJECT, LOAD_EVENTS_MAX
from services.kit import clock
from services.kit.events import parse_event_id
from services.kit.messaging import EVENTS, Messaging
from services.kit.outbox import OutboxMessage
from tests.columns import events_of
from tests.integration.ingest.conftest import Start
from tests.integration.ingest.instance import ACME_TEST, OTHER, Instance, event
from tests.waiting import until

WAIT_S = 20.0


class Aggregator:
    """Stands in for aggregator: applies batches when it is told to, answers for its inbox."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging
        self.received: list[OutboxMessage] = []
        self.applied: set[str] = set()
        self.applies = True
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        """Begin to answer; JetStream subscriptions see every message of the stream."""
        await self._messaging.on_request("usageflow.inbox.aggregator", "aggregator", self._missing)
        await self._messaging.ensure_stream(EVENTS)
        await self._messaging.client.jetstream().subscribe(BATCH_SUBJECT, cb=self._receive)

    async def _receive(self, message: Msg) -> None:
        batch = events_pb2.EventBatch.FromString(message.data)
        self.received.append(OutboxMessage(batch.batch_id, message.subject, message.data))
        async with self._changed:
            if self.applies:
                self.applied.add(batch.batch_id)
            self._changed.notify_all()

    async def _missing(self, request: bytes) -> bytes:
        asked = events_pb2.FindMissingMessagesRequest.FromString(request).message_ids
        missing = [message_id for message_id in asked if message_id not in self.applied]
        return events_pb2.FindMissingMessagesResponse(
            missing_message_ids=missing
        ).SerializeToString()

    async def wait_for(self, messages: int) -> None:
        """Return when so many messages have come."""
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.received) >= messages)

    def events(self) -> list[bytes]:
        """The ids of all events of all batches applied."""
        batches = {m.message_id: m for m in self.received if m.message_id in self.applied}
        return [
            stored.event_id
            for message in batches.values()
            for stored in events_of(events_pb2.EventBatch.FromString(message.payload))
        ]


@pytest.fixture
async def messaging(nats_url: str) -> AsyncIterator[Messaging]:
    """A connection to NATS."""
    connection = await Messaging.connect(nats_url, "test")
    yield connection
    await connection.close()


@pytest.fixture
async def aggregator(messaging: Messaging) -> Aggregator:
    """A stand-in for aggregator."""
    stand_in = Aggregator(messaging)
    await stand_in.start()
    return stand_in


async def all_applied(ingest: Instance) -> None:
    """Return when every batch is confirmed."""

    async def none_is_left() -> bool:
        return not await ingest.outbox.pending(1)

    await until("the confirmation", none_is_left, WAIT_S)


async def test_a_batch_is_published_at_once_and_confirmed_soon(
    start: Start, messaging: Messaging, aggregator: Aggregator
) -> None:
    ingest = await start(messaging=messaging)
    await ingest.record(event("warm"))
    await all_applied(ingest)
    before = clock.now()
    await ingest.record(event("k"))
    await all_applied(ingest)
    assert clock.now() - before < timedelta(seconds=2)
    assert len(aggregator.received) == 2


async def test_a_rebuilt_batch_equals_the_one_that_was_published(
    start: Start, messaging: Messaging, aggregator: Aggregator
) -> None:
    ingest = await start(messaging=messaging, committers=1)
    content = [
        event(amount="0"),
        event(amount="12345678901234567890123456.000000000001"),
        event(amount="1.50", customer_id="\u00e9\u4e2d"),
        event("k", metadata_json=' {"model": "gpt-4",\n "n": 1} ', at_micros=1_000_001),
        *(event(str(number)) for number in range(50)),
    ]
    content[3].time.FromDatetime(clock.now() - timedelta(days=3, microseconds=1))
    calls = [ingest.record(*content)]
    calls += [ingest.record(*content, tenant=tenant) for tenant in (OTHER, ACME_TEST)]
    await asyncio.gather(*calls)
    # Through the merge as well: what is known is not published again.
    await ingest.record(event("k", amount="9"), event("new"), event("new"), event("newer"))
    await all_applied(ingest)
    published = {message.message_id: message for message in aggregator.received}
    rebuilt = await ingest.outbox.load(list(published))
    assert {message.message_id: message for message in rebuilt} == published
    assert len(aggregator.events()) == await ingest.count() == 3 * 54 + 2


async def test_a_batch_tells_of_its_events_in_the_words_of_the_proto(
    start: Start, messaging: Messaging, aggregator: Aggregator
) -> None:
    ingest = await start(messaging=messaging)
    at = int(clock.now().timestamp()) * 10**6 - 5
    sent = event("k", amount="1.50", customer_id="c", metadata_json='{"a":1}', at_micros=at)
    [receipt] = await ingest.record(sent, tenant=ACME_TEST)
    await aggregator.wait_for(1)
    batch = events_pb2.EventBatch.FromString(aggregator.received[0].payload)
    [(batch_id, accept_time)] = await ingest.sql("SELECT batch_id, accept_time FROM event_batches")
    assert batch.batch_id == str(batch_id)
    assert batch.accept_time.ToDatetime(accept_time.tzinfo) == accept_time
    [tenant] = batch.tenants
    assert (tenant.organization_id, tenant.mode) == (f"org_{b'acme'.hex() * 4}", 2)
    assert events_of(batch) == [
        events_pb2.UsageEvent(
            event_id=parse_event_id(receipt.event_id) or b"",
            metric="API_CALL",
            amount="1.5",
            customer_id="c",
            time_unix_micros=at,
            metadata_json='{"a":1}',
        )
    ]


async def test_what_the_publisher_had_to_drop_is_sent_by_the_relay(
    start: Start, messaging: Messaging, aggregator: Aggregator
) -> None:
    ingest = await start(messaging=messaging, publish_events_queued_max=1)
    await ingest.record(*(event(str(number)) for number in range(10)))
    await aggregator.wait_for(1)
    await all_applied(ingest)
    assert len(aggregator.events()) == 10


async def test_what_an_instance_stored_before_it_died_is_sent_by_the_next(
    start: Start, messaging: Messaging, aggregator: Aggregator
) -> None:
    without_nats = await start()
    await without_nats.record(event("k"), event("l"))
    ingest = await start(messaging=messaging)
    await aggregator.wait_for(1)
    await all_applied(ingest)
    assert len(aggregator.events()) == 2


async def test_a_batch_that_the_consumer_lacks_is_sent_again(
    start: Start, messaging: Messaging, aggregator: Aggregator
) -> None:
    aggregator.applies = False
    ingest = await start(messaging=messaging)
    await ingest.record(event("k"))
    await aggregator.wait_for(1)
    aggregator.applies = True
    await aggregator.wait_for(2)
    await all_applied(ingest)
    assert len({message.payload for message in aggregator.received}) == 1


async def test_while_nats_is_away_events_are_acknowledged_and_the_watermark_waits(
    ingest: Instance,
) -> None:
    await ingest.record(event("k"))
    [(accepted,)] = await ingest.sql("SELECT accept_time FROM event_batches")
    await ingest.record(event("l"))
    assert (await ingest.ingest.watermark()).instant == accepted


async def test_many_pending_batches_are_rebuilt_a_bounded_number_at_a_time(
    ingest: Instance,
) -> None:
    sizes = [4_000, 3_000, 2_000, 1]
    for size in sizes:
        await ingest.record(*(event() for _ in range(size)))
    pending = [message.message_id for message in await ingest.outbox.pending(100)]
    events = 0
    rounds = 0
    while pending:
        loaded = await ingest.outbox.load(pending)
        payloads = [events_pb2.EventBatch.FromString(message.payload) for message in loaded]
        in_round = sum(len(events_of(batch)) for batch in payloads)
        assert in_round <= LOAD_EVENTS_MAX
        events += in_round
        rounds += 1
        await ingest.outbox.confirm([message.message_id for message in loaded])
        pending = [message.message_id for message in await ingest.outbox.pending(100)]
    assert events == sum(sizes)
    assert rounds == 3


async def test_without_unapplied_batches_the_watermark_is_now(ingest: Instance) -> None:
    before = clock.now()
    watermark = await ingest.ingest.watermark()
    assert before <= watermark.instant <= clock.now()
    assert watermark.all_applied


async def test_a_batch_that_is_not_applied_is_told_of(ingest: Instance) -> None:
    await ingest.record(event("a"))
    assert not (await ingest.ingest.watermark()).all_applied
    pending = await ingest.outbox.pending(10)
    await ingest.outbox.confirm([message.message_id for message in pending])
    assert (await ingest.ingest.watermark()).all_applied


async def test_everything_acknowledged_before_the_watermark_has_been_applied(
    start: Start,
) -> None:
    """Under load from two instances, with batches applied late and out of order."""
    instances = [await start(), await start()]
    acknowledged: dict[str, datetime] = {}
    applied: set[str] = set()

    async def send(worker: int) -> None:
        for number in range(25):
            ingest = instances[number % 2]
            receipts = await ingest.record(*(event(f"{worker}-{number}-{n}") for n in range(3)))
            acknowledged.update(dict.fromkeys((r.event_id for r in receipts), clock.now()))

    async def apply() -> None:
        outbox = instances[0].outbox
        while True:
            batches = [message.message_id for message in await outbox.pending(100)][::-2]
            for message in await outbox.load(batches):
                batch = events_pb2.EventBatch.FromString(message.payload)
                ids = (stored.event_id for stored in events_of(batch))
                applied.update(f"evt_{event_id.hex()}" for event_id in ids)
            await outbox.confirm(batches)
            await asyncio.sleep(0)

    applying = asyncio.create_task(apply())
    sending = asyncio.gather(*(send(worker) for worker in range(8)))
    looks = 0
    while not sending.done():
        watermark = await instances[looks % 2].ingest.watermark()
        due = {event_id for event_id, at in acknowledged.items() if at < watermark.instant}
        assert due <= applied
        looks += 1
    await sending
    applying.cancel()
    assert len(acknowledged) == 8 * 25 * 3
    assert looks > 10
