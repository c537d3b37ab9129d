"""NATS: JetStream streams and durable consumers, broadcasts and requests.

NATS is transport only. Publishing may fail or what was published may vanish: the sender's outbox
(outbox.py) sends again until the consumer's inbox (inbox.py) has it. So a stream is bounded and
drops its oldest messages when it is full.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import nats
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from services.kit import context
from services.kit.consumer import Consumer, Handler
from services.kit.errors import UnavailableError
from services.kit.waiting import cancellable, happens

log = structlog.get_logger()

CONNECT_WAIT_S = 3.0
FLUSH_TIMEOUT_S = 2
RECONNECT_WAIT_S = 0.25
PING_INTERVAL_S = 10
PUBLISH_TIMEOUT_S = 5.0
API_TIMEOUT_S = 5.0
# The default max_payload of a NATS server; a message has to fit in it with its headers.
PAYLOAD_BYTES_MAX = 1024 * 1024 - 4096
ACK_WAIT_S = 30.0
ACK_PENDING_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Stream:
    """A JetStream stream, its subjects, and its bounds."""

    name: str
    subjects: str
    bytes_max: int = 1024**3
    age_max_s: float = 24 * 3600.0
    duplicate_window_s: float = 120.0

    def config(self) -> StreamConfig:
        """What the server is to have."""
        return StreamConfig(
            name=self.name,
            subjects=[self.subjects],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_bytes=self.bytes_max,
            max_age=self.age_max_s,
            duplicate_window=self.duplicate_window_s,
        )


_MESSAGE_ID = "Nats-Msg-Id"
# What follows it in the header makes a message that is sent again another one for JetStream.
SENT_AGAIN = "~"

# Batches of usage events, from ingest to aggregator.
EVENTS = Stream("USAGEFLOW_EVENTS", "usageflow.events.>")
# What aggregator tells invoicer.
USAGE = Stream("USAGEFLOW_USAGE", "usageflow.usage.>", bytes_max=128 * 1024**2)
# Billing events, from invoicer to notifier.
BILLING = Stream("USAGEFLOW_BILLING", "usageflow.billing.>", bytes_max=128 * 1024**2)
# What was done to organizations, from every service to accounts.
AUDIT = Stream("USAGEFLOW_AUDIT", "usageflow.audit.>", bytes_max=64 * 1024**2)
_STREAMS = (EVENTS, USAGE, BILLING, AUDIT)


def stream_of(subject: str) -> Stream:
    """The stream that takes `subject`; LookupError when none does."""
    for stream in _STREAMS:
        if subject.startswith(stream.subjects[:-1]):
            return stream
    raise LookupError(subject)


def message_id(message: Msg) -> str:
    """The id that its sender gave a message, however often it was sent."""
    return (message.headers or {})[_MESSAGE_ID].partition(SENT_AGAIN)[0]


class Messaging:
    """One connection to NATS, which is looked for again for ever when it is lost."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._client = Client()
        self._connecting: asyncio.Task[None] | None = None
        self._on_connect: list[Callable[[], Awaitable[None]]] = []
        self._subscriptions: list[tuple[str, str, Callable[[Msg], Awaitable[None]]]] = []
        self._ready = asyncio.Event()
        self._known_streams: set[str] = set()

    @classmethod
    async def connect(cls, url: str, name: str) -> "Messaging":
        """Connect, or go on trying in the background when NATS does not answer at once."""
        self = cls(url, name)
        self._connecting = asyncio.create_task(self._connect())
        if not await happens(self._ready, CONNECT_WAIT_S):
            log.warning("nats_away")
        return self

    async def _connect(self) -> None:
        await self._client.connect(
            servers=[self._url],
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type] # a float does
            connect_timeout=2,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
        )
        for subject, queue, callback in self._subscriptions:
            await self._client.subscribe(subject, queue=queue, cb=callback)
        self._ready.set()
        await self._on_reconnected()

    async def _on_error(self, error: Exception) -> None:
        log.debug("nats_error", error=repr(error))

    async def _on_disconnected(self) -> None:
        self._known_streams.clear()
        log.warning("nats_disconnected")

    async def _on_reconnected(self) -> None:
        await self._await_subscriptions()
        log.info("nats_connected")
        for handler in self._on_connect:
            await handler()

    @property
    def connected(self) -> bool:
        """Whether NATS answers."""
        return bool(self._client.is_connected)

    @property
    def client(self) -> Client:
        """The connection itself, for consumer.py."""
        return self._client

    def on_reconnect(self, handler: Callable[[], Awaitable[None]]) -> None:
        """Call `handler` whenever the connection is there again (broadcasts were missed)."""
        self._on_connect.append(handler)

    async def close(self) -> None:
        """Send what is buffered and close."""
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._client.is_connected:
            try:
                await self._flush(1)
            except (nats.errors.Error, TimeoutError, OSError):
                log.debug("nats_flush_failed")
        await self._client.close()

    def _jetstream(self) -> JetStreamContext:
        if not self.connected:
            raise UnavailableError("NATS is away", retry_after_s=1.0)
        return self._client.jetstream(timeout=API_TIMEOUT_S)

    async def ensure_stream(self, stream: Stream) -> None:
        """Make the stream, or bring it to its configuration. UnavailableError."""
        if stream.name in self._known_streams:
            return
        jetstream = self._jetstream()
        try:
            try:
                await cancellable(jetstream.add_stream(stream.config()))
            except nats.js.errors.BadRequestError:
                await cancellable(jetstream.update_stream(stream.config()))
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError("JetStream is away", retry_after_s=1.0) from error
        self._known_streams.add(stream.name)

    async def ensure_consumer(self, stream: Stream, durable: str) -> None:
        """Make the durable pull consumer of a stream. UnavailableError."""
        self._known_streams.discard(stream.name)
        await self.ensure_stream(stream)
        config = ConsumerConfig(
            durable_name=durable,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=ACK_PENDING_MAX,
            max_deliver=-1,
        )
        try:
            await cancellable(self._jetstream().add_consumer(stream.name, config=config))
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError("JetStream is away", retry_after_s=1.0) from error

    async def publish(self, subject: str, payload: bytes, message_id: str) -> None:
        """Publish and wait until JetStream has stored it. UnavailableError.

        The same `message_id` within two minutes is stored once.
        """
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a message has at most {PAYLOAD_BYTES_MAX} bytes")
        stream = stream_of(subject)
        await self.ensure_stream(stream)
        headers = {_MESSAGE_ID: message_id, **context.outgoing_headers()}
        try:
            stored = self._jetstream().publish(
                subject, payload, timeout=PUBLISH_TIMEOUT_S, headers=headers
            )
            await cancellable(stored)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            # No stream answered: it may be gone, so it is made anew before the next message.
            self._known_streams.discard(stream.name)
            raise UnavailableError("JetStream is away", retry_after_s=1.0) from error

    async def mention(self, subject: str, payload: bytes) -> None:
        """Tell every process that listens, without waiting until NATS has it: what is told again
        and again anyway. UnavailableError.
        """
        if not self.connected:
            raise UnavailableError("NATS is away", retry_after_s=1.0)
        try:
            await self._client.publish(subject, payload)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError("NATS is away", retry_after_s=1.0) from error

    async def broadcast(self, subject: str, payload: bytes) -> None:
        """Tell every process that listens now. UnavailableError."""
        if not self.connected:
            raise UnavailableError("NATS is away", retry_after_s=1.0)
        await self._client.publish(subject, payload, headers=context.outgoing_headers() or None)
        try:
            await self._flush(FLUSH_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError("NATS is away", retry_after_s=1.0) from error

    async def on_broadcast(self, subject: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        """Call `handler` with every broadcast on `subject`; with NATS there, from the return on."""

        async def receive(message: Msg) -> None:
            context.from_headers(message.headers or {})
            await handler(message.data)

        await self._subscribe(subject, "", receive)

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """Ask whoever answers `subject`. UnavailableError when nobody does in time."""
        if not self.connected:
            raise UnavailableError("NATS is away", retry_after_s=1.0)
        try:
            asked = self._client.request(
                subject, payload, timeout=timeout_s, headers=context.outgoing_headers() or None
            )
            answer = await cancellable(asked)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError(f"Nobody answers {subject}", retry_after_s=1.0) from error
        return bytes(answer.data)

    async def on_request(
        self, subject: str, queue: str, handler: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        """Answer requests; among all processes with the same `queue` one gets each request."""

        async def answer(message: Msg) -> None:
            context.from_headers(message.headers or {})
            try:
                await message.respond(await handler(message.data))
            except Exception:
                # The asker gets no answer, times out, and asks again.
                log.exception("request_failed", subject=subject)

        await self._subscribe(subject, queue, answer)

    async def _subscribe(
        self, subject: str, queue: str, callback: Callable[[Msg], Awaitable[None]]
    ) -> None:
        self._subscriptions.append((subject, queue, callback))
        if self._ready.is_set():
            await self._client.subscribe(subject, queue=queue, cb=callback)
            await self._await_subscriptions()

    async def _await_subscriptions(self) -> None:
        """Until NATS has them: what is read afterwards and what is told afterwards leave no gap."""
        try:
            await self._flush(FLUSH_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            # They are sent again with the next connection.
            log.debug("nats_flush_failed", error=repr(error))

    async def _flush(self, timeout_s: int) -> None:
        """Until NATS has handled all that was sent. nats.errors.Error, OSError."""
        # nats-py sends a flush's PING ahead of what it still holds back, so that the first answer
        # proves nothing; the second PING comes behind all of it.
        for _ in range(2):
            await cancellable(self._client.flush(timeout=timeout_s))

    def consume(
        self,
        stream: Stream,
        durable: str,
        handler: Handler,
        *,
        batch_max: int,
        gather_s: float = 0.0,
        hurry: asyncio.Event | None = None,
    ) -> Consumer:
        """A consumer whose `run` gives `handler` up to `batch_max` messages at a time.

        When the handler returns all of them are acknowledged; when it raises, each is tried
        alone, and the ones that still fail come again later. Under load batches are at least
        `gather_s` apart, and larger; less under a light one while `hurry` is set.
        """
        return Consumer(
            self, stream, durable, handler, batch_max=batch_max, gather_s=gather_s, hurry=hurry
        )
