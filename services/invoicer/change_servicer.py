"""Translates between proto and domain for changes; decides nothing but who may call."""

from collections.abc import Callable
from datetime import datetime

from usageflow.invoicer.v1 import invoicer_pb2
from usageflow.invoicer.v1 import subscription_changes_pb2 as pb
from usageflow.invoicer.v1.subscription_changes_pb2_grpc import SubscriptionChangesServiceServicer

from services.invoicer import messages
from services.invoicer.service.billing_periods import BillingPeriods
from services.invoicer.service.paging import Page
from services.invoicer.service.subscription_changes import (
    ChangeInput,
    Migration,
    MigrationInput,
    SubscriptionChanges,
)
from services.invoicer.service.subscriptions import Subscriptions
from services.kit.auth import require_scope


class SubscriptionChangesServicer(SubscriptionChangesServiceServicer):
    """What callers with an API key may do, in their own organization and mode."""

    def __init__(
        self,
        changes: SubscriptionChanges,
        subscriptions: Subscriptions,
        periods: BillingPeriods,
        now: Callable[[], datetime],
    ) -> None:
        self._changes = changes
        self._subscriptions = subscriptions
        self._periods = periods
        self._now = now

    async def ChangeSubscription(
        self, request: pb.ChangeSubscriptionRequest, context: object
    ) -> pb.ChangeSubscriptionResponse:
        """Put a subscription on another plan, version or quantity."""
        tenant = require_scope("admin").tenant
        found = await self._changes.change_subscription(tenant, _change_input(request))
        return pb.ChangeSubscriptionResponse(subscription=messages.subscription(found, self._now()))

    async def PreviewSubscriptionChange(
        self, request: pb.PreviewSubscriptionChangeRequest, context: object
    ) -> pb.PreviewSubscriptionChangeResponse:
        """What a change would come to."""
        tenant = require_scope("read").tenant
        found = await self._changes.preview_change(tenant, _change_input(request.change))
        return pb.PreviewSubscriptionChangeResponse(
            subscription=messages.subscription(found.subscription, self._now()),
            invoices=[
                messages.draft(draft, applied)
                for draft, applied in zip(found.invoices, found.credits_applied, strict=True)
            ],
            as_of=messages.timestamp(found.as_of),
        )

    async def MigrateSubscriptions(
        self, request: pb.MigrateSubscriptionsRequest, context: object
    ) -> pb.MigrateSubscriptionsResponse:
        """Move subscriptions to another version of their plan."""
        tenant = require_scope("admin").tenant
        given = MigrationInput(
            plan_id=request.plan_id,
            to_version=request.to_version,
            from_version=request.from_version,
            timing=messages.timing(request.timing, invoicer_pb2.CHANGE_TIMING_PERIOD_END),
            dry_run=request.dry_run,
        )
        page = Page(request.page_size, request.page_token)
        version, done, token = await self._changes.migrate_subscriptions(tenant, given, page)
        return pb.MigrateSubscriptionsResponse(
            to_version=version,
            migrations=[_migration(each) for each in done],
            next_page_token=token,
        )

    async def ListBillingPeriods(
        self, request: pb.ListBillingPeriodsRequest, context: object
    ) -> pb.ListBillingPeriodsResponse:
        """The periods of a subscription."""
        tenant = require_scope("read").tenant
        found = await self._periods.list_periods(
            tenant,
            request.subscription_id,
            messages.time_or_none(request, "from", "from"),
            messages.time_or_none(request, "to", "to"),
        )
        return pb.ListBillingPeriodsResponse(
            periods=[
                pb.BillingPeriodSpan(
                    start_time=messages.timestamp(period.start),
                    end_time=messages.timestamp(period.end),
                )
                for period in found
            ]
        )

    async def UncancelSubscription(
        self, request: pb.UncancelSubscriptionRequest, context: object
    ) -> pb.UncancelSubscriptionResponse:
        """Withdraw a cancellation."""
        tenant = require_scope("admin").tenant
        found = await self._subscriptions.uncancel_subscription(tenant, request.subscription_id)
        return pb.UncancelSubscriptionResponse(
            subscription=messages.subscription(found, self._now())
        )


def _change_input(request: pb.ChangeSubscriptionRequest) -> ChangeInput:
    return ChangeInput(
        subscription_id=request.subscription_id,
        plan_id=request.plan_id,
        plan_version=request.plan_version,
        quantity=request.quantity,
        timing=messages.timing(request.timing, invoicer_pb2.CHANGE_TIMING_NOW),
    )


def _migration(done: Migration) -> pb.Migration:
    return pb.Migration(
        subscription_id=done.subscription_id,
        customer_id=done.customer_id,
        from_version=done.from_version,
        time=messages.timestamp(done.time),
        problem=done.problem,
    )
