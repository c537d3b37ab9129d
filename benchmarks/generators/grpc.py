"""The gRPC load generator.

`python -m benchmarks.generators.grpc`, a GrpcLoad in, a LoadResult out.
"""

import asyncio
import gc
import secrets
import sys
import time
from typing import Any

import grpc
import msgspec
import uvloop
from usageflow.ingest.v1.ingest_pb2 import RECEIPT_STATUS_ACCEPTED, RecordEventsResponse

from benchmarks.generators.requests import Requests, grpc_templates
from benchmarks.generators.window import Window
from benchmarks.messages import GrpcLoad

SERVICE = "/usageflow.ingest.v1.IngestService"
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
CALL_S_MAX = 60.0


def accepted_in(response: bytes) -> int:
    """How many receipts say that the event is new."""
    receipts = RecordEventsResponse.FromString(response).receipts
    return sum(receipt.status == RECEIPT_STATUS_ACCEPTED for receipt in receipts)


class Generator:
    """Keeps `in_flight` calls or streams busy until the window ends."""

    def __init__(self, load: GrpcLoad, channel: grpc.aio.Channel) -> None:
        templates = grpc_templates(load.metric, load.events_per_request)
        self._requests = Requests(templates, secrets.token_hex(8))
        self._load = load
        self._channel = channel
        self._metadata = (("x-usageflow-api-key", load.api_key),)
        self._window = Window(load.warm_up_s, load.measure_s)

    async def run(self) -> Window:
        """Load, and wait for the last answers."""
        loop = asyncio.get_running_loop()
        loop.call_later(self._load.warm_up_s, self._window.note_cpu_at_begin)
        loop.call_later(self._load.warm_up_s + self._load.measure_s, self._window.note_cpu_at_end)
        worker = self._stream if self._load.stream else self._calls
        async with asyncio.TaskGroup() as group:
            for _ in range(self._load.in_flight):
                group.create_task(worker())
        return self._window

    async def _calls(self) -> None:
        # Bytes in, bytes out: the message is built once, in requests.py.
        record: Any = self._channel.unary_unary(f"{SERVICE}/RecordEvents")
        while (begun_s := time.perf_counter()) < self._window.end_s:
            try:
                response = await record(
                    self._requests.take(), metadata=self._metadata, timeout=CALL_S_MAX
                )
            except grpc.aio.AioRpcError as error:
                self._window.refused(f"{error.code().name}: {error.details()}")
            else:
                self._window.answered(begun_s, accepted_in(response))

    async def _stream(self) -> None:
        stream: Any = self._channel.stream_stream(f"{SERVICE}/StreamEvents")
        call = stream(metadata=self._metadata)
        try:
            while (begun_s := time.perf_counter()) < self._window.end_s:
                await call.write(self._requests.take())
                response = await call.read()
                self._window.answered(begun_s, accepted_in(response))
            await call.done_writing()
            await call.read()
        except grpc.aio.AioRpcError as error:
            self._window.refused(f"{error.code().name}: {error.details()}")


async def main() -> None:
    """Run the load that stdin describes."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=GrpcLoad)
    options = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ]
    async with grpc.aio.insecure_channel(load.address, options=options) as channel:
        await channel.channel_ready()
        generator = Generator(load, channel)
        gc.freeze()
        gc.disable()
        window = await generator.run()
    sys.stdout.buffer.write(msgspec.json.encode(window.result()))


if __name__ == "__main__":
    uvloop.run(main())
