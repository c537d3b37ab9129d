"""A gRPC server with health, reflection, limits, and the interceptor around every call."""

from collections.abc import Callable
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from services.kit.auth import KeyResolver
from services.kit.grpc_client import KEEPALIVE_MS, MESSAGE_BYTES_MAX
from services.kit.interceptor import CallInterceptor
from services.kit.settings import ServiceSettings

log = structlog.get_logger()

CALLS_RUNNING_MAX = 2_000
METADATA_BYTES_MAX = 16 * 1024


class GrpcServer:
    """Serves one or more gRPC services on one port."""

    def __init__(self, settings: ServiceSettings, keys: KeyResolver) -> None:
        self._listen = settings.grpc_listen
        self._stop_s = settings.shutdown_s
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(keys, settings.internal_token)],
            maximum_concurrent_rpcs=CALLS_RUNNING_MAX,
            options=[
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        self._names: list[str] = []
        self._health = health_aio.HealthServicer()
        self.port = 0

    def add(
        self, register: Callable[[Any, grpc.aio.Server], None], servicer: Any, full_name: str
    ) -> None:
        """Serve `servicer`: `register` is the generated add_XServicer_to_server, `full_name` for
        example "usageflow.ingest.v1.IngestService".
        """
        register(servicer, self._server)
        self._names.append(full_name)

    async def start(self) -> None:
        """Bind, serve, and report SERVING."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = (*self._names, reflection.SERVICE_NAME, "grpc.health.v1.Health")
        reflection.enable_server_reflection(reflected, self._server)
        self.port = self._server.add_insecure_port(self._listen)
        await self._server.start()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("grpc_serving", listen=self._listen, port=self.port)

    async def stop(self) -> None:
        """Take no new calls, finish the running ones, close."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._stop_s / 2)
