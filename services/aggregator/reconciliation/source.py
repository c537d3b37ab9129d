"""What ingest has accepted, as reconciliation asks for it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent
from usageflow.ingest.v1 import (
    ingest_pb2,
    ingest_pb2_grpc,
    reconciliation_pb2,
    reconciliation_pb2_grpc,
)

from services.aggregator.reconciliation.domain import (
    HOUR,
    NOTHING_ACCEPTED,
    Accepted,
    HourKey,
    Totals,
)
from services.kit.auth import MODE_NAMES, MODE_NUMBERS
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata

BATCHES_AT_A_TIME = 100
# A busy hour has tens of millions of events.
ACCEPTED_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class BatchRef:
    """A batch of ingest's."""

    batch_id: str
    accept_time: datetime


class AcceptedSource(Protocol):
    """Who has accepted the events. All methods: UnavailableError."""

    async def count(self, start: datetime, end: datetime) -> dict[HourKey, Accepted]:
        """All tenants' metrics in the hours of [start, end), as of one moment after the call."""

    async def count_hour(self, key: HourKey) -> Accepted:
        """One metric's hour, as of one moment after the call."""

    async def find_batches(self, key: HourKey) -> list[BatchRef]:
        """Those that hold the events of the hour, then those that hold voids of them."""

    def get_batches(self, batch_ids: Sequence[str]) -> AsyncIterator[EventBatch]:
        """The batches, those of events before those of voids."""

    def replay(self, key: HourKey) -> AsyncIterator[Sequence[UsageEvent]]:
        """The hour's events that are not void, each once, as of one moment after the call."""


class IngestAccepted:
    """An AcceptedSource that asks ingest over gRPC."""

    def __init__(
        self, channel: grpc.aio.Channel, internal_token: SecretStr, *, timeout_s: float
    ) -> None:
        """`timeout_s`: how long one call may take."""
        self._events = ingest_pb2_grpc.IngestInternalServiceStub(channel)
        self._counts = reconciliation_pb2_grpc.ReconciliationInternalServiceStub(channel)
        self._token = internal_token
        self._timeout_s = timeout_s

    async def count(self, start: datetime, end: datetime) -> dict[HourKey, Accepted]:
        """All tenants' metrics in the hours of [start, end), as of one moment after the call."""
        request = reconciliation_pb2.CountEventsRequest(**_range(start, end))
        return await self._count(request)

    async def count_hour(self, key: HourKey) -> Accepted:
        """One metric's hour, as of one moment after the call."""
        request = reconciliation_pb2.CountEventsRequest(**_named(key))
        found = await self._count(request)
        return found.get(key, NOTHING_ACCEPTED)

    async def _count(
        self, request: reconciliation_pb2.CountEventsRequest
    ) -> dict[HourKey, Accepted]:
        found: dict[HourKey, Accepted] = {}
        async for response in self._stream(self._counts.CountEvents, request):
            for count in response.counts:
                key = HourKey(
                    count.organization_id,
                    MODE_NAMES[count.mode],
                    count.metric,
                    count.hour.ToDatetime(tzinfo=UTC),
                )
                totals = Totals(count.event_count, Decimal(count.amount_sum))
                found[key] = Accepted(totals, count.moving)
        return found

    async def find_batches(self, key: HourKey) -> list[BatchRef]:
        """Those that hold the events of the hour, then those that hold voids of them."""
        request = reconciliation_pb2.FindBatchesRequest(**_named(key))
        return [
            BatchRef(batch.batch_id, batch.accept_time.ToDatetime(tzinfo=UTC))
            async for response in self._stream(self._counts.FindBatches, request)
            for batch in response.batches
        ]

    async def get_batches(self, batch_ids: Sequence[str]) -> AsyncIterator[EventBatch]:
        """The batches, those of events before those of voids."""
        for at in range(0, len(batch_ids), BATCHES_AT_A_TIME):
            request = reconciliation_pb2.GetBatchesRequest(
                batch_ids=batch_ids[at : at + BATCHES_AT_A_TIME]
            )
            async for response in self._stream(self._counts.GetBatches, request):
                yield response.batch

    async def replay(self, key: HourKey) -> AsyncIterator[Sequence[UsageEvent]]:
        """The hour's events that are not void, each once, as of one moment after the call."""
        request = ingest_pb2.ReplayEventsRequest(**_named(key))
        async for response in self._stream(self._events.ReplayEvents, request):
            yield response.events

    async def _stream(self, method: Any, request: Any) -> AsyncIterator[Any]:
        call = method(request, timeout=self._timeout_s, metadata=internal_metadata(self._token))
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()


def _named(key: HourKey) -> dict[str, Any]:
    return {
        "organization_id": key.organization_id,
        "mode": MODE_NUMBERS[key.mode],
        "metric": key.metric,
        **_range(key.hour, key.hour + HOUR),
    }


def _range(start: datetime, end: datetime) -> dict[str, Any]:
    """The fields from and to, of which one is a word of Python's."""
    made = {"from": Timestamp(), "to": Timestamp()}
    made["from"].FromDatetime(start)
    made["to"].FromDatetime(end)
    return made
