"""Translates between proto and domain; decides nothing but who may call and how much at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.ingest.v1 import ingest_pb2 as pb
from usageflow.ingest.v1.ingest_pb2_grpc import (
    IngestInternalServiceServicer,
    IngestServiceServicer,
)

from services.ingest.domain import (
    EVENTS_PER_CALL_MAX,
    EventFilter,
    Recorded,
    StoredEvent,
    Tenant,
)
from services.ingest.history import Histories, HistoryBatch, HistoryCursor, HistoryFilter
from services.ingest.replay import ReplayFilter, Replays
from services.ingest.service import Ingest
from services.ingest.strict_metrics import NONE_REFUSED, NoMetrics, StrictMetrics
from services.ingest.voids import VoidReceipt, Voids
from services.ingest.wire import NO_CLOCKS, Intake
from services.kit import clock
from services.kit.auth import MODE_NAMES, Principal, clock_times, require_scope
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.events import (
    MICROS_PER_DAY,
    PAST_DAYS_DEFAULT,
    PAST_DAYS_MAX,
    format_event_id,
)

STREAM_REQUESTS_RUNNING_MAX = 4
_HISTORY_KINDS = (pb.HISTORY_KIND_EVENTS, pb.HISTORY_KIND_VOIDS)
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOTHING_DEFINED = StrictMetrics(NoMetrics())


class _Answer(NamedTuple):
    """A request of a stream on its way."""

    intake: Intake
    recorded: Awaitable[Recorded]


class IngestServicer(IngestServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(
        self, ingest: Ingest, voids: Voids, strict: StrictMetrics = NOTHING_DEFINED
    ) -> None:
        self._ingest = ingest
        self._voids = voids
        self._strict = strict

    async def RecordEvents(
        self, request: pb.RecordEventsRequest, context: object
    ) -> pb.RecordEventsResponse:
        """Store events; scope track."""
        principal = require_scope("track")
        # Before it is read: under overload the calls wait in line for being read, and each that is
        # read only to be refused keeps all others waiting for milliseconds.
        self._ingest.require_room(len(request.events))
        intake = await self._read(principal, request.events)
        recorded = await self._ingest.record(intake.events, intake.size_bytes)
        return intake.answer(pb.RecordEventsResponse, recorded)

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
                yield answer.intake.answer(pb.StreamEventsResponse, await answer.recorded)
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
                intake = await self._read(require_scope("track"), request.events)
                await self._ingest.room(len(intake.events), intake.size_bytes)
                recorded = self._ingest.record(intake.events, intake.size_bytes)
                await answers.put(_Answer(intake, recorded))
        except Exception:
            await answers.put(None)
            raise
        await answers.put(None)

    async def _read(self, principal: Principal, inputs: Sequence[pb.EventInput]) -> Intake:
        _check_count(len(inputs))
        intake = Intake(_now_micros())
        tenant = Tenant.of(principal.organization_id, principal.mode)
        refused = NONE_REFUSED
        if principal.strict_metrics:
            refused = await self._strict.refused(tenant, {event.metric for event in inputs})
        past_micros = _past_micros(principal.event_past_days)
        clocks = dict(principal.test_clocks) if principal.test_clocks else NO_CLOCKS
        intake.read(tenant, inputs, past_micros, refused, clocks)
        return intake

    async def GetEvent(self, request: pb.GetEventRequest, context: object) -> pb.GetEventResponse:
        """One stored event; scope read."""
        event = await self._ingest.get_event(_tenant("read"), request.event_id)
        return pb.GetEventResponse(event=stored_event_message(event))

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: object
    ) -> pb.ListEventsResponse:
        """A page of stored events; scope read."""
        wanted = EventFilter(
            customer_id=request.customer_id or None,
            metric=request.metric or None,
            from_time=_time_or_none(request, "from"),
            to_time=_time_or_none(request, "to"),
            idempotency_key=request.idempotency_key or None,
        )
        events, next_page_token = await self._ingest.list_events(
            _tenant("read"), wanted, request.page_size, request.page_token
        )
        return pb.ListEventsResponse(
            events=[stored_event_message(event) for event in events],
            next_page_token=next_page_token,
        )

    async def VoidEvents(
        self, request: pb.VoidEventsRequest, context: object
    ) -> pb.VoidEventsResponse:
        """Take events out of what is billed; scope admin."""
        principal = require_scope("admin")
        receipts, usage_token = await self._voids.void(
            Tenant.of(principal.organization_id, principal.mode),
            request.event_ids,
            request.reason,
            key_id=principal.actor_id,
        )
        return pb.VoidEventsResponse(
            receipts=[_void_receipt(receipt) for receipt in receipts], usage_token=usage_token
        )


class IngestInternalServicer(IngestInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(
        self,
        ingest: Ingest,
        replays: Replays,
        histories: Histories,
        strict: StrictMetrics = NOTHING_DEFINED,
    ) -> None:
        self._ingest = ingest
        self._strict = strict
        self._replays = replays
        self._histories = histories

    async def RecordTenantEvents(
        self, request: pb.RecordTenantEventsRequest, context: object
    ) -> pb.RecordTenantEventsResponse:
        """Store events of several organizations."""
        events = sum(len(tenant.events) for tenant in request.tenants)
        _check_count(events)
        self._ingest.require_room(events)
        intake = Intake(_now_micros())
        for part in request.tenants:
            _check_mode(part.mode)
            tenant = Tenant.of(part.organization_id, part.mode)
            refused = NONE_REFUSED
            if part.strict_metrics:
                metrics = {event.metric for event in part.events}
                refused = await self._strict.refused(tenant, metrics)
            past_micros = _past_micros(part.event_past_days)
            clocks = dict(clock_times(part.test_clocks)) if part.test_clocks else NO_CLOCKS
            intake.read(tenant, part.events, past_micros, refused, clocks)
        recorded = await self._ingest.record(intake.events, intake.size_bytes)
        return intake.answer(pb.RecordTenantEventsResponse, recorded)

    async def GetWatermark(
        self, request: pb.GetWatermarkRequest, context: object
    ) -> pb.GetWatermarkResponse:
        """Up to when everything accepted has been aggregated."""
        instant, all_applied = await self._ingest.watermark()
        return pb.GetWatermarkResponse(watermark=_timestamp(instant), all_applied=all_applied)

    async def ReplayEvents(
        self, request: pb.ReplayEventsRequest, context: object
    ) -> AsyncIterator[pb.ReplayEventsResponse]:
        """The stored events of a metric that are not void."""
        _check_mode(request.mode)
        wanted = ReplayFilter(
            tenant=Tenant.of(request.organization_id, request.mode),
            metric=request.metric,
            customer_id=request.customer_id if request.HasField("customer_id") else None,
            from_time=_time_or_none(request, "from"),
            to_time=_time_or_none(request, "to"),
        )
        async with aclosing(self._replays.replay(wanted)) as parts:
            async for events in parts:
                yield pb.ReplayEventsResponse(events=events)

    async def ReplayHistory(
        self, request: pb.ReplayHistoryRequest, context: object
    ) -> AsyncIterator[pb.ReplayHistoryResponse]:
        """All stored events of a metric, or all voids of such, with their batches."""
        _check_mode(request.mode)
        if request.kind not in _HISTORY_KINDS:
            raise InvalidArgumentError([FieldProblem("kind", "must be events or voids")])
        wanted = HistoryFilter(
            tenant=Tenant.of(request.organization_id, request.mode),
            metric=request.metric,
            voids=request.kind == pb.HISTORY_KIND_VOIDS,
        )
        history = self._histories.replay(wanted, HistoryCursor.decode(request.cursor))
        async with aclosing(history) as parts:
            async for part in parts:
                yield pb.ReplayHistoryResponse(
                    batches=[_history_batch(batch) for batch in part.batches],
                    next_cursor=part.next_cursor,
                )


def _tenant(scope: str) -> Tenant:
    principal = require_scope(scope)
    return Tenant.of(principal.organization_id, principal.mode)


def _past_micros(event_past_days: int) -> int:
    """What is told (0: nothing), kept within what an organization may choose."""
    return min(max(event_past_days, PAST_DAYS_DEFAULT), PAST_DAYS_MAX) * MICROS_PER_DAY


def _check_count(events: int) -> None:
    if not 1 <= events <= EVENTS_PER_CALL_MAX:
        message = f"must be from 1 to {EVENTS_PER_CALL_MAX} events"
        raise InvalidArgumentError([FieldProblem("events", message)])


def _now_micros() -> int:
    return (clock.now() - _UNIX_EPOCH) // timedelta(microseconds=1)


def _check_mode(mode: int) -> None:
    if mode not in MODE_NAMES:
        raise InvalidArgumentError([FieldProblem("mode", "must be live or test")])


def _time_or_none(
    request: pb.ListEventsRequest | pb.ReplayEventsRequest, field: Literal["from", "to"]
) -> datetime | None:
    """The time in a field; None when it is not set."""
    return _time(getattr(request, field), field) if request.HasField(field) else None


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


def stored_event_message(event: StoredEvent) -> pb.StoredEvent:
    """A stored event as callers see it."""
    return pb.StoredEvent(
        event_id=format_event_id(event.event_id),
        metric=event.metric,
        amount=event.amount,
        customer_id=event.customer_id,
        time=_timestamp(event.event_time),
        metadata_json=event.metadata_json,
        accept_time=_timestamp(event.accept_time),
        void_time=None if event.void_time is None else _timestamp(event.void_time),
        void_reason=event.void_reason,
    )


def _void_receipt(receipt: VoidReceipt) -> pb.VoidReceipt:
    return pb.VoidReceipt(
        event_id=receipt.event_id,
        status=receipt.status.value,  # type: ignore[arg-type] # the numbers are the same
        void_time=None if receipt.void_time is None else _timestamp(receipt.void_time),
    )


def _history_batch(batch: HistoryBatch) -> pb.HistoryBatch:
    return pb.HistoryBatch(
        batch_id=str(batch.batch_id),
        accept_time=_timestamp(batch.accept_time),
        events=batch.events,
    )
