"""How soon an acknowledged event is in the answers about usage: `python -m
benchmarks.generators.visible`, a VisibleProbe in, a VisibleResult out.

Each of a few customers sends an event, waits until it is in the usage, pauses, sends the next. One
query, grouped by customer, looks for all of them at once, POLL_S after the answer to the one
before: the figures are too high by up to that and the time of a query, never too low.
"""

import asyncio
import random
import secrets
import sys
import time
from array import array
from typing import Any

import grpc
import msgspec
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc

from benchmarks.errors import BenchmarkError
from benchmarks.figures import percentile
from benchmarks.generators.http_client import Connection
from benchmarks.generators.requests import Requests, http_templates
from benchmarks.messages import HttpLoad, VisibleProbe, VisibleResult

POLL_S = 0.01
PAUSE_S_MAX = 0.2
VISIBLE_S_MAX = 60.0
DAY_S = 86_400


def usage_since_yesterday(metric: str, *, by_customer: bool) -> aggregator_pb2.QueryUsageRequest:
    """A query for all usage of `metric` from yesterday 00:00 UTC to tomorrow's end."""
    today_s = int(time.time()) // DAY_S * DAY_S
    request = aggregator_pb2.QueryUsageRequest(
        metric=metric,
        to=Timestamp(seconds=today_s + 2 * DAY_S),
        group_by=["customerId"] if by_customer else [],
    )
    # "from" is a word of Python.
    getattr(request, "from").CopyFrom(Timestamp(seconds=today_s - DAY_S))
    return request


class Customer:
    """One sender of probes; `sent` is what its usage has to be."""

    def __init__(self, load: HttpLoad, name: str, template: bytes) -> None:
        self._load = load
        self.name = name
        self._requests = Requests([template], secrets.token_hex(8))
        self._answer: asyncio.Future[bytes]
        self.sent = 0
        self.visible = asyncio.Event()

    async def connect(self) -> None:
        """Open its connection."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        _, self._connection = await loop.create_connection(
            lambda: Connection(self._on_response, self._on_lost), self._load.host, self._load.port
        )

    def _on_response(self, _connection: Connection, _begun_s: float, response: bytes) -> None:
        self._answer.set_result(response)

    def _on_lost(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)

    async def probe(self) -> float:
        """Send one event; seconds from its answer to its being in the usage."""
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(self._requests.take(), time.perf_counter())
        response = await self._answer
        answered_s = time.perf_counter()
        if not response.startswith(b"HTTP/1.1 200"):
            raise BenchmarkError(f"a probe was answered {response[:200]!r}")
        self.sent += 1
        self.visible.clear()
        async with asyncio.timeout(VISIBLE_S_MAX):
            await self.visible.wait()
        return time.perf_counter() - answered_s


async def send(customer: Customer, until_s: float, latencies_s: "array[float]") -> None:
    """Probe again and again."""
    await customer.connect()
    while time.perf_counter() < until_s:
        await asyncio.sleep(random.uniform(0, PAUSE_S_MAX))
        latencies_s.append(await customer.probe())


async def send_all(customers: list[Customer], until_s: float, latencies_s: "array[float]") -> None:
    """Let all customers probe at once."""
    async with asyncio.TaskGroup() as group:
        for customer in customers:
            group.create_task(send(customer, until_s, latencies_s))


async def watch(stub: Any, probe: VisibleProbe, customers: list[Customer]) -> None:
    """Query usage for ever, and wake the customers whose event is in it."""
    metadata = (("x-usageflow-api-key", probe.api_key),)
    request = usage_since_yesterday(probe.metric, by_customer=True)
    while True:
        response = await stub.QueryUsage(request, metadata=metadata, timeout=VISIBLE_S_MAX)
        usage = {row.group["customerId"]: int(row.value) for row in response.rows}
        for customer in customers:
            if usage.get(customer.name, 0) == customer.sent:
                customer.visible.set()
        await asyncio.sleep(POLL_S)


async def run(probe: VisibleProbe) -> VisibleResult:
    """Probe for `measure_s` seconds."""
    load = HttpLoad(
        host=probe.host,
        port=probe.port,
        path="/api/track",
        api_key=probe.api_key,
        metric=probe.metric,
        connections=1,
        warm_up_s=0,
        measure_s=probe.measure_s,
    )
    customers = [
        Customer(load, f"user_{number:04d}", template)
        for number, template in enumerate(http_templates(load)[: probe.customers])
    ]
    latencies_s = array("d")
    until_s = time.perf_counter() + probe.measure_s
    async with grpc.aio.insecure_channel(probe.aggregator) as channel:
        stub = aggregator_pb2_grpc.AggregatorServiceStub(channel)
        watching = asyncio.create_task(watch(stub, probe, customers))
        sending = asyncio.create_task(send_all(customers, until_s, latencies_s))
        await asyncio.wait({watching, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            sending.cancel()
            await watching  # it never ends but by an error
        watching.cancel()
        await sending
    ordered = sorted(latencies_s)
    return VisibleResult(
        accepted=sum(customer.sent for customer in customers),
        p50_ms=percentile(ordered, 0.50) * 1_000,
        p99_ms=percentile(ordered, 0.99) * 1_000,
    )


async def main() -> None:
    """Run the probes that stdin describes."""
    result = await run(msgspec.json.decode(sys.stdin.buffer.read(), type=VisibleProbe))
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
