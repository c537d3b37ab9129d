"""Streams, consumers, broadcasts and requests on a real NATS server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from nats.aio.msg import Msg

from cli.embedded import EmbeddedNats
from services.kit.consumer import (
    HEAVY_BATCH_BYTES,
    HEAVY_GATHER_FACTOR,
    HURRIED_GATHER_S,
    LIGHT_BATCH_BYTES_MAX,
)
from services.kit.errors import UnavailableError
from services.kit.messaging import BILLING, PAYLOAD_BYTES_MAX, Messaging
from tests.waiting import until

SUBJECT = "usageflow.billing.event"
WAIT_S = 15
TIMER_S = 0.01  # how early a timer may be


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Messaging]:
    messaging = await Messaging.connect(url, "test")
    try:
        yield messaging
    finally:
        await messaging.close()


class Collected:
    """A handler that keeps what it gets, and can be told to fail."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.batches: list[int] = []
        self.fail_once_with: set[bytes] = set()
        self._changed = asyncio.Condition()

    async def __call__(self, messages: list[Msg]) -> None:
        for message in messages:
            if message.data in self.fail_once_with:
                if len(messages) == 1:
                    self.fail_once_with.remove(message.data)
                raise ValueError(message.data)
        self.payloads += [message.data for message in messages]
        self.batches.append(len(messages))
        async with self._changed:
            self._changed.notify_all()

    async def until(self, count: int) -> list[bytes]:
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.payloads) >= count)
        return sorted(self.payloads)


@asynccontextmanager
async def consuming(messaging: Messaging, handler: Collected) -> AsyncIterator[None]:
    consumer = messaging.consume(BILLING, "tester", handler, batch_max=16)
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_consumer_gets_what_was_published_before_and_after_it_came(nats_url: str) -> None:
    handler = Collected()
    async with connected(nats_url) as messaging:
        await messaging.publish(SUBJECT, b"before", "m1")
        async with consuming(messaging, handler):
            await handler.until(1)
            await messaging.publish(SUBJECT, b"after", "m2")
            assert await handler.until(2) == [b"after", b"before"]


async def test_same_message_id_is_stored_once(nats_url: str) -> None:
    handler = Collected()
    async with connected(nats_url) as messaging:
        for _ in range(3):
            await messaging.publish(SUBJECT, b"once", "same")
        await messaging.publish(SUBJECT, b"other", "other")
        async with consuming(messaging, handler):
            assert await handler.until(2) == [b"once", b"other"]


async def test_messages_that_have_arrived_are_handled_together(nats_url: str) -> None:
    handler = Collected()
    async with connected(nats_url) as messaging:
        payloads = [f"{number:03}".encode() for number in range(100)]
        for payload in payloads:
            await messaging.publish(SUBJECT, payload, payload.decode())
        async with consuming(messaging, handler):
            assert await handler.until(100) == payloads
    assert max(handler.batches) > 1
    assert max(handler.batches) <= 16


