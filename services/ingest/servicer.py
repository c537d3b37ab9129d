"""Translates between proto and domain; decides nothing but who may call and how much at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.ingest.v1 import ingest_pb2 as pb
from usageflow.ingest.v1.ingest_pb2_grpc import (
    IngestInternalServiceServicer,
    IngestServiceServicer,
)

from services.ingest.domain import (
    EVENTS_PER_CALL_MAX,
    EventFilter,
    Outcomes,
    StoredEvent,
    Tenant,
)
from services.ingest.service import Ingest
from services.ingest.wire import Intake
from services.kit import clock
from services.kit.auth import MODE_NAMES, require_scope
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.events import format_event_id

STREAM_REQUESTS_RUNNING_MAX = 4
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Answer(NamedTuple):
    """A request of a stream on its way."""

    intake: Intake
    outcomes: Awaitable[Outcomes]


class IngestServicer(IngestServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def RecordEvents(
        self, request: pb.RecordEventsRequest, context: object
    ) -> pb.RecordEventsResponse:
        """Store events; scope track."""
        intake = _read_events(_tenant("track"), request.events)
        outcomes = await self._ingest.record(intake.events, intake.size_bytes)
        return pb.RecordEventsResponse(receipts=intake.receipts(outcomes))

    async def StreamEvents(
        self, request_iterator: AsyncIterator[pb.StreamEventsRequest], context: object
    ) -> AsyncIterator[pb.StreamEventsResponse]:
        """Store the events of a stream; scope track.

        A few requests run at a time and are answered in order; beyond that, and while the queue
        has no room, nothing more is read: gRPC's flow control then holds the sender back.
        """
        answers: asyncio.Queue[_Answer | None] = asyncio.Queue(STREAM_REQUESTS_RUNNING_MAX)
        reader = asyncio.create_task(self._read_stream(request_iterator, answers))
        try:
            while (answer := await answers.get()) is not None:
                receipts = answer.intake.receipts(await answer.outcomes)
                yield pb.StreamEventsResponse(receipts=receipts)
            await reader
        finally:
            reader.cancel()

    async def _read_stream(
        self,
        requests: AsyncIterator[pb.StreamEventsRequest],
        answers: asyncio.Queue[_Answer | None],
    ) -> None:
        try:
            async for request in requests:
                intake = _read_events(_tenant("track"), request.events)
                await self._ingest.room(len(intake.events), intake.size_bytes)
                outcomes = self._ingest.record(intake.events, intake.size_bytes)
                await answers.put(_Answer(intake, outcomes))
        except Exception:
            await answers.put(None)
            raise
        await answers.put(None)

    async def GetEvent(self, request: pb.GetEventRequest, context: object) -> pb.GetEventResponse:
        """One stored event; scope read."""
        event = await self._ingest.get_event(_tenant("read"), request.event_id)
        return pb.GetEventResponse(event=_stored_event(event))

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: object
    ) -> pb.ListEventsResponse:
        """A page of stored events; scope read."""
        wanted = EventFilter(
            customer_id=request.customer_id or None,
            metric=request.metric or None,
            from_time=_time(getattr(request, "from"), "from") if request.HasField("from") else None,
            to_time=_time(request.to, "to") if request.HasField("to") else None,
        )
        events, next_page_token = await self._ingest.list_events(
            _tenant("read"), wanted, request.page_size, request.page_token
        )
        return pb.ListEventsResponse(
            events=[_stored_event(event) for event in events], next_page_token=next_page_token
        )


class IngestInternalServicer(IngestInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def RecordTenantEvents(
        self, request: pb.RecordTenantEventsRequest, context: object
    ) -> pb.RecordTenantEventsResponse:
        """Store events of several organizations."""
        _check_count(sum(len(tenant.events) for tenant in request.tenants))
        intake = Intake(_now_micros())
        for part in request.tenants:
            if part.mode not in MODE_NAMES:
                raise InvalidArgumentError([FieldProblem("mode", "must be live or test")])
            intake.read(Tenant.of(part.organization_id, part.mode), part.events)
        outcomes = await self._ingest.record(intake.events, intake.size_bytes)
        return pb.RecordTenantEventsResponse(receipts=intake.receipts(outcomes))

    async def GetWatermark(
        self, request: pb.GetWatermarkRequest, context: object
    ) -> pb.GetWatermarkResponse:
        """Up to when everything accepted has been aggregated."""
        return pb.GetWatermarkResponse(watermark=_timestamp(await self._ingest.watermark()))


def _tenant(scope: str) -> Tenant:
    principal = require_scope(scope)
    return Tenant.of(principal.organization_id, principal.mode)


def _read_events(tenant: Tenant, inputs: Sequence[pb.EventInput]) -> Intake:
    _check_count(len(inputs))
    intake = Intake(_now_micros())
    intake.read(tenant, inputs)
    return intake


def _check_count(events: int) -> None:
    if not 1 <= events <= EVENTS_PER_CALL_MAX:
        message = f"must be from 1 to {EVENTS_PER_CALL_MAX} events"
        raise InvalidArgumentError([FieldProblem("events", message)])


def _now_micros() -> int:
    return (clock.now() - _UNIX_EPOCH) // timedelta(microseconds=1)


def _time(stamp: Timestamp, field: str) -> datetime:
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        problem = FieldProblem(field, "must be a time of the years 1 to 9999")
        raise InvalidArgumentError([problem]) from None


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _stored_event(event: StoredEvent) -> pb.StoredEvent:
    return pb.StoredEvent(
        event_id=format_event_id(event.event_id),
        metric=event.metric,
        amount=event.amount,
        customer_id=event.customer_id,
        time=_timestamp(event.event_time),
        metadata_json=event.metadata_json,
        accept_time=_timestamp(event.accept_time),
    )
