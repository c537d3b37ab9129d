"""Subscriptions: a customer on a plan."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.shapes.common import PageQuery, name_of, number_of, time_of, time_or_none, timestamp

_STATUS, _ANCHOR = "SUBSCRIPTION_STATUS_", "BILLING_ANCHOR_"
_KIND, _TIMING = "PHASE_KIND_", "CHANGE_TIMING_"

Timing = Annotated[
    Literal["NOW", "PERIOD_END"],
    Meta(
        description="NOW: what is priced by time in this second (with the quarter of an hour when "
        "a whole period begins in it), usage with the running quarter, from its start what begins, "
        "at its end what ends; PERIOD_END: when the running period or trial is over"
    ),
]
Quantity = Annotated[
    int, Meta(description="How many times the base price is charged: seats", ge=1, le=1_000_000)
]


class NewSubscription(msgspec.Struct, rename="camel", kw_only=True):
    """A customer to put on a plan."""

    customer_id: str
    plan_id: str
    starts_at: Annotated[
        datetime | None,
        Meta(
            description="On a quarter of an hour; null: now, with usage of the running quarter, "
            "and a first part of a period is billed by time from this second on"
        ),
    ] = None
    billing_anchor: Literal["CALENDAR", "ANNIVERSARY"] = "CALENDAR"
    trial_days: Annotated[
        int,
        Meta(description="Days in which nothing is billed; periods begin after them", ge=0, le=730),
    ] = 0
    trial_ends_at: Annotated[
        datetime | None, Meta(description="In place of trialDays; on a quarter of an hour")
    ] = None
    quantity: Quantity = 1


class Cancellation(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """When to end a subscription."""

    at: Timing = "PERIOD_END"


class Pause(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """When to pause a subscription, and until when."""

    at: Timing = "NOW"
    resumes_at: Annotated[
        datetime | None,
        Meta(description="On a quarter of an hour; null: when it is resumed"),
    ] = None


class Phase(msgspec.Struct, rename="camel", kw_only=True):
    """A time in which a subscription is on one version of a plan."""

    starts_at: Annotated[
        datetime, Meta(description="From which quarter of an hour on usage is billed so")
    ]
    ends_at: Annotated[
        datetime | None,
        Meta(
            description="Until which one; null: it goes on. As startsAt: it has no usage, that of "
            "its quarter of an hour is a later phase's"
        ),
    ]
    exact_starts_at: Annotated[
        datetime, Meta(description="From which second on what is priced by time is billed so")
    ]
    exact_ends_at: Annotated[
        datetime | None,
        Meta(description="Until which one, where the next phase begins; null: it goes on"),
    ]
    kind: Annotated[
        str, Meta(description="BILLED, or TRIAL or PAUSED: nothing is billed, usage neither")
    ]
    plan_id: str
    plan_version: int
    quantity: int


class Subscription(msgspec.Struct, rename="camel", kw_only=True):
    """A subscription."""

    id: str
    customer_id: str
    plan_id: str
    plan_version: int
    status: str
    quantity: int
    billing_anchor: str
    starts_at: datetime
    current_period_start: datetime | None
    current_period_end: datetime | None
    trial_ends_at: datetime | None
    ends_at: datetime | None
    created_at: datetime
    phases: Annotated[list[Phase], Meta(description="What it was, is and will be on")]


class SubscriptionPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of subscriptions."""

    data: list[Subscription]
    next_cursor: str | None


class SubscriptionsQuery(PageQuery, rename="camel", kw_only=True):
    """Which subscriptions."""

    customer_id: str = ""


def to_proto(subscription: NewSubscription) -> pb.CreateSubscriptionRequest:
    """The request that makes a subscription."""
    return pb.CreateSubscriptionRequest(
        customer_id=subscription.customer_id,
        plan_id=subscription.plan_id,
        start_time=timestamp(subscription.starts_at),
        billing_anchor=number_of(pb.BillingAnchor, subscription.billing_anchor, _ANCHOR),
        trial_days=subscription.trial_days,
        trial_end_time=timestamp(subscription.trial_ends_at),
        quantity=subscription.quantity,
    )


def cancellation_to_proto(
    subscription_id: str, cancellation: Cancellation
) -> pb.CancelSubscriptionRequest:
    """The request that ends a subscription."""
    return pb.CancelSubscriptionRequest(
        subscription_id=subscription_id,
        timing=number_of(pb.ChangeTiming, cancellation.at, _TIMING),
    )


def pause_to_proto(subscription_id: str, pause: Pause) -> pb.PauseSubscriptionRequest:
    """The request that pauses a subscription."""
    return pb.PauseSubscriptionRequest(
        subscription_id=subscription_id,
        timing=number_of(pb.ChangeTiming, pause.at, _TIMING),
        resume_time=timestamp(pause.resumes_at),
    )


def from_proto(message: pb.Subscription) -> Subscription:
    """The JSON of a subscription."""
    return Subscription(
        id=message.id,
        customer_id=message.customer_id,
        plan_id=message.plan_id,
        plan_version=message.plan_version,
        status=name_of(pb.SubscriptionStatus, message.status, _STATUS),
        quantity=message.quantity,
        billing_anchor=name_of(pb.BillingAnchor, message.billing_anchor, _ANCHOR),
        starts_at=time_of(message.start_time),
        current_period_start=time_or_none(message, "current_period_start_time"),
        current_period_end=time_or_none(message, "current_period_end_time"),
        trial_ends_at=time_or_none(message, "trial_end_time"),
        ends_at=time_or_none(message, "cancel_time"),
        created_at=time_of(message.create_time),
        phases=[_phase(phase) for phase in message.phases],
    )


def _phase(message: pb.SubscriptionPhase) -> Phase:
    return Phase(
        starts_at=time_of(message.start_time),
        ends_at=time_or_none(message, "end_time"),
        exact_starts_at=time_or_none(message, "exact_start_time") or time_of(message.start_time),
        exact_ends_at=time_or_none(message, "exact_end_time"),
        kind=name_of(pb.PhaseKind, message.kind, _KIND),
        plan_id=message.plan_id,
        plan_version=message.plan_version,
        quantity=message.quantity,
    )