async def test_steady_flow_is_handled_in_fewer_batches_when_the_consumer_gathers(
    nats_url: str,
) -> None:
    handler = Collected()
    async with connected(nats_url) as messaging:
        consumer = messaging.consume(BILLING, "tester", handler, batch_max=50, gather_s=0.2)
        task = asyncio.create_task(consumer.run())
        for number in range(50):
            await messaging.publish(SUBJECT, f"{number:03}".encode(), str(number))
        assert await handler.until(50) == [f"{number:03}".encode() for number in range(50)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    # One for each message without gathering; here one for each 200 ms that the sending took.
    assert len(handler.batches) <= 25


async def test_after_a_heavy_batch_the_next_is_gathered_for_longer(nats_url: str) -> None:
    loop = asyncio.get_running_loop()
    begun: list[float] = []
    handled = asyncio.Event()

    async def handler(_messages: Sequence[Msg]) -> None:
        begun.append(loop.time())
        handled.set()

    async with connected(nats_url) as messaging:
        consumer = messaging.consume(BILLING, "tester", handler, batch_max=50, gather_s=0.2)
        task = asyncio.create_task(consumer.run())
        start_s = loop.time()
        for payload in (b"light", bytes(HEAVY_BATCH_BYTES), b"light"):
            handled.clear()
            await messaging.publish(SUBJECT, payload, str(len(begun)))
            async with asyncio.timeout(WAIT_S):
                await handled.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    _, second, third = (begun_s - start_s + TIMER_S for begun_s in begun)
    assert second >= 0.2
    assert third >= 0.2 + HEAVY_GATHER_FACTOR * 0.2


async def seconds_of_two(nats_url: str, first: bytes, gather_s: float, *, hurry: bool) -> float:
    """How long a consumer takes for two messages, the second of which comes at once."""
    loop = asyncio.get_running_loop()
    handler = Collected()
    somebody_waits = asyncio.Event()
    async with connected(nats_url) as messaging:
        consumer = messaging.consume(
            BILLING, "tester", handler, batch_max=50, gather_s=gather_s, hurry=somebody_waits
        )
        task = asyncio.create_task(consumer.run())
        start_s = loop.time()
        await messaging.publish(SUBJECT, first, "1")
        await handler.until(1)
        await messaging.publish(SUBJECT, b"second", "2")
        if hurry:
            somebody_waits.set()
        await handler.until(2)
        took_s = loop.time() - start_s + TIMER_S
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return took_s


async def test_a_light_load_is_gathered_for_less_while_somebody_waits(nats_url: str) -> None:
    took_s = await seconds_of_two(nats_url, b"light", 2 * WAIT_S, hurry=True)
    assert HURRIED_GATHER_S <= took_s < 2 * WAIT_S


@pytest.mark.parametrize(
    ("first", "hurry"), [(b"light", False), (bytes(LIGHT_BATCH_BYTES_MAX + 1), True)]
)
async def test_it_is_gathered_as_ever_for_nobody_and_when_it_is_not_light(
    nats_url: str, first: bytes, hurry: bool
) -> None:
    assert await seconds_of_two(nats_url, first, 0.3, hurry=hurry) >= 0.3


async def test_one_bad_message_does_not_hold_up_its_neighbours(nats_url: str) -> None:
    handler = Collected()
    handler.fail_once_with = {b"005"}
    async with connected(nats_url) as messaging:
        for number in range(10):
            await messaging.publish(SUBJECT, f"{number:03}".encode(), str(number))
        async with consuming(messaging, handler):
            assert await handler.until(10) == [f"{number:03}".encode() for number in range(10)]


async def test_consumer_goes_on_after_the_stream_was_deleted(nats_url: str) -> None:
    handler = Collected()
    async with connected(nats_url) as messaging, consuming(messaging, handler):
        await messaging.publish(SUBJECT, b"one", "1")
        await handler.until(1)
        await messaging.client.jetstream().delete_stream(BILLING.name)
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await messaging.publish(SUBJECT, b"two", "2")
                except UnavailableError:
                    continue
                break
        assert await handler.until(2) == [b"one", b"two"]


async def test_two_consumers_with_one_name_share_the_messages(nats_url: str) -> None:
    handler = Collected()
    async with connected(nats_url) as first, connected(nats_url) as second:
        async with consuming(first, handler), consuming(second, handler):
            for number in range(50):
                await first.publish(SUBJECT, f"{number:03}".encode(), str(number))
            await handler.until(50)
    assert len(handler.payloads) == 50


async def test_process_starts_without_nats_and_finds_it_later(nats_server: EmbeddedNats) -> None:
    handler = Collected()
    nats_server.stop()
    try:
        messaging = await Messaging.connect(nats_server.url, "test")
        with pytest.raises(UnavailableError):
            await messaging.publish(SUBJECT, b"early", "1")
    finally:
        nats_server.start()
        await nats_server.ready()
    async with consuming(messaging, handler):
        await until("the connection", lambda: messaging.connected, WAIT_S)
        await messaging.publish(SUBJECT, b"late", "late")
        await handler.until(1)
    await messaging.close()


async def test_broadcast_reaches_every_listener(nats_url: str) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with connected(nats_url) as first, connected(nats_url) as second:
        for name, messaging in (("first", first), ("second", second)):

            async def listen(payload: bytes, name: str = name) -> None:
                await heard.put((name, payload))

            await messaging.on_broadcast("usageflow.test.broadcast", listen)
        await first.broadcast("usageflow.test.broadcast", b"all")
        async with asyncio.timeout(WAIT_S):
            got = {await heard.get(), await heard.get()}
    assert got == {("first", b"all"), ("second", b"all")}


async def test_request_that_nobody_answers_is_unavailable(nats_url: str) -> None:
    async with connected(nats_url) as messaging:
        with pytest.raises(UnavailableError):
            await messaging.request("usageflow.test.nobody", b"", 1.0)


async def test_request_is_answered(nats_url: str) -> None:
    async def double(payload: bytes) -> bytes:
        return payload * 2

    async with connected(nats_url) as messaging:
        await messaging.on_request("usageflow.test.double", "workers", double)
        assert await messaging.request("usageflow.test.double", b"ab", 5.0) == b"abab"


async def test_message_over_the_servers_limit_is_refused_before_it_is_sent(nats_url: str) -> None:
    async with connected(nats_url) as messaging:
        with pytest.raises(ValueError, match="at most"):
            await messaging.publish(SUBJECT, bytes(PAYLOAD_BYTES_MAX + 1), "big")
        await messaging.publish(SUBJECT, bytes(PAYLOAD_BYTES_MAX), "just")
