"""The HTTP server: uvicorn under kit's Runtime."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, cast

import structlog
import uvicorn

from gateway.protocol import GatewayProtocol, QuickHandler, close_late

log = structlog.get_logger()

BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 75
# Of the time that a graceful stop may take, what running requests get.
DRAIN_SHARE: Final = 0.8


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell when connections are accepted."""
        await super().startup(sockets)
        self.serving.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the Runtime's."""
        yield


class HttpServer:
    """Serves one ASGI app on one port."""

    def __init__(
        self,
        app: Any,
        quick_track: QuickHandler,
        listen: str,
        *,
        connections_max: int,
        shutdown_s: float,
        request_arrival_s_max: float,
        before_stop: Callable[[], Awaitable[None]],
    ) -> None:
        """`before_stop` ends what would not end by itself, when no new connections are taken."""
        self._listen = listen
        self._before_stop = before_stop
        self._request_arrival_s_max = request_arrival_s_max
        protocol = functools.partial(
            GatewayProtocol, quick_track=quick_track, connections_max=connections_max
        )
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", protocol),
                loop="none",
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, int(shutdown_s * DRAIN_SHARE)),
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self._closing_late: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Bind and serve; OSError when the port is taken."""
        host, _, port = self._listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
        self.port = sock.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        await self._server.serving.wait()
        connections = self._server.server_state.connections
        self._closing_late = asyncio.create_task(
            close_late(connections, self._request_arrival_s_max, KEEP_ALIVE_S)
        )
        log.info("http_serving", listen=self._listen, port=self.port)

    async def stop(self) -> None:
        """Take no new connections, finish the running requests, close."""
        self._server.should_exit = True
        await self._before_stop()
        if self._serving is not None:
            await self._serving
        if self._closing_late is not None:
            self._closing_late.cancel()
