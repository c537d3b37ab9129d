"""Unary gRPC calls in the event loop's own thread, to one or more replicas in turn.

For what all events go by (gateway to ingest); everything else goes by grpc.aio (kit.grpc_client),
of which a call takes longer than the rest of the way (ADR 59). Bytes in, bytes out.
"""

import asyncio
import random
import socket
import weakref
from collections.abc import Callable
from typing import Final, TypeAlias

import grpc
import structlog
from grpc import StatusCode

from services.kit.grpc_client import RECONNECT_MS_MAX, Metadata
from services.kit.http2.client_connection import AwayError, ClientConnection, rpc_error
from services.kit.waiting import happens

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
# A connection that was over sooner is no reason to try again at once.
STEADY_S: Final = 5.0
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
        # What each name said when it was last looked up with success.
        self._known: dict[_Address, set[_Address]] = {}
        self._replicas: dict[_Address, _Replica] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = self._closed = False
        self._turn = 0
        # Somebody is there who was not, or the other way round.
        self._changed = asyncio.Event()
        self._lost = asyncio.Event()
        self._connections: weakref.WeakSet[ClientConnection] = weakref.WeakSet()

    async def call(
        self, method: str, request: bytes, timeout_s: float, metadata: Metadata
    ) -> bytes:
        """The answer's message. grpc.aio.AioRpcError, as grpc.aio would raise it; ValueError for
        metadata that is not allowed.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        backoff_s = BACKOFF_FIRST_S
        for attempt in range(1, ATTEMPTS_MAX + 1):
            pause_s = _jittered(backoff_s)
            try:
                connection = await self._connection(deadline_s)
                left_s = max(deadline_s - loop.time(), 0.001)
                return await connection.call(method, request, left_s, metadata)
            except AwayError as error:
                refusal = rpc_error(StatusCode.UNAVAILABLE, str(error))
                if error.unseen and attempt == 1:
                    # As a proxy ends its connections, which is no reason to wait.
                    pause_s = 0.0
            except grpc.aio.AioRpcError as error:
                if not _may_be_repeated(error):
                    raise
                refusal = error
            if self._closed or attempt == ATTEMPTS_MAX or loop.time() + pause_s >= deadline_s:
                raise refusal
            await asyncio.sleep(pause_s)
            backoff_s *= BACKOFF_FACTOR
        raise AssertionError("the last attempt returns or raises")

    async def _connection(self, deadline_s: float) -> ClientConnection:
        """The next in turn. AwayError: nobody was there when each was last tried."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._keep_looking())
        while True:
            if self._closed:
                raise AwayError("the channel is closed")
            # One that is over is so at once, and its replica learns of it in the loop's next turn.
            found = (each.connection for each in self._replicas.values())
            there = [connection for connection in found if connection and connection.open]
            if there:
                self._turn += 1
                return there[self._turn % len(there)]
            if self._looked and all(each.away for each in self._replicas.values()):
                raise AwayError("nobody is there")
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._changed.wait()
            except TimeoutError:
                raise AwayError("nobody has answered in time") from None

    async def _keep_looking(self) -> None:
        """Look names up, and have a replica for each address, until cancelled."""
        while True:
            self._lost.clear()
            try:
                await self._look_up()
            except Exception:
                log.exception("names_not_looked_up")
            self._looked = True
            self._tell()
            # Soon after one is lost: its name may have another address by then.
            await happens(self._lost, RESOLVE_S)
            await asyncio.sleep(RECONNECT_S_MAX)

    async def _look_up(self) -> None:
        for host, port in self._names:
            try:
                self._known[host, port] = await addresses_of(host, port)
            except (OSError, ValueError) as error:
                log.warning("name_not_found", host=host, error=str(error))
        wanted: set[_Address] = set().union(*self._known.values())
        for address in self._replicas.keys() - wanted:
            self._replicas.pop(address).leave()
        for address in wanted - self._replicas.keys():
            self._replicas[address] = _Replica(address, self._connections, self._tell)

    def _tell(self) -> None:
        """Wake those who wait for somebody to be there, or to know that nobody is."""
        self._changed.set()
        self._changed.clear()
        if any(each.connection is None for each in self._replicas.values()):
            self._lost.set()

    async def close(self) -> None:
        """At once; calls without an answer fail."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for replica in self._replicas.values():
            replica.leave()
        for connection in list(self._connections):
            connection.abort("the channel is closed")
        self._tell()


class _Replica:
    """An address: connected as long as somebody is there, and tried again while nobody is."""

    def __init__(
        self,
        address: _Address,
        connections: weakref.WeakSet[ClientConnection],
        changed: Callable[[], None],
    ) -> None:
        """`connections` gets all that are made; `changed` is called when there is one, when it is
        over, and when none could be made.
        """
        self._address = address
        self._connections = connections
        self._changed = changed
        # On which calls may be made.
        self.connection: ClientConnection | None = None
        # Whether nobody was there when it was last tried.
        self.away = False
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = RECONNECT_FIRST_S
        while True:
            over = asyncio.Event()
            made = await self._connect(over.set)
            if self.away != (made is None):
                log.info("replica_away" if made is None else "replica_there", address=self._address)
            self.connection, self.away = made, made is None
            self._changed()
            if made is not None:
                since_s = loop.time()
                await over.wait()
                self.connection = None
                self._changed()
                if made.told_to_leave:
                    # A proxy takes so many calls, or so long, of a connection.
                    continue
                if loop.time() - since_s > STEADY_S:
                    pause_s = RECONNECT_FIRST_S
            await asyncio.sleep(_jittered(pause_s))
            pause_s = min(pause_s * BACKOFF_FACTOR, RECONNECT_S_MAX)

    async def _connect(self, over: Callable[[], None]) -> ClientConnection | None:
        """A connection on which calls may be made; None: nobody is there."""
        connection: ClientConnection | None = None
        host, port = self._address
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: ClientConnection(f"{host}:{port}", over), host, port
                )
                self._connections.add(connection)
                await connection.ready
        except (OSError, ValueError, AwayError, TimeoutError):
            if connection is not None:
                connection.abort("it was too slow")
            return None
        return connection if connection.open else None

    def leave(self) -> None:
        """Make no more calls; those without an answer may still get theirs."""
        self._task.cancel()
        if self.connection is not None:
            self.connection.leave()
            self.connection = None


async def addresses_of(host: str, port: int) -> set[_Address]:
    """OSError, ValueError: they can't be told."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {(str(info[4][0]), int(info[4][1])) for info in infos}


def _jittered(pause_s: float) -> float:
    return pause_s * random.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)  # noqa: S311 (no secret)


def _may_be_repeated(error: grpc.aio.AioRpcError) -> bool:
    """A server that pushes back says when, or that nobody should: then nobody does."""
    trailing = error.trailing_metadata()
    return error.code() is StatusCode.UNAVAILABLE and not (trailing and _PUSHBACK in trailing)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("dns:///").rpartition(":")
    return host.strip("[]"), int(port)
