"""Whether a process answers: each probe asks once and raises NotReadyError when it does not."""

import asyncio
import http.client
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.errors import NotReadyError

PROBE_TIMEOUT_S = 2.0
RECONNECT_MS = 50
# The name under which a service's health is that of its process (services/kit/grpc_server.py).
LIVE = "live"


async def grpc_serving(address: str, service: str = "") -> None:
    """grpc.health.v1.Health says SERVING for `service`; by default the server as a whole."""
    options = [("grpc.min_reconnect_backoff_ms", RECONNECT_MS), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=PROBE_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise NotReadyError(f"{error.code().name}: {error.details()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise NotReadyError(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def grpc_ready(address: str) -> None:
    """As grpc_serving, of one process (host:port) that may be starting.

    As long as nothing listens a connection is refused, at a tenth of the 2 ms that a channel takes.
    A start asks each of its services twenty times a second.
    """
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        raise NotReadyError(str(error)) from error
    writer.close()
    await grpc_serving(address)


async def http_ready(address: str) -> None:
    """GET /readyz answers 200."""
    await http_ok(address, "/readyz")


async def http_ok(address: str, path: str) -> None:
    """GET answers 200."""
    status = await asyncio.to_thread(http_status, address, path)
    if status != http.HTTPStatus.OK:
        raise NotReadyError(f"{path} answers {status}")


def http_status(address: str, path: str) -> int:
    """The status of a GET; NotReadyError when there is no answer."""
    connection = http.client.HTTPConnection(address, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError(str(error)) from error
    finally:
        connection.close()
