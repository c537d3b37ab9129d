"""A generator of unary calls: `python -m benchmarks.generators.calls`, a CallLoad in, a LoadResult
out. Bytes in, bytes out: requests are built before, answers are not looked into.
"""

import asyncio
import gc
import itertools
import sys
import time
from typing import Any

import grpc
import msgspec
import uvloop

from benchmarks.generators.window import Window
from benchmarks.messages import CallLoad, LoadResult

CALL_S_MAX = 30.0
MESSAGE_BYTES_MAX = 16 * 1024 * 1024


async def generate(load: CallLoad, channel: grpc.aio.Channel) -> LoadResult:
    """Call until the window ends, and wait for the last answers."""
    call: Any = channel.unary_unary(load.method)
    metadata = (("x-usageflow-api-key", load.api_key),)
    requests = itertools.cycle(load.requests)
    window = Window(load.warm_up_s, load.measure_s)
    sent = 0

    async def work() -> None:
        nonlocal sent
        while (begun_s := time.perf_counter()) < window.end_s:
            sent += 1
            try:
                await call(next(requests), metadata=metadata, timeout=CALL_S_MAX)
            except grpc.aio.AioRpcError as error:
                window.refused(begun_s, f"{error.code().name}: {error.details()}")
            else:
                window.answered(begun_s, 1)

    asyncio.get_running_loop().call_later(load.warm_up_s, window.note_cpu_at_begin)
    async with asyncio.TaskGroup() as group:
        for _ in range(load.in_flight):
            group.create_task(work())
    window.note_cpu_at_end()
    return window.result(sent)


async def main() -> None:
    """Run the load that stdin describes."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=CallLoad)
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
    async with grpc.aio.insecure_channel(load.address, options=options) as channel:
        await channel.channel_ready()
        gc.freeze()
        gc.disable()
        result = await generate(load, channel)
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
