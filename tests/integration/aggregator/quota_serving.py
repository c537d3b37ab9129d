"""QuotaService over real gRPC, called with keys that are called like their scopes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import grpc
from pydantic import SecretStr
from usageflow.aggregator.v1 import quotas_pb2_grpc

from services.aggregator.quotas.servicer import QuotaServicer
from services.kit.auth import MODE_NUMBERS, Principal, invalid_key
from services.kit.database import TenantKey
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import DEADLINE_S, api_key_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.settings import ServiceSettings
from tests.integration.aggregator.quota_setting import QuotaReplica


class Keys:
    """A KeyResolver: a key is called like its scope. `clocks`: what test clocks show, by
    customer.
    """

    def __init__(self, tenant: TenantKey, clocks: dict[str, datetime]) -> None:
        self._tenant = tenant
        self._clocks = clocks

    async def resolve(self, secret: str) -> Principal:
        if secret not in ("admin", "read", "track"):
            raise invalid_key()
        organization_id, mode = self._tenant
        clocks = tuple(
            (customer_id, int(time.timestamp()) * 1_000_000)
            for customer_id, time in self._clocks.items()
        )
        return Principal(
            "key_1",
            organization_id,
            MODE_NUMBERS[mode],
            mode,
            frozenset({secret}),
            test_clocks=clocks,
        )


class Client:
    """Calls QuotaService with a key; DomainError when it refuses."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = quotas_pb2_grpc.QuotaServiceStub(channel)

    async def call(self, key: str, method: str, request: Any) -> Any:
        """The answer."""
        try:
            return await getattr(self._stub, method)(
                request, timeout=DEADLINE_S, metadata=api_key_metadata(key)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


@asynccontextmanager
async def serving_quotas(
    replica: QuotaReplica, clocks: dict[str, datetime] | None = None
) -> AsyncIterator[Client]:
    """A client of the replica's QuotaService on a port of its own."""
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr("nats://unused"),
        internal_token=SecretStr("t" * 32),
        shutdown_s=1,
    )
    server = GrpcServer(settings, Keys(replica.tenant, {} if clocks is None else clocks))
    server.add(
        quotas_pb2_grpc.add_QuotaServiceServicer_to_server,
        QuotaServicer(replica.quotas, replica.checks, replica.reservations),
        "usageflow.aggregator.v1.QuotaService",
    )
    await server.start()
    channel = open_channel(f"127.0.0.1:{server.port}")
    yield Client(channel)
    await channel.close()
    await server.stop()
