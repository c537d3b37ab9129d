"""Translates between proto and the domain of quotas; decides nothing but who may call."""

from datetime import UTC, datetime
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import quotas_pb2 as pb
from usageflow.aggregator.v1.quotas_pb2_grpc import QuotaServiceServicer

from services.aggregator.quotas.checking import QuotaChecks
from services.aggregator.quotas.domain import (
    HARD,
    THRESHOLDS_DEFAULT,
    TTL_DEFAULT_S,
    Customer,
    Quota,
    QuotaSettings,
    QuotaState,
    Reservation,
)
from services.aggregator.quotas.service import Quotas, Reservations
from services.aggregator.quotas.states import CustomerStates
from services.aggregator.windows import MONTH
from services.kit import clock
from services.kit.auth import Principal, current_principal, require_scope
from services.kit.etag import expecting, tagged
from services.kit.money import format_decimal

TOLD_MAX = 10_000
TIMES_MAX = 1_000
_PERIODS = {
    number: name.removeprefix("QUOTA_PERIOD_") for name, number in pb.QuotaPeriod.items() if number
}
_PERIODS_BACK = {name: number for number, name in _PERIODS.items()}
_ENFORCEMENTS = {
    number: name.removeprefix("QUOTA_ENFORCEMENT_")
    for name, number in pb.QuotaEnforcement.items()
    if number
}
_ENFORCEMENTS_BACK = {name: number for number, name in _ENFORCEMENTS.items()}


