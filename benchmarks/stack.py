"""The stack that is measured, and what its usage has to be."""

import http.client
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
from usageflow.aggregator.v1 import aggregator_pb2_grpc

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
        self._accepted: dict[str, int] = {}
        self._channel = grpc.insecure_channel(connection.grpc["aggregator"])
        self._aggregator = aggregator_pb2_grpc.AggregatorServiceStub(self._channel)

    def close(self) -> None:
        """Let go of the stack; it runs on."""
        self._channel.close()

    def usage(self, metric: str) -> int:
        """What aggregator says that was used of `metric`; 0 when it does not know it (yet)."""
        try:
            response = self._aggregator.QueryUsage(
                usage_since_yesterday(metric, by_customer=False),
                metadata=((KEY_HEADER, self.connection.api_key),),
                timeout=CALL_S_MAX,
            )
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.NOT_FOUND:
                return 0
            raise BenchmarkError(f"the usage of {metric} can't be had: {error}") from error
        return sum(int(row.value) for row in response.rows)

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
