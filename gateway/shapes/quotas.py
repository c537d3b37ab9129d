"""Quotas: limits on usage, and units set aside."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from usageflow.aggregator.v1 import quotas_pb2 as pb

from gateway.fields import Quantity
from gateway.shapes.common import Amount, PageQuery, name_of, number_of, time_of, time_or_none

_PERIOD = "QUOTA_PERIOD_"
_ENFORCEMENT = "QUOTA_ENFORCEMENT_"
_STATUS = "RESERVATION_STATUS_"
Period = Literal["HOUR", "DAY", "WEEK", "MONTH", "TOTAL"]
Enforcement = Literal["HARD", "SOFT"]


class NewQuota(msgspec.Struct, rename="camel", kw_only=True):
    """A quota to make, or to set in full when there is one of the metric, customer and period."""

    metric: Annotated[str, Meta(description="A metric of aggregation SUM or COUNT")]
    customer_id: Annotated[
        str | None, Meta(description="null: each customer who has no such quota of its own")
    ] = None
    period: Period = "MONTH"
    limit: Annotated[
        Quantity | None,
        Meta(description="Exact decimal >= 0; null: unlimited, which frees of the default"),
    ]
    enforcement: Annotated[
        Enforcement, Meta(description="HARD: no more than the limit; SOFT: the limit is only told")
    ] = "HARD"
    timezone: Annotated[str | None, Meta(description="IANA time zone of periods; null: UTC")] = None
    thresholds: Annotated[
        list[str] | None,
        Meta(
            description='usage.threshold_reached goes out at each, once a period: "80%" of the '
            'limit, or units such as "1000"; null: 50%, 80%, 100%'
        ),
    ] = None


class Quota(msgspec.Struct, rename="camel", kw_only=True):
    """A quota."""

    id: str
    metric: str
    customer_id: str | None
    period: str
    limit: Amount | None
    enforcement: str
    timezone: str | None
    thresholds: list[str]
    created_at: datetime
    updated_at: datetime


class QuotaPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of quotas."""

    data: list[Quota]
    next_cursor: str | None


class QuotasQuery(PageQuery, rename="camel", kw_only=True):
    """Which quotas."""

    metric: str = ""
    customer_id: Annotated[str | None, Meta(description="Only this customer's own")] = None


class QuotaState(msgspec.Struct, rename="camel", kw_only=True):
    """How much of a quota is used in the running period [periodStart, resetsAt)."""

    quota_id: str
    period: str
    enforcement: str
    limit: Amount | None
    used: Amount
    reserved: Amount
    remaining: Amount | None
    period_start: datetime
    resets_at: datetime | None


class CheckQuery(msgspec.Struct, rename="camel", kw_only=True):
    """What a customer would like to use."""

    metric: str
    customer_id: str
    amount: Annotated[str, Meta(description="How much more, exact decimal; left out: 1")] = ""


class QuotaCheck(msgspec.Struct, rename="camel", kw_only=True):
    """Whether a customer may use so much more, as of half a second ago at most.

    limit, used, reserved, remaining and resetsAt are those of the tightest quota; null (used and
    reserved: "0") when none applies. A limit or remaining of null is unlimited.
    """

    allowed: bool
    limit: Amount | None
    used: Amount
    reserved: Amount
    remaining: Amount | None
    resets_at: datetime | None
    quotas: list[QuotaState]


class NewReservation(msgspec.Struct, rename="camel", kw_only=True):
    """Units to set aside."""

    metric: str
    customer_id: str
    amount: Quantity
    ttl_seconds: Annotated[
        int, Meta(ge=1, le=86_400, description="Until the units are free again")
    ] = 60
    idempotency_key: Annotated[
        str, Meta(description="The same key again gives the same reservation")
    ] = ""


class Reservation(msgspec.Struct, rename="camel", kw_only=True):
    """Units that were set aside."""

    id: str
    metric: str
    customer_id: str
    amount: Amount
    status: str
    committed_amount: Amount | None
    created_at: datetime
    expires_at: datetime