class QuotaServicer(QuotaServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(self, quotas: Quotas, checks: QuotaChecks, reservations: Reservations) -> None:
        self._quotas = quotas
        self._checks = checks
        self._reservations = reservations

    async def SetQuota(self, request: pb.SetQuotaRequest, context: object) -> pb.SetQuotaResponse:
        """Make a quota, or set it in full; scope admin."""
        caller = require_scope("admin")
        limit = request.quota.limit if request.quota.HasField("limit") else None
        expect = expecting(request.if_match, _quota)
        quota, created = await self._quotas.set(
            caller.tenant,
            _settings(request.quota),
            limit,
            expect,
            caller.actor_id,
            _times(caller, request.quota.customer_id),
        )
        return pb.SetQuotaResponse(quota=_quota(quota), created=created)

    async def GetQuota(self, request: pb.GetQuotaRequest, context: object) -> pb.GetQuotaResponse:
        """One quota; scope read."""
        tenant = require_scope("read").tenant
        return pb.GetQuotaResponse(quota=_quota(await self._quotas.get(tenant, request.id)))

    async def ListQuotas(
        self, request: pb.ListQuotasRequest, context: object
    ) -> pb.ListQuotasResponse:
        """A page of quotas, newest first; scope read."""
        tenant = require_scope("read").tenant
        quotas, next_page_token = await self._quotas.list(
            tenant,
            request.metric,
            request.customer_id if request.HasField("customer_id") else None,
            request.page_size,
            request.page_token,
        )
        return pb.ListQuotasResponse(
            quotas=[_quota(quota) for quota in quotas], next_page_token=next_page_token
        )

    async def DeleteQuota(
        self, request: pb.DeleteQuotaRequest, context: object
    ) -> pb.DeleteQuotaResponse:
        """Take a quota away; scope admin."""
        caller = require_scope("admin")
        expect = expecting(request.if_match, _quota)
        await self._quotas.delete(caller.tenant, request.id, caller.actor_id, expect)
        return pb.DeleteQuotaResponse()

    async def CheckQuota(
        self, request: pb.CheckQuotaRequest, context: object
    ) -> pb.CheckQuotaResponse:
        """Whether a customer may use so much more; scope read or track."""
        caller = _read_or_track()
        customer = Customer(caller.tenant, request.metric, request.customer_id)
        at = caller.time_of(request.customer_id)
        answer = await self._checks.check(customer, request.amount, at)
        return _told(answer.found, answer.allowed)

    async def ReserveQuota(
        self, request: pb.ReserveQuotaRequest, context: object
    ) -> pb.ReserveQuotaResponse:
        """Set units aside; scope track."""
        caller = require_scope("track")
        reserved = await self._reservations.reserve(
            Customer(caller.tenant, request.metric, request.customer_id),
            request.amount,
            request.ttl_seconds or TTL_DEFAULT_S,
            request.idempotency_key,
            caller.time_of(request.customer_id),
        )
        return pb.ReserveQuotaResponse(
            reservation=_reservation(reserved.reservation),
            quotas=[_state(state) for state in reserved.states],
        )

    async def GetReservation(
        self, request: pb.GetReservationRequest, context: object
    ) -> pb.GetReservationResponse:
        """One reservation; scope read or track."""
        found = await self._reservations.get(_read_or_track().tenant, request.id)
        return pb.GetReservationResponse(reservation=_reservation(found))

    async def CommitReservation(
        self, request: pb.CommitReservationRequest, context: object
    ) -> pb.CommitReservationResponse:
        """The units were used and recorded; scope track."""
        tenant = require_scope("track").tenant
        committed = await self._reservations.commit(tenant, request.id, request.amount)
        return pb.CommitReservationResponse(reservation=_reservation(committed))

    async def ReleaseReservation(
        self, request: pb.ReleaseReservationRequest, context: object
    ) -> pb.ReleaseReservationResponse:
        """Give the units back; scope track."""
        tenant = require_scope("track").tenant
        released = await self._reservations.release(tenant, request.id)
        return pb.ReleaseReservationResponse(reservation=_reservation(released))


def _read_or_track() -> Principal:
    """Who is calling; who records usage may ask whether it is allowed."""
    principal = current_principal()
    return principal if principal.may("track") else require_scope("read")


def _times(caller: Principal, customer_id: str) -> dict[str, datetime]:
    """What time it is for the customer; of all ("") also for each who has a test clock."""
    times = {customer_id: caller.time_of(customer_id) or clock.now()}
    if not customer_id:
        clocks = {each: caller.time_of(each) for each, _ in caller.test_clocks}
        times |= {each: time for each, time in clocks.items() if time is not None}
    return times


def _settings(quota: pb.Quota) -> QuotaSettings:
    # Unknown numbers stay numbers, so that the domain refuses them.
    period, enforcement = quota.period, quota.enforcement
    return QuotaSettings(
        metric=quota.metric,
        customer_id=quota.customer_id,
        period=_PERIODS.get(period, str(period)) if period else MONTH,
        enforcement=_ENFORCEMENTS.get(enforcement, str(enforcement)) if enforcement else HARD,
        time_zone=quota.time_zone,
        thresholds=(
            tuple(quota.thresholds.values) if quota.HasField("thresholds") else THRESHOLDS_DEFAULT
        ),
    )


def _quota(quota: Quota) -> pb.Quota:
    settings = quota.settings
    message = pb.Quota(
        id=quota.quota_id,
        metric=settings.metric,
        customer_id=settings.customer_id or None,
        period=_PERIODS_BACK[settings.period],
        limit=None if settings.limit is None else format_decimal(settings.limit),
        enforcement=_ENFORCEMENTS_BACK[settings.enforcement],
        time_zone=settings.time_zone,
        create_time=_timestamp(quota.create_time),
        update_time=_timestamp(quota.update_time),
        thresholds=pb.QuotaThresholds(values=settings.thresholds),
    )
    return tagged(message)


@lru_cache(TOLD_MAX)
def _told(found: CustomerStates, allowed: bool) -> pb.CheckQuotaResponse:
    """What is asked again and again is translated once; nobody changes it."""
    return pb.CheckQuotaResponse(allowed=allowed, quotas=[_state(state) for state in found.states])


def _state(state: QuotaState) -> pb.QuotaState:
    settings, remaining = state.quota.settings, state.remaining
    return pb.QuotaState(
        quota_id=state.quota.quota_id,
        period=_PERIODS_BACK[settings.period],
        enforcement=_ENFORCEMENTS_BACK[settings.enforcement],
        limit=None if settings.limit is None else format_decimal(settings.limit),
        used=format_decimal(state.used),
        reserved=format_decimal(state.reserved),
        remaining=None if remaining is None else format_decimal(remaining),
        period_start=_timestamp(state.start),
        resets_at=None if state.resets_at is None else _timestamp(state.resets_at),
    )


def _reservation(reservation: Reservation) -> pb.Reservation:
    used = reservation.committed_amount
    return pb.Reservation(
        id=reservation.reservation_id,
        metric=reservation.metric,
        customer_id=reservation.customer_id,
        amount=format_decimal(reservation.amount),
        status=pb.ReservationStatus.Value(
            f"RESERVATION_STATUS_{reservation.status_at(clock.now())}"
        ),
        create_time=_timestamp(reservation.create_time),
        expire_time=_timestamp(reservation.expire_time),
        committed_amount=None if used is None else format_decimal(used),
    )


@lru_cache(TIMES_MAX)
def _timestamp(time: datetime) -> Timestamp:
    """Most are where periods begin and end; nobody changes it."""
    stamp = Timestamp()
    stamp.FromDatetime(time.astimezone(UTC))
    return stamp
