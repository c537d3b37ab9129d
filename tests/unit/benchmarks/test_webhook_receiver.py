"""The receiver that webhooks are measured with."""

import asyncio
import time

import msgspec
import pytest

from benchmarks.floors.webhook_receiver import Received, Receiver, header
from benchmarks.messages import WebhookFigures

HEAD = b"POST /7 HTTP/1.1\r\nHost: a\r\nWebhook-Id: whevt_1\r\nContent-Length: %d\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def webhook(sent_micros: int, webhook_id: bytes = b"whevt_1") -> bytes:
    body = b'{"data":{"sentMicros":%d}}' % sent_micros
    return HEAD.replace(b"whevt_1", webhook_id) % len(body) + body


async def answered(received: Received, *parts: bytes, black_hole: bool = False) -> bytes:
    """What the receiver answers to bytes that come in these parts."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Receiver(received, black_hole=black_hole), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"GET /count HTTP/1.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        while not answer.endswith(b"Content-Length: 1\r\n\r\n"):
            answer += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
    return answer.partition(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n")[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"host", b"a"), (b"webhook-id", b"whevt_1"), (b"content-length", b"%d"), (b"id", b"")],
)
def test_a_header_is_found_whatever_its_case(name: bytes, value: bytes) -> None:
    assert header(HEAD.removesuffix(b"\r\n\r\n"), name) == value


@pytest.mark.parametrize("size", [1, 40, 10_000])
async def test_webhooks_are_answered_and_counted_in_whatever_parts_they_come(size: int) -> None:
    received = Received()
    now = time.time_ns() // 1_000
    sent = webhook(now) + webhook(now, b"whevt_2") + webhook(now)
    parts = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert await answered(received, *parts) == ANSWER * 3
    figures = received.figures()
    assert (figures.received, figures.twice) == (2, 1)
    assert len(figures.latencies_ms) == 3
    assert all(0 <= latency < 10_000 for latency in figures.latencies_ms)
    assert received.sample is not None
    assert dict(received.sample.headers)["Webhook-Id"] == "whevt_1"


async def test_a_black_hole_takes_and_never_answers() -> None:
    received = Received()
    assert await answered(received, webhook(1), black_hole=True) == b""
    assert received.figures().received == 1


def test_figures_are_forgotten_and_survive_the_wire() -> None:
    received = Received()
    received.take(HEAD.removesuffix(b"\r\n\r\n"), b'{"sentMicros":1}')
    figures = received.figures()
    assert msgspec.json.decode(msgspec.json.encode(figures), type=WebhookFigures) == figures
    received.forget()
    assert received.figures() == WebhookFigures(received=0, twice=0, span_s=0.0, latencies_ms=[])
