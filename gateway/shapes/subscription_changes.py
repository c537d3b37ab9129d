"""Subscriptions that move to other plans, versions and quantities."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import invoicer_pb2
from usageflow.invoicer.v1 import subscription_changes_pb2 as pb

from gateway.shapes import invoices, subscriptions
from gateway.shapes.common import number_of, time_of, timestamp
from gateway.shapes.invoices import Invoice
from gateway.shapes.subscriptions import Quantity, Subscription, Timing
from services.kit.pages import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

_TIMING = "CHANGE_TIMING_"
_VERSION_MAX = 2_147_483_647

Version = Annotated[int, Meta(ge=1, le=_VERSION_MAX)]


class Change(msgspec.Struct, rename="camel", kw_only=True):
    """What a subscription is to be on."""

    plan_id: Annotated[
        str, Meta(description="In the same currency; empty: the one that it is on")
    ] = ""
    plan_version: Annotated[
        Version | None,
        Meta(description="null: the newest of a plan that is given, else the one that it is on"),
    ] = None
    quantity: Annotated[Quantity | None, Meta(description="null: as many as now")] = None
    at: Timing = "NOW"


class ChangePreview(msgspec.Struct, rename="camel", kw_only=True):
    """What a change would do."""

    subscription: Annotated[Subscription, Meta(description="As it would be")]
    invoices: Annotated[
        list[Invoice],
        Meta(description="Those to come, to the first one after the change, with usage so far"),
    ]
    as_of: datetime


class NewMigration(msgspec.Struct, rename="camel", kw_only=True):
    """Which subscriptions of a plan are to be on which version."""

    to_version: Annotated[Version | None, Meta(description="null: the newest")] = None
    from_version: Annotated[Version | None, Meta(description="null: any other")] = None
    at: Timing = "PERIOD_END"
    dry_run: Annotated[bool, Meta(description="Only tell what would be done")] = False
    limit: Annotated[int, Meta(ge=1, le=PAGE_SIZE_MAX, description="Subscriptions at once")] = (
        PAGE_SIZE_DEFAULT
    )
    cursor: Annotated[str, Meta(description="nextCursor of the answer before")] = ""


class PeriodsQuery(msgspec.Struct, rename="camel", kw_only=True):
    """Which periods: those that lie in the range, in part at least."""

    from_: Annotated[datetime | None, Meta(description="Left out: now")] = msgspec.field(
        default=None, name="from"
    )
    to: Annotated[datetime | None, Meta(description="Not included; left out: now")] = None


class BillingPeriod(msgspec.Struct, rename="camel", kw_only=True):
    """[start, end)."""

    start: datetime
    end: datetime


class BillingPeriods(msgspec.Struct, rename="camel", kw_only=True):
    """Periods, oldest first; each begins where the one before it ends."""

    data: list[BillingPeriod]


class Migration(msgspec.Struct, rename="camel", kw_only=True):
    """What was done with one subscription, or would be."""

    subscription_id: str
    customer_id: str
    from_version: int
    at: datetime
    problem: Annotated[
        str | None, Meta(description="Why it can't be moved; null: it is, or would be")
    ]


class MigrationPage(msgspec.Struct, rename="camel", kw_only=True):
    """What was done with a page of subscriptions, by id."""

    to_version: int
    data: list[Migration]
    next_cursor: str | None


def to_proto(subscription_id: str, change: Change) -> pb.ChangeSubscriptionRequest:
    """The request that changes a subscription."""
    return pb.ChangeSubscriptionRequest(
        subscription_id=subscription_id,
        plan_id=change.plan_id,
        plan_version=change.plan_version or 0,
        quantity=change.quantity or 0,
        timing=number_of(invoicer_pb2.ChangeTiming, change.at, _TIMING),
    )


def preview_from_proto(message: pb.PreviewSubscriptionChangeResponse) -> ChangePreview:
    """The JSON of a preview."""
    return ChangePreview(
        subscription=subscriptions.from_proto(message.subscription),
        invoices=[invoices.from_proto(each) for each in message.invoices],
        as_of=time_of(message.as_of),
    )


def periods_to_proto(subscription_id: str, asked: PeriodsQuery) -> pb.ListBillingPeriodsRequest:
    """The request that asks for periods."""
    # The field's name is a keyword of Python.
    start: dict[str, Any] = {"from": timestamp(asked.from_)}
    return pb.ListBillingPeriodsRequest(
        subscription_id=subscription_id, to=timestamp(asked.to), **start
    )


def periods_from_proto(message: pb.ListBillingPeriodsResponse) -> BillingPeriods:
    """The JSON of periods."""
    return BillingPeriods(
        data=[
            BillingPeriod(start=time_of(each.start_time), end=time_of(each.end_time))
            for each in message.periods
        ]
    )


def migration_to_proto(plan_id: str, given: NewMigration) -> pb.MigrateSubscriptionsRequest:
    """The request that moves subscriptions."""
    return pb.MigrateSubscriptionsRequest(
        plan_id=plan_id,
        to_version=given.to_version or 0,
        from_version=given.from_version or 0,
        timing=number_of(invoicer_pb2.ChangeTiming, given.at, _TIMING),
        dry_run=given.dry_run,
        page_size=given.limit,
        page_token=given.cursor,
    )


def migrations_from_proto(message: pb.MigrateSubscriptionsResponse) -> MigrationPage:
    """The JSON of what was done."""
    return MigrationPage(
        to_version=message.to_version,
        data=[
            Migration(
                subscription_id=each.subscription_id,
                customer_id=each.customer_id,
                from_version=each.from_version,
                at=time_of(each.time),
                problem=each.problem or None,
            )
            for each in message.migrations
        ],
        next_cursor=message.next_page_token or None,
    )
