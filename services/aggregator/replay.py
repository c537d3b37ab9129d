"""The stored events of a metric, as ingest replays them."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import grpc
from pydantic import SecretStr
from usageflow.events.v1.events_pb2 import UsageEvent
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata


class IngestReplay:
    """A ReplaySource that asks ingest over gRPC."""

    def __init__(
        self, channel: grpc.aio.Channel, internal_token: SecretStr, *, timeout_s: float
    ) -> None:
        """`timeout_s`: how long one replay may take."""
        self._ingest = ingest_pb2_grpc.IngestInternalServiceStub(channel)
        self._token = internal_token
        self._timeout_s = timeout_s

    async def replay(
        self, tenant: TenantKey, metric: str, customer_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[Sequence[UsageEvent]]:
        """All of a customer's ("" for none) events in [start, end) that are not void, each once,
        as of one moment after the call. UnavailableError.
        """
        request = ingest_pb2.ReplayEventsRequest(
            organization_id=tenant.organization_id,
            mode=MODE_NUMBERS[tenant.mode],
            metric=metric,
            customer_id=customer_id,
        )
        # Not "request.from": that is a word of Python's.
        getattr(request, "from").FromDatetime(start)
        request.to.FromDatetime(end)
        call = self._ingest.ReplayEvents(
            request, timeout=self._timeout_s, metadata=internal_metadata(self._token)
        )
        try:
            async for response in call:
                yield response.events
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()
