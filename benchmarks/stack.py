"""The stack that is measured, and what its usage has to be."""

import asyncio
import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc

from benchmarks.errors import BenchmarkError
from benchmarks.generators.visible import usage_since_yesterday
from benchmarks.segments import bare_segments, closed_segments
from cli.connection import Connection

# How long the usage may stand still before all is in it.
SETTLE_STILL_S_MAX = 60.0
SETTLE_POLL_S = 0.02
EQUIP_S_MAX = 1_800.0
EQUIP_POLL_S = 1.0
CALL_S_MAX = 30.0
KEY_HEADER = "x-usageflow-api-key"


@dataclass(frozen=True)
class Answer:
    """An answer of the gateway."""

    status: int
    headers: list[tuple[str, str]]
    body: str


class MeasuredStack:
    """A running stack; counts what it acknowledged and compares it with its usage."""

    def __init__(self, connection: Connection, ports: Mapping[str, int]) -> None:
        """`ports` are those of every process by its name ("ingest", "ingest-2", ..)."""
        self.connection = connection
        self._ports = ports
        url = urlsplit(connection.http)
        self.host = url.hostname or ""
        self.port = url.port or 0
        self._metadata = ((KEY_HEADER, connection.api_key),)
        self._accepted: dict[str, int] = {}
        self._channel = grpc.insecure_channel(connection.grpc["aggregator"])
        self._aggregator = aggregator_pb2_grpc.AggregatorServiceStub(self._channel)

    def close(self) -> None:
        """Let go of the stack; it runs on."""
        self._channel.close()

    def define(self, metric: str) -> None:
        """Make the metric known; otherwise its first event does, a moment after it is accepted."""
        request = aggregator_pb2.CreateMetricRequest(metric=aggregator_pb2.Metric(key=metric))
        self._call(self._aggregator.CreateMetric, request)

    def usage(self, metric: str) -> int:
        """What aggregator says that was used of `metric`, which is defined."""
        return self.usage_of(usage_since_yesterday(metric, by_customer=False))

    def usage_of(self, request: aggregator_pb2.QueryUsageRequest) -> int:
        """The sum of all rows of an answer."""
        response = self._call(self._aggregator.QueryUsage, request)
        return sum(int(row.value) for row in response.rows)

    def _call(self, method: Any, request: Message) -> Any:
        try:
            return method(request, metadata=self._metadata, timeout=CALL_S_MAX)
        except grpc.RpcError as error:
            raise BenchmarkError(f"aggregator refuses: {error}") from error

    def gateways(self) -> list[tuple[str, int]]:
        """Host and port of every gateway."""
        urls = [urlsplit(url) for url in (self.connection.http, *self.connection.http_replicas)]
        return [(url.hostname or "", url.port or 0) for url in urls]

    def ingest_address(self) -> str:
        """The address of all ingests together, for gRPC."""
        names = [name for name in self.connection.pids if name.partition("-")[0] == "ingest"]
        return "ipv4:" + ",".join(f"127.0.0.1:{self._ports[name]}" for name in sorted(names))

    def closed_segments(self) -> int | None:
        """How many segments of events are closed and fully equipped; None: there are none."""
        return asyncio.run(closed_segments(self.connection.databases["ingest"]))

    def await_segments(self) -> None:
        """Wait until every closed segment is equipped."""
        deadline_s = time.monotonic() + EQUIP_S_MAX
        while asyncio.run(bare_segments(self.connection.databases["ingest"])):
            if time.monotonic() > deadline_s:
                raise BenchmarkError("closed segments do not get their key filters and indexes")
            time.sleep(EQUIP_POLL_S)

    def settle(self, metric: str, accepted: int, uncertain: int = 0) -> float:
        """Wait until all that was ever accepted of `metric` is in its usage; the seconds it took.

        `accepted` events, of amount 1, came on top of what was settled before, and of `uncertain`
        others nobody knows. BenchmarkError when the usage is larger, or when it is smaller and
        stands still for SETTLE_STILL_S_MAX seconds.
        """
        expected = self._accepted.get(metric, 0) + accepted
        self._accepted[metric] = expected
        begun_s = moved_s = time.perf_counter()
        before = -1
        while (usage := self.usage(metric)) < expected:
            now_s = time.perf_counter()
            if usage != before:
                before, moved_s = usage, now_s
            if now_s - moved_s > SETTLE_STILL_S_MAX:
                raise BenchmarkError(
                    f"{metric}: {expected} events were accepted, but the usage stays at {usage}"
                )
            time.sleep(SETTLE_POLL_S)
        if usage > expected + uncertain:
            raise BenchmarkError(f"{metric}: {expected} events were accepted, but {usage} used")
        self._accepted[metric] = usage
        return time.perf_counter() - begun_s

    def post(self, path: str, content_type: str, body: str) -> Answer:
        """Send one request to the gateway."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=CALL_S_MAX)
        headers = {KEY_HEADER: self.connection.api_key, "Content-Type": content_type}
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read().decode())
        finally:
            connection.close()
