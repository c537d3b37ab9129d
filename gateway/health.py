"""/healthz: the process lives. /readyz: what taking events needs is there.

That is ingest, which stores them, and accounts, which knows whose key it is: without either, events
are answered 503. Both say NOT_SERVING while their database is away. The other services are not
asked: without them events are taken all the same.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, TypeAlias

import grpc
from grpc_health.v1 import health_pb2

# Probes of several balancers share one look.
REMEMBERED_S: Final = 1.0
TIMEOUT_S: Final = 1.0
_Check: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[
    health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
]


class Readiness:
    """Asks the services' standard health service, at most once a second."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._checks: dict[str, _Check] = {
            name: channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            for name, channel in channels.items()
        }
        self._running: asyncio.Task[list[str]] | None = None
        self._seen_s = float("-inf")
        # Whether this gateway is about to stop: balancers are to send nothing more here.
        self.leaving = False

    async def missing(self) -> list[str]:
        """The names of the services that do not report SERVING; of the gateway when it leaves."""
        if self.leaving:
            return ["gateway"]
        now_s = asyncio.get_running_loop().time()
        if self._running is None or (self._running.done() and now_s - self._seen_s >= REMEMBERED_S):
            self._seen_s = now_s
            self._running = asyncio.create_task(self._ask())
        return await asyncio.shield(self._running)

    async def _ask(self) -> list[str]:
        serving = await asyncio.gather(*(_serves(check) for check in self._checks.values()))
        return [name for name, ok in zip(self._checks, serving, strict=True) if not ok]


async def _serves(check: _Check) -> bool:
    try:
        answer = await check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
