"""What stands in the database after each hostile receiver: exactly the attempts that were made."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.kit.database import Database
from services.notifier.resolving import AddressInfo
from services.notifier.sender import Sender
from tests.integration.notifier.conftest import World, make_event, make_settings
from tests.integration.notifier.test_hostile_receivers import (
    HEAD,
    Serve,
    certificate,
    found,
    raw_server,
    until_closed,
)

__all__ = ["certificate"]  # a fixture
TIMEOUT_S = 1.0
BOMB = gzip.compress(b"\0" * 10_000_000)


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-length: 1000\r\n\r\n")
    await until_closed(writer, b".", 1.0)


async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"\r\n")
    await until_closed(writer, b"x" * 65_536, 0)


async def bomb(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB)
    await writer.drain()


async def slow_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """200, a byte of the head at a time."""
    for byte in HEAD + b"\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(TIMEOUT_S / 10)


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def redirect(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    location = b"location: http://169.254.169.254/latest/meta-data\r\n"
    writer.write(b"HTTP/1.1 302 Found\r\n" + location + b"content-length: 0\r\n\r\n")
    await writer.drain()


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Record:
    """Of each attempt: status, error and response, and whether it took the whole deadline."""

    status: int
    error: str
    response: bytes
    whole_deadline: bool = False


@dataclass(frozen=True)
class Case:
    """A receiver, and what is recorded of the attempts at it."""

    name: str
    serve: Serve
    expected: Record


CASES = [
    Case("a byte a second", drip, Record(200, "timeout", b".", True)),
    Case("an endless body", endless, Record(200, "", b"x" * 16_384)),
    Case("a gzip bomb", bomb, Record(200, "", BOMB[:16_384])),
    Case("a slow head", slow_head, Record(0, "timeout", b"", True)),
    Case("a reset", reset, Record(0, "connection", b"")),
    Case("302 to the cloud's metadata", redirect, Record(302, "http_status", b"")),
    Case("no answer", silent, Record(0, "timeout", b"", True)),
]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes at the end what a test opens."""
    async with AsyncExitStack() as stack:
        yield stack


async def records(
    stack: AsyncExitStack, database: Database, database_url: str, url: str, sender: Sender
) -> list[Record]:
    """What is recorded of a delivery to `url` by a worker with this sender, when it is done."""
    settings = make_settings(
        database_url, webhook_timeout_s=TIMEOUT_S, webhook_retry_delays_s="0,0.05"
    )
    world = World(database, settings, sender)
    await stack.enter_async_context(world.working())
    endpoint, _ = await world.endpoint(url)
    await world.notifier.take_events([make_event()])
    outcome = await world.recorder.next()
    while outcome.status == "pending":
        outcome = await world.recorder.next()
    (delivery,), _ = await world.listed(endpoint.id)
    whole = await world.deliveries.get(endpoint.tenant, delivery.id)
    assert [attempt.number for attempt in whole.attempts] == list(range(1, len(whole.attempts) + 1))
    assert delivery.status == ("failed" if outcome.attempt.error else "succeeded")
    return [
        Record(
            attempt.response_status,
            attempt.error,
            attempt.response_body,
            attempt.duration_ms >= 1_000 * TIMEOUT_S,
        )
        for attempt in whole.attempts
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_attempt_is_recorded_as_it_was(
    stack: AsyncExitStack, database: Database, database_url: str, case: Case
) -> None:
    port = await raw_server(stack, case.serve)
    sender = Sender(allow_private=True, timeout_s=TIMEOUT_S)
    url = f"http://127.0.0.1:{port}/"
    attempts = 2 if case.expected.error else 1
    assert await records(stack, database, database_url, url, sender) == [case.expected] * attempts


async def test_a_tls_handshake_that_stalls_is_recorded_as_a_timeout(
    stack: AsyncExitStack, database: Database, database_url: str
) -> None:
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    stack.callback(server.close)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    sender = Sender(allow_private=True, timeout_s=TIMEOUT_S)
    made = await records(stack, database, database_url, url, sender)
    assert made == [Record(0, "timeout", b"", True)] * 2


async def test_an_invalid_certificate_is_recorded_as_tls(
    stack: AsyncExitStack, database: Database, database_url: str, certificate: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    port = await raw_server(stack, silent, context)
    sender = Sender(allow_private=True, timeout_s=TIMEOUT_S, look_up=found("127.0.0.1"))
    url = f"https://hooks.example:{port}/"
    made = await records(stack, database, database_url, url, sender)
    assert made == [Record(0, "tls", b"")] * 2


async def test_a_name_rebound_to_a_private_address_is_recorded_as_refused(
    stack: AsyncExitStack, database: Database, database_url: str
) -> None:
    """It had a public address when the endpoint was registered."""
    asked: list[str] = []

    def rebind(host: str, port: int) -> Sequence[AddressInfo]:
        asked.append(host)
        return found("10.0.0.1" if len(asked) % 2 else "169.254.169.254")(host, port)

    sender = Sender(allow_private=False, timeout_s=TIMEOUT_S, look_up=rebind)
    url = "https://rebound.example/"
    made = await records(stack, database, database_url, url, sender)
    assert made == [Record(0, "refused_address", b"")] * 2
    assert len(asked) == len(made)
