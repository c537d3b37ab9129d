"""Old batches come again: out of order, under other ids, long after they were applied."""

import random

import nats
import nats.errors
import nats.js.errors
from nats.js import JetStreamContext

from cli.embedded import ignore_error
from services.kit.messaging import EVENTS, SENT_AGAIN

READ_MAX = 100
SENT_MAX = 200
REMEMBERED_MAX = 2_000
TIMEOUT_S = 2.0

_MESSAGE_ID = "Nats-Msg-Id"


class Redelivery:
    """Remembers batches that were in the stream, over the end of it too."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._remembered: list[tuple[str, str, bytes]] = []

    async def __call__(self, rng: random.Random) -> int:
        """Read some batches from the stream, publish some remembered ones; how many of these.

        OSError or nats.errors.Error when NATS is away.
        """
        connection = await nats.connect(
            self._url, allow_reconnect=False, connect_timeout=2, error_cb=ignore_error
        )
        try:
            jetstream = connection.jetstream(timeout=TIMEOUT_S)
            await self._read(jetstream, rng)
            return await self._publish(jetstream, rng)
        finally:
            await connection.close()

    async def _read(self, jetstream: JetStreamContext, rng: random.Random) -> None:
        state = (await jetstream.stream_info(EVENTS.name)).state
        held = range(state.first_seq, state.last_seq + 1)
        for sequence in rng.sample(held, min(READ_MAX, len(held))):
            message = await jetstream.get_msg(EVENTS.name, sequence)
            message_id = (message.headers or {})[_MESSAGE_ID].partition(SENT_AGAIN)[0]
            entry = (message.subject or "", message_id, message.data or b"")
            if len(self._remembered) < REMEMBERED_MAX:
                self._remembered.append(entry)
            else:
                self._remembered[rng.randrange(REMEMBERED_MAX)] = entry

    async def _publish(self, jetstream: JetStreamContext, rng: random.Random) -> int:
        chosen = rng.sample(self._remembered, min(SENT_MAX, len(self._remembered)))
        for subject, message_id, payload in chosen:
            new_id = f"{message_id}{SENT_AGAIN}chaos-{rng.getrandbits(64):x}"
            await jetstream.publish(subject, payload, headers={_MESSAGE_ID: new_id})
        return len(chosen)
