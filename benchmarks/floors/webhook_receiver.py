"""An application that receives webhooks, as little of one as there can be; or a black hole.

It answers every POST with 200, notes how long after its making each event came (the data of the
benchmark's events has "sentMicros", of the machine's clock), and counts what came twice. GET /count
tells how many came, GET /figures all of it, and forgets it, and GET /sample one webhook as it came.
A black hole accepts and reads, and that is all. `python -m benchmarks.floors.webhook_receiver`, a
WebhookReceiver in.
"""

import asyncio
import time
from typing import cast

import msgspec
import uvloop

from benchmarks.floors.serving import read_config, serve_until_stdin_ends
from benchmarks.messages import WebhookFigures, WebhookReceiver, WebhookSample

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
END_OF_HEAD = b"\r\n\r\n"
SENT = b'"sentMicros":'
MICROS_PER_MS = 1_000


class Received:
    """What has come since the last look."""

    def __init__(self) -> None:
        self.sample: WebhookSample | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.first_s = self.last_s = 0.0
        self.seen: set[tuple[bytes, bytes]] = set()
        self.twice = 0
        self.latencies_ms: list[float] = []

    def take(self, head: bytes, body: bytes) -> None:
        """Note one webhook."""
        self.last_s = time.perf_counter()
        self.first_s = self.first_s or self.last_s
        path = head.split(b" ", 2)[1]
        delivery = (path, header(head, b"webhook-id"))
        if delivery in self.seen:
            self.twice += 1
        self.seen.add(delivery)
        _, found, rest = body.partition(SENT)
        if found:
            sent_micros = int(rest[: rest.index(b"}")])
            self.latencies_ms.append((time.time_ns() // 1_000 - sent_micros) / MICROS_PER_MS)
        if self.sample is None:
            lines = [line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:]]
            self.sample = WebhookSample([(name, value) for name, value in lines], body.decode())

    def figures(self) -> WebhookFigures:
        """What has come, from the first to the last."""
        return WebhookFigures(
            received=len(self.seen),
            twice=self.twice,
            span_s=self.last_s - self.first_s,
            latencies_ms=self.latencies_ms,
        )


def header(head: bytes, name: bytes) -> bytes:
    """The value of a header, whatever the case of its name; empty when there is none."""
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


class Receiver(asyncio.Protocol):
    """One connection."""

    def __init__(self, received: Received, *, black_hole: bool) -> None:
        self._received = received
        self._black_hole = black_hole
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio calls this."""
        self._data += data
        while (end := self._data.find(END_OF_HEAD)) >= 0:
            head = self._data[:end]
            length = int(header(head, b"content-length") or 0)
            body_start = end + len(END_OF_HEAD)
            if len(self._data) < body_start + length:
                return
            body = self._data[body_start : body_start + length]
            self._data = self._data[body_start + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET "):
            answer = msgspec.json.encode(self._asked(head))
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer))
            self._transport.write(answer)
            return
        self._received.take(head, body)
        if not self._black_hole:
            self._transport.write(OK)

    def _asked(self, head: bytes) -> WebhookFigures | WebhookSample | int | None:
        if head.startswith(b"GET /sample"):
            return self._received.sample
        if head.startswith(b"GET /count"):
            return len(self._received.seen)
        figures = self._received.figures()
        self._received.forget()
        return figures


async def main() -> None:
    """Serve."""
    config = read_config(WebhookReceiver)
    received = Received()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Receiver(received, black_hole=config.black_hole), "127.0.0.1", 0, backlog=1_024
    )
    async with server:
        await serve_until_stdin_ends(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    uvloop.run(main())
