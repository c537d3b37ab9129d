"""Two gateways behind a balancer, restarted in turn under load: no request fails.

USAGEFLOW_ROLLING_RESTARTS says how often (`make rolling`: 50).
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from usageflow.aggregator.v1 import aggregator_pb2

from cli.embedded import EmbeddedNats
from cli.ports import free_port
from tests.integration.gateway.conftest import TOKEN, World, serving_services

RESTARTS = int(os.environ.get("USAGEFLOW_ROLLING_RESTARTS", "4"))
CLIENTS = 6
DRAIN_S = 0.5
PROBE_S = 0.05
PIECE_BYTES = 64 * 1024
EVENT = json.dumps({"metric": "API_CALL", "amount": 1}).encode()


class Balancer:
    """Passes connections on to the gateways that say that they are ready, and knows no HTTP."""

    def __init__(self, ports: list[int]) -> None:
        self.ready = dict.fromkeys(ports, False)
        self._turn = 0
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Its port."""
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self._tasks = [asyncio.create_task(self._probe(port)) for port in self.ready]
        async with server:
            yield server.sockets[0].getsockname()[1]
        for task in self._tasks:
            task.cancel()

    async def wait_ready(self, port: int) -> None:
        """Until the gateway takes requests."""
        while not self.ready[port]:
            await asyncio.sleep(PROBE_S)

    async def _probe(self, port: int) -> None:
        while True:
            self.ready[port] = await self._is_ready(port)
            await asyncio.sleep(PROBE_S)

    async def _is_ready(self, port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
        except OSError:
            return False
        return answer.startswith(b"HTTP/1.1 200")

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = [port for port, ready in self.ready.items() if ready]
        self._turn += 1
        there = await asyncio.open_connection("127.0.0.1", ports[self._turn % len(ports)])
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


class Client:
    """One request after the other, over one connection as long as it is left open."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        head = b"Host: a\r\nx-usageflow-api-key: %b\r\n" % key.encode()
        self._requests = [
            b"POST /api/track HTTP/1.1\r\n%bContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (head, len(EVENT), EVENT),
            b"GET /api/metrics HTTP/1.1\r\n%b\r\n" % head,
        ]
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.answers: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; whatever is no answer 200 is noted, and nothing is tried again."""
        while not stop.is_set():
            request = self._requests[self.answers.total() % 2]
            try:
                self.answers[await self._ask(request)] += 1
            except (OSError, EOFError) as error:
                self.answers[repr(error)] += 1
                self._streams = None
            await asyncio.sleep(0.005)
        if self._streams is not None:
            self._streams[1].close()

    async def _ask(self, request: bytes) -> str:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        if b"connection: close" in head:
            writer.close()
            self._streams = None
        return head.split(b" ", 2)[1].decode()


@asynccontextmanager
async def gateway_process(
    nats_url: str, services_port: int, port: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway as production runs it."""
    services = ("ACCOUNTS", "INGEST", "AGGREGATOR", "INVOICER", "NOTIFIER")
    settings = {f"USAGEFLOW_{name}_ADDRESS": f"127.0.0.1:{services_port}" for name in services}
    settings |= {
        "USAGEFLOW_NATS_URL": nats_url,
        "USAGEFLOW_INTERNAL_TOKEN": TOKEN.get_secret_value(),
        "USAGEFLOW_HTTP_LISTEN": f"127.0.0.1:{port}",
        "USAGEFLOW_DRAIN_S": str(DRAIN_S),
        "USAGEFLOW_LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", env=os.environ | settings
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_gateways_are_restarted_in_turn_and_no_request_fails(
    nats_server: EmbeddedNats,
) -> None:
    world = World()
    world.recording.set()
    world.answers["ListMetrics"] = aggregator_pb2.ListMetricsResponse()
    ports = [free_port(), free_port()]
    balancer = Balancer(ports)
    stop = asyncio.Event()
    async with (
        serving_services(world) as services,
        balancer.serving() as port,
        contextlib.AsyncExitStack() as stays,
    ):
        stacks = {
            each: await stays.enter_async_context(contextlib.AsyncExitStack()) for each in ports
        }
        for each, stack in stacks.items():
            await stack.enter_async_context(gateway_process(nats_server.url, services.port, each))
            await balancer.wait_ready(each)
        clients = [Client(port, world.new_key()) for _ in range(CLIENTS)]
        load = [asyncio.create_task(client.run(stop)) for client in clients]
        for number in range(RESTARTS):
            each = ports[number % 2]
            # The process ends, and with code 0, before the next one takes its port.
            await stacks[each].aclose()
            await stacks[each].enter_async_context(
                gateway_process(nats_server.url, services.port, each)
            )
            await balancer.wait_ready(each)
        stop.set()
        await asyncio.gather(*load)
    answers = sum((client.answers for client in clients), Counter[str]())
    print(f"rolling restarts={RESTARTS} requests={answers.total()} answers={dict(answers)}")
    assert answers.keys() == {"200"}
    assert answers["200"] > 10 * RESTARTS
