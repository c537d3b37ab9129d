"""Listens, and lets connections in."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import structlog
from grpc import StatusCode

from services.kit.http2.call import Load
from services.kit.http2.connection import Connection
from services.kit.http2.headers import Heads, RefusedError

log = structlog.get_logger()

CONNECTIONS_MAX: Final = 1_000
# So many more are told that there is no room, which takes each a second or two; others are closed
# at once, or they would take all the file descriptors.
TURNED_AWAY_MAX: Final = 50
# Of connections that the system has accepted and this loop has not.
BACKLOG: Final = 1_024
# How often connections are looked at for silence.
LOOK_S: Final = 1.0
# For connections to be closed, and for handlers that were cancelled to end.
END_S_MAX: Final = 2.0
_STOPPING: Final = RefusedError(StatusCode.UNAVAILABLE, "The server is stopping; try again")


class Server:
    """A gRPC server, HTTP/2 without TLS, in the running event loop's thread alone."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        """`find` gives grpc's RpcMethodHandler of "/package.Service/Rpc", or None."""
        self._heads = Heads(find)
        self.load = Load()
        self.connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None

    async def listen(self, address: str) -> int:
        """Serve at "host:port"; returns the port. OSError."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self.load, self._heads, self._join, self._leave),
            # "::" would be IPv6 alone.
            None if host in ("", "::") else host,
            int(port),
            backlog=BACKLOG,
        )
        self._look()
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let the running ones end within `grace_s`, close."""
        assert self._listener is not None
        assert self._looking is not None
        self._listener.close()
        for connection in list(self.connections):
            connection.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._gone()
        for connection in list(self.connections):
            connection.end(_STOPPING)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S_MAX):
                await self._gone()
        self._looking.cancel()
        for connection in list(self.connections):
            connection.transport.abort()

    async def _gone(self) -> None:
        """All connections, and the handlers of all calls."""
        while self.connections or self.load.calls:
            self.load.changed.clear()
            await self.load.changed.wait()

    def _join(self, connection: Connection) -> None:
        self.connections.add(connection)
        beyond = len(self.connections) - CONNECTIONS_MAX
        if beyond > 0:
            connection.turn_away(told=beyond <= TURNED_AWAY_MAX)

    def _leave(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.load.changed.set()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in list(self.connections):
            try:
                connection.look(loop.time())
            except Exception:
                # The others are looked at all the same, and all of them again.
                log.exception("connection_not_looked_at", peer=connection.peer)
        self._looking = loop.call_later(LOOK_S, self._look)
