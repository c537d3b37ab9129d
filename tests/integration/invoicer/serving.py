"""Invoicer's services over real gRPC, called by the names of their methods with a key."""

import importlib
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from pydantic import SecretStr
from usageflow.common.v1 import common_pb2

from services.kit.auth import Principal, invalid_key
from services.kit.errors import PermissionDeniedError, UnauthenticatedError, from_rpc_error
from services.kit.grpc_client import api_key_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.settings import ServiceSettings
from tests.integration.invoicer.stand_ins import TOKEN, World, new_tenant

DEADLINE_S = 10


@dataclass
class Keys:
    """Keys of the world's organization and of another, each in a word: "admin", "read", .."""

    organization_ids: dict[str, str]
    strict_metrics: bool = False

    async def resolve(self, secret: str) -> Principal:
        """For example "ours-admin": our organization's, with the scope admin."""
        whose, _, scope = secret.partition("-")
        if whose not in self.organization_ids:
            raise invalid_key()
        mode, mode_name = common_pb2.MODE_TEST, "test"
        if scope.endswith("-live"):
            mode, mode_name = common_pb2.MODE_LIVE, "live"
        scopes = frozenset([scope.removesuffix("-live")])
        strict = whose == "ours" and self.strict_metrics
        return Principal(
            "key_1",
            self.organization_ids[whose],
            mode,
            mode_name,
            scopes,
            strict_metrics=strict,
        )


@dataclass
class Api:
    """What is served: each method with its stub."""

    served: dict[str, tuple[MethodDescriptor, Any]]

    async def call(self, name: str, key: str = "ours-admin", **request: object) -> Any:
        """The response, of a stream a list of all, or the domain error that came back."""
        method, stub = self.served[name]
        message = GetMessageClass(method.input_type)(**request)
        try:
            answer = stub(message, timeout=DEADLINE_S, metadata=api_key_metadata(key))
            return [part async for part in answer] if method.server_streaming else await answer
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def refuse_who_lacks_scopes(
        self, requests: Mapping[str, Mapping[str, Any]], reads: Collection[str]
    ) -> None:
        """Each of all methods takes the scope admin, but for `reads`, which take read."""
        assert sorted(requests) == sorted(self.served)
        for name, request in requests.items():
            for key in ["ours-track"] if name in reads else ["ours-track", "ours-read"]:
                with pytest.raises(PermissionDeniedError, match="lacks the scope"):
                    await self.call(name, key, **request)
            with pytest.raises(UnauthenticatedError, match="Invalid API key"):
                await self.call(name, "nobodys-admin", **request)


@asynccontextmanager
async def serving(
    world: World, *servicers: object, strict_metrics: bool = False
) -> AsyncIterator[Api]:
    """The services of `world` on a port of their own."""
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr("nats://unused"),
        internal_token=TOKEN,
        shutdown_s=1,
    )
    ids = {"ours": world.tenant.organization_id, "theirs": new_tenant().organization_id}
    server = GrpcServer(settings, Keys(ids, strict_metrics))
    generated = [type(servicer).__bases__[0] for servicer in servicers]
    for base, servicer in zip(generated, servicers, strict=True):
        add = getattr(importlib.import_module(base.__module__), f"add_{base.__name__}_to_server")
        server.add(add, servicer, _service(base).full_name)
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        served: dict[str, tuple[MethodDescriptor, Any]] = {}
        for base in generated:
            grpc_module, service = importlib.import_module(base.__module__), _service(base)
            stub = getattr(grpc_module, f"{service.name}Stub")(channel)
            served |= {each.name: (each, getattr(stub, each.name)) for each in service.methods}
        yield Api(served)
    await server.stop()


def _service(base: type) -> Any:
    """The descriptor of the service of a generated servicer."""
    module = importlib.import_module(base.__module__.removesuffix("_grpc"))
    return module.DESCRIPTOR.services_by_name[base.__name__.removesuffix("Servicer")]
