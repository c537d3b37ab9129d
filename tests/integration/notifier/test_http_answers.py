"""What our HTTP client makes of answers, whole, broken and malicious; and of connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from services.notifier import http_client
from services.notifier.http_client import head_of, target_of
from services.notifier.sender import Address, Sender, Webhook
from services.notifier.signing import SigningKey

TIMEOUT_S = 10.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes at the end what a test opens."""
    async with AsyncExitStack() as stack:
        yield stack


class Server:
    """Answers each request with the next of `answers` (then with OK); None closes instead."""

    def __init__(self, *answers: bytes | None, close: bool = False) -> None:
        self.answers = list(answers)
        self.close = close
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended: asyncio.Queue[None] = asyncio.Queue()

    async def start(self, stack: AsyncExitStack) -> str:
        """Listen; returns a URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        stack.callback(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks?a=b%20c"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0) if self.answers else OK
                if answer:
                    writer.write(answer)
                    await writer.drain()
                if self.close or answer is None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended.put_nowait(None)
            writer.close()


async def sends(stack: AsyncExitStack, server: Server, count: int = 1) -> list[tuple[int, str]]:
    """Status and error of so many webhooks, one after the other."""
    url = await server.start(stack)
    sender = Sender(allow_private=True, timeout_s=TIMEOUT_S)
    stack.push_async_callback(sender.close)
    address = Address(url, {"X-Mine": "1"}, [SigningKey("v1", b"k" * 32)])
    made = [await sender.send(Webhook(address, f"whevt_{n}", b"{}")) for n in range(count)]
    return [(attempt.response_status, attempt.error) for attempt in made]


async def test_the_request_is_what_http_asks_for(stack: AsyncExitStack) -> None:
    server = Server()
    assert await sends(stack, server) == [(200, "")]
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert first == "POST /hooks?a=b%20c HTTP/1.1"
    assert body == b"{}"
    assert len(headers) == len(lines)
    assert headers["host"].startswith("127.0.0.1:")
    assert {"accept": "*/*", "x-mine": "1", "content-length": "2"}.items() <= headers.items()
    assert headers["content-type"] == "application/json"


async def test_a_connection_serves_one_webhook_after_the_other(stack: AsyncExitStack) -> None:
    server = Server()
    assert await sends(stack, server, 3) == [(200, "")] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        # More than was asked for must not be taken for the answer to the next one.
        OK + b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        OK + b"HTTP/1.1 500 No\r\nconte",
        OK + b"\r\nnonsense",
    ],
)
async def test_after_such_an_answer_the_connection_is_not_used_again(
    stack: AsyncExitStack, answer: bytes
) -> None:
    server = Server(answer)
    assert await sends(stack, server, 2) == [(200, "")] * 2
    assert server.connections == 2


async def test_a_connection_that_has_been_idle_is_closed(
    stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "IDLE_CONNECTION_S", 0.01)
    server = Server()
    assert await sends(stack, server) == [(200, "")]
    await asyncio.wait_for(server.ended.get(), TIMEOUT_S)


async def test_idle_connections_are_bounded(
    stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "IDLE_CONNECTIONS_MAX", 0)
    server = Server()
    assert await sends(stack, server, 2) == [(200, "")] * 2
    assert server.connections == 2


CONTINUE = b"HTTP/1.1 100 Continue\r\nretry-after: 9\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CONTINUE + EARLY_HINTS + OK, (200, "")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, "")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", (200, "")),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", (200, "")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart", (200, "connection")),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\npart", (200, "connection")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", (0, "connection")),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", (101, "status")),
        (b"HTTP/1.1 200 OK\r\nhalf a he", (0, "connection")),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 700_000 + b"\r\n\r\n", (0, "connection")),
        (EARLY_HINTS * 20_000 + OK, (0, "connection")),
        (None, (0, "connection")),
    ],
)
async def test_an_answer_counts_when_all_of_it_came(
    stack: AsyncExitStack, answer: bytes | None, expected: tuple[int, str]
) -> None:
    (made,) = await sends(stack, Server(answer, close=True))
    assert made == (expected[0], expected[1].replace("status", "http_status"))


def test_where_a_url_leads() -> None:
    plain = target_of("http://hooks.example")
    assert (plain.host, plain.port, plain.tls) == ("hooks.example", 80, False)
    assert (plain.authority, plain.path) == ("hooks.example", "/")
    other = target_of("https://[2606:4700::1111]:8443/a?b=c&d")
    assert (other.host, other.port, other.tls) == ("2606:4700::1111", 8443, True)
    assert (other.authority, other.path) == ("[2606:4700::1111]:8443", "/a?b=c&d")
    assert target_of("https://bücher.example/").authority == "xn--bcher-kva.example"
    for url in ("ftp://hooks.example/", "/hooks", "https://"):
        with pytest.raises(ValueError):
            target_of(url)


def test_no_header_brings_another_with_it() -> None:
    target = target_of("http://hooks.example/%0d%0ax:y")
    assert head_of(target, {"a": "b"}).count(b"\r\n") == 3
    with pytest.raises(ValueError, match="line break"):
        head_of(target, {"a": "b\r\nhost: evil"})
