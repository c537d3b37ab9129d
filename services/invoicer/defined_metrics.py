"""Which metrics somebody has defined, as aggregator tells it."""

from collections.abc import Collection
from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc

from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata


class DefinedMetrics(Protocol):
    """Who knows which metrics are defined."""

    async def defined(self, tenant: TenantKey, keys: Collection[str]) -> Collection[str]:
        """Those that somebody has defined. UnavailableError."""


class AggregatorMetrics:
    """DefinedMetrics that asks aggregator over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr, timeout_s: float) -> None:
        self._stub = aggregator_pb2_grpc.AggregatorInternalServiceStub(channel)
        self._token = token
        self._timeout_s = timeout_s

    async def defined(self, tenant: TenantKey, keys: Collection[str]) -> Collection[str]:
        """Those that somebody has defined. UnavailableError."""
        request = aggregator_pb2.FindDefinedMetricsRequest(
            organization_id=tenant.organization_id, mode=MODE_NUMBERS[tenant.mode], keys=keys
        )
        try:
            response = await self._stub.FindDefinedMetrics(
                request, timeout=self._timeout_s, metadata=internal_metadata(self._token)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return response.keys
