"""The gRPC load generator.

`python -m benchmarks.generators.grpc`, a GrpcLoad in, a LoadResult out.
"""

import asyncio
import gc
import sys
import time
from typing import Any

import grpc
import msgspec
import uvloop
from usageflow.ingest.v1.ingest_pb2 import (
    RECEIPT_STATUS_ACCEPTED,
    RECEIPT_STATUS_DUPLICATE,
    RecordEventsResponse,
)

from benchmarks.errors import BenchmarkError
from benchmarks.generators.pace import Pace
from benchmarks.generators.requests import Requests, grpc_templates
from benchmarks.generators.window import Window
from benchmarks.messages import OVERLOADED_GRPC, GrpcLoad, LoadResult

SERVICE = "/usageflow.ingest.v1.IngestService"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CALL_S_MAX = 60.0
TICK_S = 0.002
# google.rpc.Status, in which a RetryInfo is: its type's name stands there as it is.
DETAILS = "grpc-status-details-bin"
RETRY_INFO = b"google.rpc.RetryInfo"


def receipts_in(response: bytes) -> tuple[int, int]:
    """How many receipts say that the event is new, and how many that it is known."""
    statuses = [receipt.status for receipt in RecordEventsResponse.FromString(response).receipts]
    return statuses.count(RECEIPT_STATUS_ACCEPTED), statuses.count(RECEIPT_STATUS_DUPLICATE)


def refusal(error: grpc.aio.AioRpcError) -> str:
    """What a call was answered, in words: OVERLOADED_GRPC when it may be repeated after a while."""
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        details: Any = error.trailing_metadata() or ()
        if any(name == DETAILS and RETRY_INFO in value for name, value in details):
            return OVERLOADED_GRPC
    return f"{error.code().name}: {error.details()}"


class Generator:
    """Keeps calls or streams busy, or a schedule of calls, until the window ends."""

    def __init__(self, load: GrpcLoad, channel: grpc.aio.Channel) -> None:
        templates = grpc_templates(load.metric, load.events_per_request)
        self._requests = Requests(templates, load.run, load.known_requests)
        self._load = load
        self._metadata = (("x-usageflow-api-key", load.api_key),)
        # Bytes in, bytes out: the message is built once, in requests.py.
        self._record: Any = channel.unary_unary(f"{SERVICE}/RecordEvents")
        self._record_stream: Any = channel.stream_stream(f"{SERVICE}/StreamEvents")
        self._window = Window(load.warm_up_s, load.measure_s)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> LoadResult:
        """Load, and wait for the last answers."""
        load = self._load
        asyncio.get_running_loop().call_later(load.warm_up_s, self._window.note_cpu_at_begin)
        if load.rate_per_s is not None:
            await self._scheduled(Pace(load.rate_per_s, time.perf_counter()))
        else:
            worker = self._stream if load.stream else self._calls
            async with asyncio.TaskGroup() as group:
                for _ in range(load.in_flight):
                    group.create_task(worker())
        return self._window.result(self._requests.count)

    def _goes_on(self) -> bool:
        if self._requests.count == self._load.requests_max:
            self._window.end_now()
        if time.perf_counter() < self._window.end_s:
            return True
        self._window.note_cpu_at_end()
        return False

    async def _calls(self) -> None:
        while self._goes_on():
            await self._call(time.perf_counter())

    async def _call(self, begun_s: float) -> None:
        try:
            response = await self._record(
                self._requests.take(), metadata=self._metadata, timeout=CALL_S_MAX
            )
        except grpc.aio.AioRpcError as error:
            self._window.refused(begun_s, refusal(error))
        else:
            self._window.answered(begun_s, *receipts_in(response))

    async def _scheduled(self, pace: Pace) -> None:
        while self._goes_on():
            for due_s in pace.take(time.perf_counter()):
                if len(self._running) < self._load.in_flight:
                    task = asyncio.create_task(self._call(due_s))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                elif self._load.overload:
                    self._window.unsent += 1
                else:
                    raise BenchmarkError(f"{len(self._running)} calls behind the schedule")
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*self._running)

    async def _stream(self) -> None:
        call = self._record_stream(metadata=self._metadata)
        begun_s = time.perf_counter()
        try:
            while self._goes_on():
                begun_s = time.perf_counter()
                await call.write(self._requests.take())
                self._window.answered(begun_s, *receipts_in(await call.read()))
            await call.done_writing()
            await call.read()
        except grpc.aio.AioRpcError as error:
            self._window.refused(begun_s, refusal(error))


async def main() -> None:
    """Run the load that stdin describes."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=GrpcLoad)
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.lb_policy_name", "round_robin"),  # over all replicas of an address
    ]
    async with grpc.aio.insecure_channel(load.address, options=options) as channel:
        await channel.channel_ready()
        generator = Generator(load, channel)
        gc.freeze()
        gc.disable()
        result = await generator.run()
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
