"""The stack that is measured, and what its usage has to be."""

import http.client
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc

from benchmarks.errors import BenchmarkError
from benchmarks.generators.visible import usage_since_yesterday
from cli.connection import Connection

SETTLE_S_MAX = 300.0
SETTLE_POLL_S = 0.02
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

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
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
        request = usage_since_yesterday(metric, by_customer=False)
        response = self._call(self._aggregator.QueryUsage, request)
        return sum(int(row.value) for row in response.rows)

    def _call(self, method: Any, request: Message) -> Any:
        try:
            return method(request, metadata=self._metadata, timeout=CALL_S_MAX)
        except grpc.RpcError as error:
            raise BenchmarkError(f"aggregator refuses: {error}") from error

    def settle(self, metric: str, accepted: int) -> float:
        """Wait until all that was ever accepted of `metric` is in its usage; the seconds it took.

        `accepted` events, of amount 1, came on top of what was settled before. BenchmarkError when
        the usage is larger, or still smaller after SETTLE_S_MAX seconds.
        """
        expected = self._accepted.get(metric, 0) + accepted
        self._accepted[metric] = expected
        begun_s = time.perf_counter()
        while (usage := self.usage(metric)) < expected:
            if time.perf_counter() - begun_s > SETTLE_S_MAX:
                raise BenchmarkError(
                    f"{metric}: {expected} events were accepted, but the usage stays at {usage}"
                )
            time.sleep(SETTLE_POLL_S)
        if usage > expected:
            raise BenchmarkError(f"{metric}: {expected} events were accepted, but {usage} used")
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
