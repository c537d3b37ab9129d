"""/api/subscriptions/{id}/change, /periods, and /api/plans/{id}/migrate"""

from litestar import get, post
from litestar.params import FromPath, JSONBody
from usageflow.invoicer.v1 import subscription_changes_pb2 as pb

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.shapes.subscription_changes import (
    BillingPeriods,
    Change,
    ChangePreview,
    MigrationPage,
    NewMigration,
    PeriodsQuery,
    migration_to_proto,
    migrations_from_proto,
    periods_from_proto,
    periods_to_proto,
    preview_from_proto,
    to_proto,
)
from gateway.shapes.subscriptions import Subscription, from_proto


@post("/api/subscriptions/{subscription_id:str}/change", status_code=200)
async def change_subscription(
    calls: ApiCalls, subscription_id: FromPath[str], data: JSONBody[Change]
) -> Subscription:
    """Put a subscription on another plan, version or quantity, NOW or at PERIOD_END.

    Another plan at once cuts the period: each part has its own invoice, base prices and minimums
    are shared by seconds. Another quantity alone only shares the base price. What was paid in
    advance and is not used is credited. Repeating it changes nothing.
    """
    request = to_proto(subscription_id, data)
    return from_proto((await calls.call(calls.changes.ChangeSubscription, request)).subscription)


@post("/api/subscriptions/{subscription_id:str}/change/preview", status_code=200)
async def preview_subscription_change(
    calls: ApiCalls, subscription_id: FromPath[str], data: JSONBody[Change]
) -> ChangePreview:
    """What a change would do, with the invoices to the first one after it; nothing is written."""
    request = pb.PreviewSubscriptionChangeRequest(change=to_proto(subscription_id, data))
    return preview_from_proto(await calls.call(calls.changes.PreviewSubscriptionChange, request))


@get("/api/subscriptions/{subscription_id:str}/periods", dependencies=query(PeriodsQuery))
async def list_billing_periods(
    calls: ApiCalls, subscription_id: FromPath[str], asked: Asked[PeriodsQuery]
) -> BillingPeriods:
    """The periods that a subscription's time is cut into: each has an invoice of its own, but for
    those of trials and pauses. At most 1,000.
    """
    request = periods_to_proto(subscription_id, asked)
    return periods_from_proto(await calls.call(calls.changes.ListBillingPeriods, request))


@post("/api/plans/{plan_id:str}/migrate", status_code=200)
async def migrate_subscriptions(
    calls: ApiCalls, plan_id: FromPath[str], data: JSONBody[NewMigration]
) -> MigrationPage:
    """Move subscriptions that are on other versions of a plan to one version, a page at a time.

    With `dryRun` nothing is written. Repeat it with `cursor` until `nextCursor` is null.
    """
    request = migration_to_proto(plan_id, data)
    return migrations_from_proto(await calls.call(calls.changes.MigrateSubscriptions, request))


@post("/api/subscriptions/{subscription_id:str}/uncancel", status_code=200)
async def uncancel_subscription(calls: ApiCalls, subscription_id: FromPath[str]) -> Subscription:
    """Withdraw a cancellation whose time has not come: the subscription goes on.

    What was to change after the end is not brought back. 409 when it has ended.
    """
    request = pb.UncancelSubscriptionRequest(subscription_id=subscription_id)
    return from_proto((await calls.call(calls.changes.UncancelSubscription, request)).subscription)


HANDLERS = [
    change_subscription,
    preview_subscription_change,
    list_billing_periods,
    migrate_subscriptions,
    uncancel_subscription,
]
