"""A TCP proxy in front of a server that loses what a network can lose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 65_536


class Proxy:
    """Passes bytes on, until it is told not to."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._links: set[asyncio.StreamWriter] = set()
        self._swallow = False
        # The answer to what contains this is lost, and every link with it; then it is None again.
        self.lose_answer_to: bytes | None = None
        # Whether new connections are refused after that.
        self.refuse_afterwards = False
        self.refuses = False
        self.links_made = 0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Link a client with the server."""
        if self.refuses:
            writer.close()
            return
        self.links_made += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:  # nobody listens there now
            writer.close()
            return
        self._links |= {writer, server_writer}
        with suppress(OSError):
            await asyncio.gather(
                self._send(reader, server_writer), self._answer(server_reader, writer)
            )
        for end in (writer, server_writer):
            end.close()
            self._links.discard(end)

    async def _send(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.lose_answer_to and self.lose_answer_to in data:
                self.lose_answer_to = None
                self._swallow = True
            server.write(data)
            await server.drain()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._swallow:
                self._swallow = False
                self.refuses = self.refuse_afterwards
                self.cut()
                return
            client.write(data)
            await client.drain()
        client.close()

    def lose_next_answer(self) -> None:
        """The server's next answer is lost, whatever it is, and every link with it."""
        self._swallow = True

    def cut(self) -> None:
        """Drop every link, without a word to either side."""
        for writer in self._links:
            writer.transport.abort()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy to the server of `url`, and the URL that leads through it."""
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "", parts.port or 0)
    server = await asyncio.start_server(proxy.connect, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user, at, _host = parts.netloc.rpartition("@")
    netloc = f"{user}{at}127.0.0.1:{port}"
    try:
        yield proxy, urlunsplit(parts._replace(netloc=netloc))
    finally:
        proxy.cut()
        server.close()
