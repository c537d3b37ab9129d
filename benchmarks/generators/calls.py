"""A generator of unary calls: `python -m benchmarks.generators.calls`, a CallLoad in, a LoadResult
out. Bytes in, bytes out: requests are built before, answers are not looked into.

One connection, and no gRPC library, whose client takes as long for a call as a server does.
"""

import asyncio
import gc
import itertools
import sys
import time

import msgspec
import uvloop

from benchmarks.generators.grpc_client import Connection
from benchmarks.generators.window import Window
from benchmarks.messages import CallLoad, LoadResult

CALL_TIMEOUT = "30S"


class Calls:
    """The calls of a load, `in_flight` at once until the window ends."""

    def __init__(self, load: CallLoad) -> None:
        self._load = load
        self._requests = itertools.cycle(load.requests)
        self._window = Window(load.warm_up_s, load.measure_s)
        self._sent = 0
        self._unanswered = 0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> LoadResult:
        """Call until the window ends, and wait for the last answers. BenchmarkError."""
        load, loop = self._load, asyncio.get_running_loop()
        host, _, port = load.address.rpartition(":")
        metadata = (("grpc-timeout", CALL_TIMEOUT), ("x-usageflow-api-key", load.api_key))
        _, self._connection = await loop.create_connection(
            lambda: Connection(load.method, metadata, self._answered, self._lost), host, int(port)
        )
        loop.call_later(load.warm_up_s, self._window.note_cpu_at_begin)
        for _ in range(load.in_flight):
            self._call(time.perf_counter())
        await self._ended
        self._window.note_cpu_at_end()
        self._connection.close()
        return self._window.result(self._sent)

    def _call(self, now_s: float) -> None:
        self._sent += 1
        self._unanswered += 1
        self._connection.send(next(self._requests), now_s)

    def _answered(self, begun_s: float, refusal: str) -> None:
        self._unanswered -= 1
        if refusal:
            self._window.refused(begun_s, refusal)
        else:
            self._window.answered(begun_s, 1)
        now_s = time.perf_counter()
        if now_s < self._window.end_s:
            self._call(now_s)
        elif not self._unanswered and not self._ended.done():
            self._ended.set_result(None)

    def _lost(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)


async def main() -> None:
    """Run the load that stdin describes."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=CallLoad)
    gc.freeze()
    gc.disable()
    result = await Calls(load).run()
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
