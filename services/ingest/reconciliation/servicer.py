"""Translates between proto and domain; the interceptor has checked the internal token."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.ingest.v1 import reconciliation_pb2 as pb
from usageflow.ingest.v1.reconciliation_pb2_grpc import ReconciliationInternalServiceServicer

from services.ingest.domain import Tenant
from services.ingest.reconciliation.repository import CountedHour, EventRange
from services.ingest.reconciliation.service import Reconciliation
from services.kit.auth import MODE_NAMES
from services.kit.errors import FieldChecks
from services.kit.money import format_decimal


class ReconciliationServicer(ReconciliationInternalServiceServicer):
    """What UsageFlow's own processes may ask about what was accepted."""

    def __init__(self, reconciliation: Reconciliation) -> None:
        self._reconciliation = reconciliation

    async def CountEvents(
        self, request: pb.CountEventsRequest, context: object
    ) -> AsyncIterator[pb.CountEventsResponse]:
        """How many events were accepted and are not void, by tenant, metric and hour."""
        counted = self._reconciliation.count_events(_range(request, tenant_required=False))
        async with aclosing(counted) as parts:
            async for part in parts:
                yield pb.CountEventsResponse(counts=[_count(hour) for hour in part])

    async def FindBatches(
        self, request: pb.FindBatchesRequest, context: object
    ) -> AsyncIterator[pb.FindBatchesResponse]:
        """Which batches hold some events, or voids of them."""
        found = self._reconciliation.find_batches(_range(request, tenant_required=True))
        async with aclosing(found) as parts:
            async for part in parts:
                yield pb.FindBatchesResponse(
                    batches=[
                        pb.FoundBatch(
                            batch_id=str(batch.batch_id), accept_time=_timestamp(batch.accept_time)
                        )
                        for batch in part
                    ]
                )

    async def GetBatches(
        self, request: pb.GetBatchesRequest, context: object
    ) -> AsyncIterator[pb.GetBatchesResponse]:
        """Batches as they were committed."""
        async with aclosing(self._reconciliation.get_batches(request.batch_ids)) as batches:
            async for batch in batches:
                yield pb.GetBatchesResponse(batch=batch)


def _range(
    request: pb.CountEventsRequest | pb.FindBatchesRequest, *, tenant_required: bool
) -> EventRange:
    checks = FieldChecks()
    start, end = (_time(checks, request, field) for field in ("from", "to"))
    tenant = None
    if tenant_required or request.organization_id:
        known = checks.require(request.mode in MODE_NAMES, "mode", "must be live or test")
        tenant = Tenant.of(request.organization_id, request.mode) if known else None
    else:
        checks.require(not request.mode, "mode", "must be left out without organizationId")
        checks.require(not request.metric, "metric", "must be left out without organizationId")
    if tenant_required:
        checks.require(bool(request.metric), "metric", "must be given")
    checks.done()
    return EventRange(start, end, tenant, request.metric or None)


def _time(
    checks: FieldChecks, request: pb.CountEventsRequest | pb.FindBatchesRequest, field: str
) -> datetime:
    stamp: Timestamp = getattr(request, field)
    try:
        time = stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        time = None
    if request.HasField(field) and time is not None:  # type: ignore[arg-type] # "from" or "to"
        return time
    checks.require(False, field, "must be a time of the years 1 to 9999")
    return datetime.min.replace(tzinfo=UTC)


def _count(hour: CountedHour) -> pb.EventCount:
    return pb.EventCount(
        organization_id=hour.tenant.organization_id,
        mode=hour.tenant.mode,  # type: ignore[arg-type] # the proto's number
        metric=hour.metric,
        hour=_timestamp(hour.hour),
        event_count=hour.event_count,
        amount_sum=format_decimal(hour.amount_sum),
        moving=hour.moving,
    )


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
