"""A durable pull consumer: messages that have arrived are handled together, without waiting.

One request lingers at the server and whatever has come since the last round is one batch: no
latency when idle, full batches under load (`_gather`). nats-py's own `fetch(n)` asks anew each
time, and some versions wait for all n (docs/adr/0005).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from services.kit import context
from services.kit.errors import UnavailableError
from services.kit.waiting import cancellable

if TYPE_CHECKING:
    from services.kit.messaging import Messaging, Stream

log = structlog.get_logger()

Handler = Callable[[list[Msg]], Awaitable[None]]

PULL_EXPIRES_S = 30.0
PULL_HEARTBEAT_S = 2.0
RETRY_DELAY_S = 0.5
REDELIVERY_DELAY_S = 1.0

# A batch of so much was gathered under a heavy load: the next is gathered for longer.
HEAVY_BATCH_BYTES = 256 * 1024
HEAVY_GATHER_FACTOR = 2

# While somebody waits for what comes, a light load is gathered for so much less: 33 transactions a
# second at most. A batch beyond so much shows a load for which gathering pays.
HURRIED_GATHER_S = 0.03
LIGHT_BATCH_BYTES_MAX = 16 * 1024

_HEARTBEAT = "100"
_EXPIRED = "408"


class Consumer:
    """Takes messages of one durable consumer for as long as `run` runs."""

    def __init__(
        self,
        messaging: "Messaging",
        stream: "Stream",
        durable: str,
        handler: Handler,
        *,
        batch_max: int,
        gather_s: float = 0.0,
        hurry: asyncio.Event | None = None,
    ) -> None:
        """`gather_s`: under load, at least so long from one batch to the next; see _gather.
        `hurry` is set while somebody waits for what the messages bring.
        """
        self._messaging = messaging
        self._stream = stream
        self._durable = durable
        self._handler = handler
        self._batch_max = batch_max
        self._gather_s = gather_s
        self._hurry = hurry
        self._last_batch_s = 0.0
        self._last_batch_bytes = 0

    async def run(self) -> None:
        """Consume until cancelled; NATS may come and go, and lose its store."""
        while True:
            try:
                await self._messaging.ensure_consumer(self._stream, self._durable)
                await self._consume()
            except (UnavailableError, nats.errors.Error, TimeoutError, OSError) as error:
                log.debug("consumer_waits", durable=self._durable, error=repr(error))
                await asyncio.sleep(RETRY_DELAY_S)

    async def _consume(self) -> None:
        client = self._messaging.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        try:
            while True:
                await self._pull(inbox)
                await self._until_pull_ends(subscription)
        finally:
            if client.is_connected:
                await subscription.unsubscribe()

    async def _pull(self, inbox: str) -> None:
        request = {
            "batch": self._batch_max,
            "expires": int(PULL_EXPIRES_S * 1e9),
            "idle_heartbeat": int(PULL_HEARTBEAT_S * 1e9),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream.name}.{self._durable}"
        await self._messaging.client.publish(subject, json.dumps(request).encode(), reply=inbox)

    async def _until_pull_ends(self, subscription: Subscription) -> None:
        outstanding = self._batch_max
        while outstanding > 0:
            # No message and no heartbeat: the server is away or forgot the request.
            messages = [await cancellable(subscription.next_msg(timeout=3 * PULL_HEARTBEAT_S))]
            await self._gather()
            while subscription.pending_msgs and len(messages) < self._batch_max:
                message = subscription.next_msg(timeout=PULL_HEARTBEAT_S)
                messages.append(await cancellable(message))
            batch, ended = _split(messages)
            if batch:
                self._last_batch_bytes = sum(len(message.data) for message in batch)
                outstanding -= len(batch)
                await self._handle(batch)
            if ended:
                return

    async def _gather(self) -> None:
        """Let more messages come when the last batch was only just handled.

        A message after a quiet time is handled at once; a steady flow is handled in fewer, larger
        batches, each of which costs a transaction; a heavy one in batches larger still. A light one
        for which somebody waits is gathered for HURRIED_GATHER_S only.
        """
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        heavy = self._last_batch_bytes >= HEAVY_BATCH_BYTES
        gather_s = self._gather_s * HEAVY_GATHER_FACTOR if heavy else self._gather_s
        due_s = self._last_batch_s + gather_s
        if due_s > now_s and await self._hurried(due_s):
            due_s = loop.time()
        self._last_batch_s = max(now_s, due_s)

    async def _hurried(self, due_s: float) -> bool:
        """Sleep until `due_s`; True: less, as somebody waits and the load is light."""
        if self._hurry is None or self._last_batch_bytes > LIGHT_BATCH_BYTES_MAX:
            await _sleep_until(due_s)
            return False
        await _sleep_until(min(due_s, self._last_batch_s + HURRIED_GATHER_S))
        try:
            async with asyncio.timeout_at(due_s):
                await self._hurry.wait()
        except TimeoutError:
            return False
        return True

    async def _handle(self, batch: list[Msg]) -> None:
        context.from_headers(batch[0].headers or {})
        try:
            await self._handler(batch)
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, UnavailableError):
                log.warning("batch_failed_trying_each", durable=self._durable, error=repr(error))
                for message in batch:
                    await self._handle([message])
                return
            log.exception("message_failed", durable=self._durable, messages=len(batch))
            for message in batch:
                await message.nak(delay=REDELIVERY_DELAY_S)
            return
        for message in batch:
            await message.ack()


async def _sleep_until(instant_s: float) -> None:
    await asyncio.sleep(max(instant_s - asyncio.get_running_loop().time(), 0.0))


def _split(messages: list[Msg]) -> tuple[list[Msg], bool]:
    """The messages that carry data, and whether the server ended the request."""
    batch, ended, gone = [], False, False
    for message in messages:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None:
            batch.append(message)
        elif status == _EXPIRED or "Batch Completed" in headers.get("Description", ""):
            ended = True
        elif status != _HEARTBEAT:
            gone = True
    if gone and not batch:
        raise UnavailableError("The consumer is gone")
    return batch, ended or gone
