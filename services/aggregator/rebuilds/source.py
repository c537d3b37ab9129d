"""All that was stored of a metric, as ingest streams it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.events.v1.events_pb2 import UsageEvent
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.aggregator.metric_repository import MetricKey
from services.kit.auth import MODE_NUMBERS
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata

# A call reads at most 200,000 events.
HISTORY_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class HistoryBatch:
    """What a part of a history has of one batch: events, or those that were voided."""

    batch_id: str
    accept_time: datetime
    events: Sequence[UsageEvent]


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """The next of a history; `next_cursor` "" after the last."""

    batches: Sequence[HistoryBatch]
    next_cursor: str


class HistorySource(Protocol):
    """Who has the events."""

    def history(self, metric: MetricKey, cursor: str, *, voids: bool) -> AsyncIterator[HistoryPart]:
        """Parts of what was stored of the metric, or was voided of it, behind `cursor`.

        Each event once, wherever one goes on. UnavailableError.
        """


class IngestHistory:
    """A HistorySource that asks ingest over gRPC."""

    def __init__(
        self, channel: grpc.aio.Channel, internal_token: SecretStr, *, timeout_s: float
    ) -> None:
        """`timeout_s`: how long one call may take."""
        self._ingest = ingest_pb2_grpc.IngestInternalServiceStub(channel)
        self._token = internal_token
        self._timeout_s = timeout_s

    async def history(
        self, metric: MetricKey, cursor: str, *, voids: bool
    ) -> AsyncIterator[HistoryPart]:
        """Parts of what was stored of the metric, or was voided of it, behind `cursor`."""
        request = ingest_pb2.ReplayHistoryRequest(
            organization_id=metric.organization_id,
            mode=MODE_NUMBERS[metric.mode],
            metric=metric.key,
            kind=ingest_pb2.HISTORY_KIND_VOIDS if voids else ingest_pb2.HISTORY_KIND_EVENTS,
            cursor=cursor,
        )
        call = self._ingest.ReplayHistory(
            request, timeout=self._timeout_s, metadata=internal_metadata(self._token)
        )
        try:
            async for response in call:
                yield HistoryPart(
                    [
                        HistoryBatch(
                            batch.batch_id, batch.accept_time.ToDatetime(tzinfo=UTC), batch.events
                        )
                        for batch in response.batches
                    ],
                    response.next_cursor,
                )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()
