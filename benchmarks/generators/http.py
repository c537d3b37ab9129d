"""The HTTP load generator.

`python -m benchmarks.generators.http`, an HttpLoad in, a LoadResult out.
"""

import asyncio
import gc
import sys
import time
from collections import deque

import msgspec
import uvloop

from benchmarks.errors import BenchmarkError
from benchmarks.generators.http_client import Connection, response_body
from benchmarks.generators.pace import Pace
from benchmarks.generators.requests import Requests, http_templates
from benchmarks.generators.window import Window
from benchmarks.messages import OVERLOADED_HTTP, HttpLoad, LoadResult

LAST_ANSWERS_S_MAX = 60.0
TICK_S = 0.002
REQUESTS_LATE_MAX = 200_000
REPLAYED = b"dempotent-replayed: true"


class _BatchAnswer(msgspec.Struct):
    accepted: int
    duplicates: int


_decode_batch_answer = msgspec.json.Decoder(_BatchAnswer).decode


def refusal(response: bytes) -> str:
    """What a request was answered, in words: OVERLOADED_HTTP when it may be repeated soon."""
    head, _, body = response.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 503") and b"\r\nretry-after: " in head.lower():
        return OVERLOADED_HTTP
    return f"{head[9:12].decode()} {body[:200].decode(errors='replace')}"


class Generator:
    """Keeps all connections busy, or a schedule, until the window ends."""

    def __init__(self, load: HttpLoad) -> None:
        self._load = load
        self._requests = Requests(http_templates(load), load.run, load.known_requests)
        self._single = load.shape == "single"
        self._idle: list[Connection] = []
        self._late: deque[float] = deque()
        self._outstanding = 0
        self._sending = True
        loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = loop.create_future()
        self._window = Window(0, 0)

    async def run(self) -> LoadResult:
        """Connect, load, wait for the last answers. BenchmarkError when the server fails."""
        load, loop = self._load, asyncio.get_running_loop()
        for _ in range(load.connections):
            _, connection = await loop.create_connection(self._connect, load.host, load.port)
            self._idle.append(connection)
        self._window = Window(load.warm_up_s, load.measure_s)
        loop.call_later(load.warm_up_s, self._window.note_cpu_at_begin)
        loop.call_later(load.warm_up_s + load.measure_s, self._end)
        connections = self._idle.copy()
        if load.rate_per_s is None:
            self._idle.clear()
            for connection in connections:
                self._send(connection, time.perf_counter())
        else:
            self._tick(Pace(load.rate_per_s, time.perf_counter()))
        async with asyncio.timeout(load.warm_up_s + load.measure_s + LAST_ANSWERS_S_MAX):
            await self._done
        for connection in connections:
            connection.close()
        return self._window.result(self._requests.count)

    def _connect(self) -> Connection:
        return Connection(self._on_response, self._on_lost)

    def _send(self, connection: Connection, begun_s: float) -> None:
        if self._requests.count == self._load.requests_max:
            self._window.end_now()
            self._end()
            return
        self._outstanding += 1
        connection.send(self._requests.take(), begun_s)

    def _on_response(self, connection: Connection, begun_s: float, response: bytes) -> None:
        self._outstanding -= 1
        if not response.startswith(b"HTTP/1.1 200"):
            self._window.refused(begun_s, refusal(response))
        elif self._single:
            duplicates = int(REPLAYED in response)
            self._window.answered(begun_s, 1 - duplicates, duplicates)
        else:
            answer = _decode_batch_answer(response_body(response))
            self._window.answered(begun_s, answer.accepted, answer.duplicates)
        if not self._sending:
            self._finish_when_answered()
        elif self._load.rate_per_s is None:
            self._send(connection, time.perf_counter())
        elif self._late:
            self._send(connection, self._late.popleft())
        else:
            self._idle.append(connection)

    def _tick(self, pace: Pace) -> None:
        if not self._sending:
            return
        self._late.extend(pace.take(time.perf_counter()))
        while self._late and self._idle:
            self._send(self._idle.pop(), self._late.popleft())
        if self._load.overload:
            self._window.unsent += len(self._late)
            self._late.clear()
        elif len(self._late) > REQUESTS_LATE_MAX:
            self._on_lost(BenchmarkError(f"{len(self._late)} requests behind the schedule"))
            return
        asyncio.get_running_loop().call_later(TICK_S, self._tick, pace)

    def _end(self) -> None:
        if not self._sending:
            return
        self._window.note_cpu_at_end()
        self._sending = False
        self._finish_when_answered()

    def _finish_when_answered(self) -> None:
        if not self._outstanding and not self._done.done():
            self._done.set_result(None)

    def _on_lost(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


async def main() -> None:
    """Run the load that stdin describes."""
    generator = Generator(msgspec.json.decode(sys.stdin.buffer.read(), type=HttpLoad))
    gc.freeze()
    gc.disable()
    result = await generator.run()
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
