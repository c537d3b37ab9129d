"""The HTTP server: uvicorn under kit's Runtime."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, cast

import structlog
import uvicorn

from gateway.protocol import Drain, GatewayProtocol, QuickHandler, close_late

log = structlog.get_logger()

BACKLOG: Final = 2_048
KEEP_ALIVE_S: Final = 75
# For a year (RFC 6797); of this host alone, as we know of no other.
STRICT_HTTPS: Final = ("strict-transport-security", "max-age=31536000")
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
        drain_s: float,
        request_arrival_s_max: float,
        strict_https: bool,
        before_stop: Callable[[], Awaitable[None]],
    ) -> None:
        """`strict_https`: every answer tells browsers to come by https alone.

        `before_stop` ends what would not end by itself. Then, for `drain_s`, requests are taken as
        ever, but each answer closes its connection.
        """
        self._listen = listen
        self._before_stop = before_stop
        self._request_arrival_s_max = request_arrival_s_max
        self._drain_s = drain_s
        self._drain = Drain()
        protocol = functools.partial(
            GatewayProtocol,
            quick_track=quick_track,
            connections_max=connections_max,
            drain=self._drain,
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
                headers=[STRICT_HTTPS] if strict_https else [],
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, int((shutdown_s - drain_s) * DRAIN_SHARE)),
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
        # Head and body of an answer are two writes: without this the second may wait 40 ms for the
        # client's acknowledgement of the first. uvloop does it for us, asyncio does not.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = sock.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        await self._server.serving.wait()
        connections = self._server.server_state.connections
        self._closing_late = asyncio.create_task(
            close_late(connections, self._request_arrival_s_max, KEEP_ALIVE_S)
        )
        log.info("http_serving", listen=self._listen, port=self.port)

    def _begin_drain(self) -> None:
        """From now on every answer closes its connection; the next one goes elsewhere."""
        close = (b"connection", b"close")
        # The one now, the other when uvicorn next makes its default headers.
        state = self._server.server_state
        state.default_headers = [*state.default_headers, close]
        self._server.config.encoded_headers.append(close)
        self._drain.on = True
        log.info("http_draining", seconds=self._drain_s)

    async def stop(self) -> None:
        """Send away who comes, finish the running requests, close."""
        if self._drain_s:
            self._begin_drain()
            await self._before_stop()
            await asyncio.sleep(self._drain_s)
            self._server.should_exit = True
        else:
            self._server.should_exit = True
            await self._before_stop()
        if self._serving is not None:
            await self._serving
        if self._closing_late is not None:
            self._closing_late.cancel()
