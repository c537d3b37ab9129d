"""Unary gRPC calls in the event loop's own thread, to one or more replicas in turn.

For what all events go by (gateway to ingest); everything else goes by grpc.aio (kit.grpc_client),
of which a call takes longer than the rest of the way (ADR 59). Bytes in, bytes out.
"""

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

import grpc
import structlog
from grpc import StatusCode

from services.kit.grpc_client import RECONNECT_MS_MAX, Metadata
from services.kit.http2.client_connection import AwayError, ClientConnection

log = structlog.get_logger()

# As kit.grpc_client has them for grpc.aio.
ATTEMPTS_MAX: Final = 4
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_FACTOR: Final = 2
BACKOFF_JITTER: Final = 0.2
RECONNECT_FIRST_S: Final = 0.1
RECONNECT_S_MAX: Final = RECONNECT_MS_MAX / 1_000
# Until a server has answered to a connection.
CONNECT_S_MAX: Final = 5.0
# How often names are looked up while all is well: replicas come and go.
RESOLVE_S: Final = 30.0
_Address: TypeAlias = tuple[str, int]
_PUSHBACK = "grpc-retry-pushback-ms"


class Channel:
    """Calls that may be repeated: what is UNAVAILABLE is tried again, elsewhere if possible."""

    def __init__(self, address: str) -> None:
        """`address`: "host:port", or "ipv4:host:port,host:port" for several replicas. A host may
        have several addresses, each a replica. Connects with the first call.
        """
        self._names = [_host_and_port(each) for each in address.removeprefix("ipv4:").split(",")]
        self._connections: list[ClientConnection] = []
        self._turn = 0
        self._connecting: asyncio.Task[None] | None = None
        # Whether connecting was tried and nobody was there, since the last time when somebody was.
        self._away: AwayError | None = None
        self._changed = asyncio.Event()
        self._lost = asyncio.Event()

    async def call(
        self, method: str, request: bytes, timeout_s: float, metadata: Metadata
    ) -> bytes:
        """The answer's message. grpc.aio.AioRpcError, as grpc.aio would raise it."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        backoff_s = BACKOFF_FIRST_S
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                connection = await self._connection(deadline_s)
                left_s = max(deadline_s - loop.time(), 0.001)
                return await connection.call(method, request, left_s, metadata)
            except AwayError as error:
                refusal = grpc.aio.AioRpcError(
                    StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), str(error)
                )
            except grpc.aio.AioRpcError as error:
                if not _may_be_repeated(error):
                    raise
                refusal = error
            pause_s = backoff_s * random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)  # noqa: S311 (no secret)
            if attempt == ATTEMPTS_MAX or loop.time() + pause_s >= deadline_s:
                raise refusal
            await asyncio.sleep(pause_s)
            backoff_s *= BACKOFF_FACTOR
        raise AssertionError("the last attempt returns or raises")

    async def _connection(self, deadline_s: float) -> ClientConnection:
        """The next in turn. AwayError: there is none, and nobody was there just now."""
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._stay_connected())
        while not self._connections:
            if self._away is not None:
                raise self._away
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._changed.wait()
            except TimeoutError:
                raise AwayError("nobody has answered in time") from None
        self._turn += 1
        return self._connections[self._turn % len(self._connections)]

    async def _stay_connected(self) -> None:
        """Keep a connection to each replica, until cancelled."""
        connected: dict[_Address, ClientConnection] = {}
        missing: set[_Address] = set()
        pause_s = RECONNECT_FIRST_S
        while True:
            self._lost.clear()
            found = await self._addresses()
            for address, connection in connected.items():
                if found and address not in found:
                    connection.leave()
            connected = {key: each for key, each in connected.items() if each.open}
            wanted = [each for each in found if each not in connected]
            made = await asyncio.gather(*map(_connected, wanted, [self._note_lost] * len(wanted)))
            connected |= {key: one for key, one in zip(wanted, made, strict=True) if one}
            self._connections = [one for one in connected.values() if one.open]
            self._away = None if self._connections else AwayError("nobody is there")
            self._changed.set()
            self._changed.clear()
            if missing != (missing := found - connected.keys()):
                log.info("replicas_changed", there=sorted(connected), away=sorted(missing))
            if found and not missing:
                pause_s = RECONNECT_FIRST_S
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), RESOLVE_S)
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * BACKOFF_FACTOR, RECONNECT_S_MAX)

    async def _addresses(self) -> set[_Address]:
        loop = asyncio.get_running_loop()
        found: set[_Address] = set()
        for host, port in self._names:
            try:
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                log.warning("name_unknown", host=host, error=str(error))
                continue
            found |= {(str(info[4][0]), int(info[4][1])) for info in infos}
        return found

    def _note_lost(self) -> None:
        self._connections = [each for each in self._connections if each.open]
        self._lost.set()

    async def close(self) -> None:
        """At once; calls without an answer fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        for connection in self._connections:
            connection.abort("the channel is closed")


async def _connected(address: _Address, lost: Callable[[], None]) -> ClientConnection | None:
    """A connection on which calls may be made; None: nobody is there."""
    connection: ClientConnection | None = None
    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: ClientConnection(f"{address[0]}:{address[1]}", lost), *address
            )
            await connection.ready
    except (OSError, AwayError, TimeoutError):
        if connection is not None:
            connection.abort("it was too slow")
        return None
    return connection


def _may_be_repeated(error: grpc.aio.AioRpcError) -> bool:
    """A server that pushes back says when, or that nobody should: then nobody does."""
    trailing = error.trailing_metadata()
    return error.code() is StatusCode.UNAVAILABLE and not (trailing and _PUSHBACK in trailing)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("dns:///").rpartition(":")
    return host.strip("[]"), int(port)
