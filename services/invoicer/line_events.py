"""The raw events behind a line, as ingest tells them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
from pydantic import SecretStr
from usageflow.ingest.v1 import counted_pb2, counted_pb2_grpc

from services.invoicer.periods import Period
from services.invoicer.readings import Counted
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata


@dataclass(frozen=True, slots=True)
class CountedUsage:
    """A customer's events of a metric in a period that `until` holds and `since` does not, or the
    other way round; `since` None: nothing was billed before.
    """

    customer_id: str
    metric: str
    period: Period
    until: Counted
    since: Counted | None


@dataclass(frozen=True, slots=True)
class CountedPage:
    """Events, newest first, and the next page's token ("" after the last).

    `dropped`: retention has dropped events that may have been among these, here or on another page.
    """

    events: Sequence[counted_pb2.CountedEvent]
    next_token: str
    dropped: bool


class EventSource(Protocol):
    """Where events come from."""

    async def list_counted(
        self, tenant: TenantKey, wanted: CountedUsage, page_size: int, page_token: str
    ) -> CountedPage:
        """A page. InvalidArgumentError for a token that is none; UnavailableError."""


class IngestEvents:
    """An EventSource that asks ingest over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr, timeout_s: float) -> None:
        self._stub = counted_pb2_grpc.CountedEventsInternalServiceStub(channel)
        self._token = token
        self._timeout_s = timeout_s

    async def list_counted(
        self, tenant: TenantKey, wanted: CountedUsage, page_size: int, page_token: str
    ) -> CountedPage:
        """A page."""
        request = counted_pb2.ListCountedEventsRequest(
            organization_id=tenant.organization_id,
            mode=MODE_NUMBERS[tenant.mode],
            metric=wanted.metric,
            customer_id=wanted.customer_id,
            until=boundary_message(wanted.until),
            since=None if wanted.since is None else boundary_message(wanted.since),
            page_size=page_size,
            page_token=page_token,
        )
        # Not "request.from": that is a word of Python's.
        getattr(request, "from").FromDatetime(wanted.period.start)
        request.to.FromDatetime(wanted.period.end)
        try:
            answer = await self._stub.ListCountedEvents(
                request, timeout=self._timeout_s, metadata=internal_metadata(self._token)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return CountedPage(answer.events, answer.next_page_token, answer.dropped)


def boundary_message(counted: Counted) -> counted_pb2.CountedBoundary:
    """The message of what figures hold."""
    message = counted_pb2.CountedBoundary(batch_ids=counted.batch_ids)
    message.before.FromDatetime(counted.before)
    return message
