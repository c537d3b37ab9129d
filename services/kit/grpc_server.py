"""A gRPC server with health, reflection, limits, and the interceptor around every call."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from services.kit.auth import KeyResolver
from services.kit.http2.server import Server
from services.kit.idempotency import Answers
from services.kit.interceptor import CallInterceptor
from services.kit.readiness import DatabaseCheck, ReadinessLoop
from services.kit.settings import ServiceSettings

log = structlog.get_logger()

# The name under which health says that the process lives, whether or not it can do its work.
LIVE = "live"


class Methods:
    """All methods of a server by their names ("/package.Service/Rpc"), each with what goes around
    it. What generated code registers them with.
    """

    def __init__(self, around: Callable[[Any, str], Any]):
        self._around = around
        self._handlers: dict[str, Any] = {}

    def registrar(self) -> grpc.aio.Server:
        """As generated code wants it: it calls the two methods below, and nothing else."""
        return cast(grpc.aio.Server, self)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        """Generated code calls this with the methods of a service."""
        for name, handler in method_handlers.items():
            method = f"/{service_name}/{name}"
            self._handlers[method] = self._around(handler, method)

    def add_generic_rpc_handlers(self, _handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Generated code calls this too, with the same methods once more."""

    def find(self, method: str) -> Any:
        """The handler of "/package.Service/Rpc"; None: there is no such method."""
        return self._handlers.get(method)


class GrpcServer:
    """Serves one or more gRPC services on one port.

    While `database` does not answer, health says NOT_SERVING for the server ("") and for each of
    its services; calls are answered all the same. Health of LIVE is SERVING until the end.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        keys: KeyResolver,
        database: DatabaseCheck | None = None,
        answers: Answers | None = None,
    ) -> None:
        """`answers`: where those under idempotency keys are kept; None: keys are ignored."""
        self._listen = settings.grpc_listen
        self._stop_s = settings.shutdown_s
        interceptor = CallInterceptor(keys, settings.internal_token, answers)
        self._methods = Methods(interceptor.around)
        self._server = Server(self._methods.find)
        self._names: list[str] = []
        self._health = health_aio.HealthServicer()
        self._database = database
        self._checking: asyncio.Task[None] | None = None
        self.port = 0

    def add(
        self, register: Callable[[Any, grpc.aio.Server], None], servicer: Any, full_name: str
    ) -> None:
        """Serve `servicer`: `register` is the generated add_XServicer_to_server, `full_name` for
        example "usageflow.ingest.v1.IngestService".
        """
        register(servicer, self._methods.registrar())
        self._names.append(full_name)

    async def start(self) -> None:
        """Bind, serve, and report SERVING unless the database is away."""
        registrar = self._methods.registrar()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registrar)
        reflected = (*self._names, reflection.SERVICE_NAME, "grpc.health.v1.Health")
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
            reflection.aio.ReflectionServicer(reflected), registrar
        )
        # Before anybody can ask: an unknown name would be answered with NOT_FOUND.
        await self._health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self._report(False)
        # Also before: whoever asks once, at the first moment, is told what is so.
        await self._check_readiness()
        self.port = await self._server.listen(self._listen)
        log.info("grpc_serving", listen=self._listen, port=self.port)

    async def _check_readiness(self) -> None:
        """Report health now, and from now on whenever it changes."""
        if self._database is None:
            await self._report(True)
            return
        readiness = ReadinessLoop(self._database, self._report)
        await readiness.look()
        self._checking = asyncio.create_task(readiness.run(), name="readiness")

    async def _report(self, ready: bool) -> None:
        statuses = health_pb2.HealthCheckResponse
        status = statuses.SERVING if ready else statuses.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Take no new calls, finish the running ones, close."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._stop_s / 2)
        if self._database is not None:
            self._database.close()