class ReservationWithQuotas(Reservation, rename="camel", kw_only=True):
    """A reservation, and the quotas that apply, with it in."""

    quotas: list[QuotaState]


class Commitment(msgspec.Struct, rename="camel", kw_only=True):
    """How many units were used and recorded."""

    amount: Annotated[
        Quantity | None, Meta(description="Also more than were set aside; null: all of them")
    ] = None


def to_proto(quota: NewQuota) -> pb.SetQuotaRequest:
    """The request that makes or sets it."""
    return pb.SetQuotaRequest(
        quota=pb.Quota(
            metric=quota.metric,
            customer_id=quota.customer_id,
            period=number_of(pb.QuotaPeriod, quota.period, _PERIOD),
            limit=quota.limit,
            enforcement=number_of(pb.QuotaEnforcement, quota.enforcement, _ENFORCEMENT),
            time_zone=quota.timezone or "",
            thresholds=(
                None if quota.thresholds is None else pb.QuotaThresholds(values=quota.thresholds)
            ),
        )
    )


def from_proto(message: pb.Quota) -> Quota:
    """The JSON of a quota."""
    return Quota(
        id=message.id,
        metric=message.metric,
        customer_id=message.customer_id if message.HasField("customer_id") else None,
        period=name_of(pb.QuotaPeriod, message.period, _PERIOD),
        limit=message.limit if message.HasField("limit") else None,
        enforcement=name_of(pb.QuotaEnforcement, message.enforcement, _ENFORCEMENT),
        timezone=message.time_zone or None,
        thresholds=list(message.thresholds.values),
        created_at=time_of(message.create_time),
        updated_at=time_of(message.update_time),
    )


def check_from_proto(message: pb.CheckQuotaResponse) -> QuotaCheck:
    """The JSON of a check."""
    states = [state_from_proto(state) for state in message.quotas]
    tightest = states[0] if states else None
    return QuotaCheck(
        allowed=message.allowed,
        limit=tightest.limit if tightest else None,
        used=tightest.used if tightest else "0",
        reserved=tightest.reserved if tightest else "0",
        remaining=tightest.remaining if tightest else None,
        resets_at=tightest.resets_at if tightest else None,
        quotas=states,
    )


def state_from_proto(message: pb.QuotaState) -> QuotaState:
    """The JSON of a quota's state."""
    return QuotaState(
        quota_id=message.quota_id,
        period=name_of(pb.QuotaPeriod, message.period, _PERIOD),
        enforcement=name_of(pb.QuotaEnforcement, message.enforcement, _ENFORCEMENT),
        limit=message.limit if message.HasField("limit") else None,
        used=message.used,
        reserved=message.reserved,
        remaining=message.remaining if message.HasField("remaining") else None,
        period_start=time_of(message.period_start),
        resets_at=time_or_none(message, "resets_at"),
    )


def reservation_to_proto(new: NewReservation) -> pb.ReserveQuotaRequest:
    """The request that sets the units aside."""
    return pb.ReserveQuotaRequest(
        metric=new.metric,
        customer_id=new.customer_id,
        amount=new.amount,
        ttl_seconds=new.ttl_seconds,
        idempotency_key=new.idempotency_key,
    )


def reservation_from_proto(message: pb.Reservation) -> Reservation:
    """The JSON of a reservation."""
    return Reservation(**_members(message))


def reserved_from_proto(message: pb.ReserveQuotaResponse) -> ReservationWithQuotas:
    """The JSON of a new reservation."""
    states = [state_from_proto(state) for state in message.quotas]
    return ReservationWithQuotas(**_members(message.reservation), quotas=states)


def _members(message: pb.Reservation) -> dict[str, Any]:
    used = message.committed_amount if message.HasField("committed_amount") else None
    return {
        "id": message.id,
        "metric": message.metric,
        "customer_id": message.customer_id,
        "amount": message.amount,
        "status": name_of(pb.ReservationStatus, message.status, _STATUS),
        "committed_amount": used,
        "created_at": time_of(message.create_time),
        "expires_at": time_of(message.expire_time),
    }
