"""Which metrics there are, as aggregator tells it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc

from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata


@dataclass(frozen=True, slots=True)
class FoundMetrics:
    """Those, of the keys asked for, that somebody has defined, that have defined themselves by
    their first event, and that are archived, of either kind.
    """

    defined: frozenset[str] = frozenset()
    self_defined: frozenset[str] = frozenset()
    archived: frozenset[str] = frozenset()


class MetricsSource(Protocol):
    """Who knows the metrics."""

    async def find(self, organization_id: str, mode: int, keys: Collection[str]) -> FoundMetrics:
        """Those that there are; `mode` is the proto's number. UnavailableError."""


class AggregatorMetrics:
    """A MetricsSource that asks aggregator over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr, timeout_s: float) -> None:
        self._stub = aggregator_pb2_grpc.AggregatorInternalServiceStub(channel)
        self._token = token
        self._timeout_s = timeout_s

    async def find(self, organization_id: str, mode: int, keys: Collection[str]) -> FoundMetrics:
        """Those that there are; `mode` is the proto's number. UnavailableError."""
        request = aggregator_pb2.FindDefinedMetricsRequest(
            organization_id=organization_id,
            mode=mode,  # type: ignore[arg-type] # the proto's number
            keys=sorted(keys),
        )
        try:
            response = await self._stub.FindDefinedMetrics(
                request, timeout=self._timeout_s, metadata=internal_metadata(self._token)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return FoundMetrics(
            frozenset(response.keys),
            frozenset(response.self_defined_keys),
            frozenset(response.archived_keys),
        )
