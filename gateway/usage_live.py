"""Usage as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

One call to aggregator for each stream. Only the newest answer is kept for a client that reads
slowly. A stream ends when aggregator ends it (after an hour, at its shutdown, with a revoked key),
or when this process stops; clients connect again by themselves, and are told then what is wrong.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import msgspec
import structlog
from prometheus_client import Gauge
from usageflow.aggregator.v1 import aggregator_pb2 as pb
from usageflow.aggregator.v1 import live_pb2

from gateway.calls import Calls
from gateway.errors import unavailable
from gateway.shapes.usage import from_proto
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import DEADLINE_S
from services.kit.waiting import happens

log = structlog.get_logger()

STREAMS_MAX: Final = 1_000
# What stands between here and the client takes a silent connection for dead.
HEARTBEAT_S: Final = 15.0
RETRY_MS: Final = 2_000
# Somewhat more than aggregator keeps one.
STREAM_S_MAX: Final = 3_660.0

_HEAD: Final = f"retry: {RETRY_MS}\n\n".encode()
_HEARTBEAT: Final = b": nothing has changed\n\n"
_STREAMS = Gauge("usageflow_gateway_live_streams", "Streams of usage that are open")


class LiveStreams:
    """All streams of this process."""

    def __init__(self, streams_max: int = STREAMS_MAX) -> None:
        self._streams_max = streams_max
        self._open: set[LiveStream] = set()
        self._opening = 0
        self._closed = False

    async def open(self, calls: Calls, question: pb.QueryUsageRequest) -> "LiveStream":
        """A stream that has its first answer. DomainError; HttpError 503: too many are open."""
        if self._closed:
            raise unavailable("Stopping")
        if len(self._open) + self._opening >= self._streams_max:
            raise unavailable("Too many streams are open")
        self._opening += 1
        try:
            call = calls.stream(
                calls.live.WatchUsage, live_pb2.WatchUsageRequest(question=question), STREAM_S_MAX
            )
            stream = LiveStream(call, self._open, await _first(call))
        finally:
            self._opening -= 1
        if self._closed:
            await stream.close()
            raise unavailable("Stopping")
        return stream

    async def close(self) -> None:
        """End all streams; there are no new ones."""
        self._closed = True
        for stream in list(self._open):
            await stream.close()


async def _first(call: Any) -> live_pb2.WatchUsageResponse:
    try:
        async with asyncio.timeout(DEADLINE_S):
            response = await call.read()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    except BaseException as error:
        call.cancel()
        if isinstance(error, TimeoutError):
            raise unavailable("No answer in time") from None
        raise
    if response is grpc.aio.EOF:
        raise unavailable("Stopping")
    assert isinstance(response, live_pb2.WatchUsageResponse)
    return response


class LiveStream:
    """One client's; it is in `open_streams` until close()."""

    def __init__(
        self, call: Any, open_streams: "set[LiveStream]", first: live_pb2.WatchUsageResponse
    ) -> None:
        self._call = call
        self._open_streams = open_streams
        self._newest: live_pb2.WatchUsageResponse | None = first
        self._changed = asyncio.Event()
        self._changed.set()
        self._ended = False
        open_streams.add(self)
        _STREAMS.inc()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self._newest = response
                self._changed.set()
        except grpc.aio.AioRpcError as error:
            log.info("live_stream_ended", code=error.code().name)
        finally:
            self._ended = True
            self._changed.set()

    async def events(self) -> AsyncIterator[bytes]:
        """The stream's body: an event for each answer, a comment when there is none for a while."""
        try:
            yield _HEAD
            while True:
                if not await happens(self._changed, HEARTBEAT_S):
                    yield _HEARTBEAT
                    continue
                self._changed.clear()
                newest, self._newest = self._newest, None
                if newest is not None:
                    yield _event(newest.usage)
                if self._ended:
                    return
        finally:
            await self.close()

    async def close(self) -> None:
        """End it; repeating this changes nothing."""
        if self not in self._open_streams:
            return
        self._open_streams.discard(self)
        _STREAMS.dec()
        self._call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._ended = True
        self._changed.set()


def _event(usage: pb.QueryUsageResponse) -> bytes:
    """JSON has no line breaks. The id is of no use but to tell events apart."""
    body = from_proto(usage)
    number = body.as_of.isoformat().encode()
    return b"id: %b\nevent: usage\ndata: %b\n\n" % (number, msgspec.json.encode(body))
