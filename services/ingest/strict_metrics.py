"""Organizations with strict metrics: events of a metric that nobody has defined are refused.

aggregator knows the metrics. That one is defined never changes again, so it is remembered; of any
other one aggregator is asked each time: an event sent after CreateMetric has answered is taken.
"""

import asyncio
import itertools
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Protocol

import grpc
import structlog
from pydantic import SecretStr
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc

from services.ingest.domain import Outcome, Status, Tenant
from services.kit.errors import DomainError, FieldProblem, UnavailableError, from_rpc_error
from services.kit.events import is_metric
from services.kit.grpc_client import internal_metadata

log = structlog.get_logger()

# About 20 MB.
REMEMBERED_MAX = 100_000
ASK_TIMEOUT_S = 1.0
ASKING_MAX = 16

# What becomes of the events of some metrics; those of all others are taken.
Refused = Mapping[str, Outcome]
NONE_REFUSED: Refused = MappingProxyType({})

_UNDEFINED = Outcome(
    Status.REJECTED,
    (
        FieldProblem(
            "metric", "must be a metric that is defined: the organization has strict metrics"
        ),
    ),
)
_UNDECIDED = Outcome(
    Status.UNAVAILABLE,
    (FieldProblem("metric", "could not be looked up now; the same event again is safe"),),
)


class DefinedMetricsSource(Protocol):
    """Who knows which metrics are defined."""

    async def defined(self, tenant: Tenant, metrics: Collection[str]) -> Collection[str]:
        """Those that somebody has defined. UnavailableError."""


class AggregatorMetrics:
    """A DefinedMetricsSource that asks aggregator."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr) -> None:
        self._stub = aggregator_pb2_grpc.AggregatorInternalServiceStub(channel)
        self._token = token

    async def defined(self, tenant: Tenant, metrics: Collection[str]) -> Collection[str]:
        """Those that somebody has defined. UnavailableError."""
        request = aggregator_pb2.FindDefinedMetricsRequest(
            organization_id=tenant.organization_id,
            mode=tenant.mode,  # type: ignore[arg-type] # the proto's number
            keys=sorted(metrics),
        )
        try:
            response = await self._stub.FindDefinedMetrics(
                request, timeout=ASK_TIMEOUT_S, metadata=internal_metadata(self._token)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return response.keys


class NoMetrics:
    """A DefinedMetricsSource where no aggregator is set: events are refused until one is."""

    async def defined(self, tenant: Tenant, metrics: Collection[str]) -> Collection[str]:
        """UnavailableError."""
        raise UnavailableError("aggregator's address is not set (USAGEFLOW_AGGREGATOR_ADDRESS)")


class StrictMetrics:
    """Decides which events an organization with strict metrics does not want."""

    def __init__(self, source: DefinedMetricsSource) -> None:
        self._source = source
        self._asking = asyncio.Semaphore(ASKING_MAX)
        self._defined: dict[tuple[Tenant, str], None] = {}

    async def refused(self, tenant: Tenant, metrics: Collection[str]) -> Refused:
        """What becomes of events of undefined metrics, and of those that can't be looked up now."""
        # What is no metric's key is refused as such.
        unknown = {
            metric
            for metric in metrics
            if (tenant, metric) not in self._defined and is_metric(metric)
        }
        if not unknown:
            return NONE_REFUSED
        try:
            async with self._asking:
                found = set(await self._source.defined(tenant, unknown))
        except DomainError as error:
            log.warning("metrics_not_looked_up", error=error.message)
            return dict.fromkeys(unknown, _UNDECIDED)
        self._defined.update(dict.fromkeys((tenant, metric) for metric in found))
        surplus = max(len(self._defined) - REMEMBERED_MAX, 0)
        for key in list(itertools.islice(self._defined, surplus)):
            del self._defined[key]
        return dict.fromkeys(unknown - found, _UNDEFINED)
