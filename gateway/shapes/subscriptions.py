"""Subscriptions: a customer on a plan."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.shapes.common import PageQuery, name_of, number_of, time_of, time_or_none, timestamp

_STATUS, _ANCHOR = "SUBSCRIPTION_STATUS_", "BILLING_ANCHOR_"


class NewSubscription(msgspec.Struct, rename="camel", kw_only=True):
    """A customer to put on a plan."""

    customer_id: str
    plan_id: str
    starts_at: Annotated[
        datetime | None,
        Meta(description="On a quarter of an hour; null: the running quarter of an hour"),
    ] = None
    billing_anchor: Literal["CALENDAR", "ANNIVERSARY"] = "CALENDAR"


class Subscription(msgspec.Struct, rename="camel", kw_only=True):
    """A subscription."""

    id: str
    customer_id: str
    plan_id: str
    plan_version: int
    status: str
    billing_anchor: str
    starts_at: datetime
    current_period_start: datetime | None
    current_period_end: datetime | None
    ends_at: datetime | None
    created_at: datetime


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
    )


def from_proto(message: pb.Subscription) -> Subscription:
    """The JSON of a subscription."""
    return Subscription(
        id=message.id,
        customer_id=message.customer_id,
        plan_id=message.plan_id,
        plan_version=message.plan_version,
        status=name_of(pb.SubscriptionStatus, message.status, _STATUS),
        billing_anchor=name_of(pb.BillingAnchor, message.billing_anchor, _ANCHOR),
        starts_at=time_of(message.start_time),
        current_period_start=time_or_none(message, "current_period_start_time"),
        current_period_end=time_or_none(message, "current_period_end_time"),
        ends_at=time_or_none(message, "cancel_time"),
        created_at=time_of(message.create_time),
    )
