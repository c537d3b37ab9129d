"""Translates between proto and domain; the interceptor has checked the internal token."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.ingest.v1 import counted_pb2 as pb
from usageflow.ingest.v1.counted_pb2_grpc import CountedEventsInternalServiceServicer

from services.ingest.counted.repository import Boundary, CountedFilter
from services.ingest.counted.service import CountedEvents
from services.ingest.domain import Tenant
from services.ingest.servicer import stored_event_message
from services.kit.auth import MODE_NAMES
from services.kit.errors import FieldChecks

BATCH_IDS_MAX = 20_000
_ID_BYTES = 16
_NEVER = datetime.min.replace(tzinfo=UTC)


class CountedEventsServicer(CountedEventsInternalServiceServicer):
    """What UsageFlow's own processes may ask about the events behind a figure."""

    def __init__(self, counted: CountedEvents) -> None:
        self._counted = counted

    async def ListCountedEvents(
        self, request: pb.ListCountedEventsRequest, context: object
    ) -> pb.ListCountedEventsResponse:
        """A page of the events that are in one of two figures only."""
        page = await self._counted.list_counted_events(
            _filter(request), request.page_size, request.page_token
        )
        events = [
            pb.CountedEvent(event=stored_event_message(each.event), taken_out=each.taken_out)
            for each in page.events
        ]
        return pb.ListCountedEventsResponse(
            events=events, next_page_token=page.next_token, dropped=page.dropped
        )

    async def StreamCountedAmounts(
        self, request: pb.StreamCountedAmountsRequest, context: object
    ) -> AsyncIterator[pb.StreamCountedAmountsResponse]:
        """The amounts of the events in a figure, oldest first."""
        async with aclosing(self._counted.stream_amounts(_filter(request))) as parts:
            async for amounts in parts:
                yield pb.StreamCountedAmountsResponse(amounts=amounts)


def _filter(
    request: pb.ListCountedEventsRequest | pb.StreamCountedAmountsRequest,
) -> CountedFilter:
    checks = FieldChecks()
    checks.require(request.mode in MODE_NAMES, "mode", "must be live or test")
    checks.require(bool(request.metric), "metric", "must be given")
    checks.require(bool(request.customer_id), "customerId", "must be given")
    start = _time(checks, getattr(request, "from"), request.HasField("from"), "from")
    end = _time(checks, request.to, request.HasField("to"), "to")
    until = _boundary(checks, request.until, "until")
    since = None
    if isinstance(request, pb.ListCountedEventsRequest) and request.HasField("since"):
        since = _boundary(checks, request.since, "since")
    checks.done()
    tenant = Tenant.of(request.organization_id, request.mode)
    return CountedFilter(tenant, request.metric, request.customer_id, start, end, until, since)


def _boundary(checks: FieldChecks, message: pb.CountedBoundary, field: str) -> Boundary:
    before = _time(checks, message.before, message.HasField("before"), f"{field}.before")
    ids = message.batch_ids
    whole = len(ids) % _ID_BYTES == 0 and len(ids) <= BATCH_IDS_MAX * _ID_BYTES
    allowed = f"must be ids of {_ID_BYTES} bytes, at most {BATCH_IDS_MAX:,}"
    if not checks.require(whole, f"{field}.batchIds", allowed):
        return Boundary(before, ())
    starts = range(0, len(ids), _ID_BYTES)
    return Boundary(before, [UUID(bytes=ids[at : at + _ID_BYTES]) for at in starts])


def _time(checks: FieldChecks, stamp: Timestamp, given: bool, field: str) -> datetime:
    try:
        time = stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        time = _NEVER
    return time if checks.require(given and time != _NEVER, field, "must be a time") else _NEVER
