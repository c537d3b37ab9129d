"""Cases of the routes that become RPCs of invoicer's SubscriptionChangesService."""

from typing import Any

from usageflow.invoicer.v1 import invoicer_pb2 as invoicer
from usageflow.invoicer.v1 import subscription_changes_pb2 as changes

from tests.integration.gateway.billing_routes import (
    INVOICE,
    INVOICE_JSON,
    SUBSCRIPTION,
    SUBSCRIPTION_JSON,
)
from tests.integration.gateway.route_cases import Case, at

_FROM: dict[str, Any] = {"from": at(2)}
_CHANGE = changes.ChangeSubscriptionRequest(
    subscription_id="sub_1",
    plan_id="plan_2",
    plan_version=3,
    quantity=7,
    timing=invoicer.CHANGE_TIMING_PERIOD_END,
)
_CHANGE_JSON = {"planId": "plan_2", "planVersion": 3, "quantity": 7, "at": "PERIOD_END"}

CASES = [
    Case(
        "POST",
        "/api/subscriptions/sub_1/uncancel",
        "UncancelSubscription",
        changes.UncancelSubscriptionRequest(subscription_id="sub_1"),
        changes.UncancelSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
    ),
    Case(
        "POST",
        "/api/subscriptions/sub_1/change",
        "ChangeSubscription",
        _CHANGE,
        changes.ChangeSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
        _CHANGE_JSON,
    ),
    Case(
        "POST",
        "/api/subscriptions/sub_1/change",
        "ChangeSubscription",
        changes.ChangeSubscriptionRequest(
            subscription_id="sub_1", quantity=2, timing=invoicer.CHANGE_TIMING_NOW
        ),
        changes.ChangeSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
        {"quantity": 2},
    ),
    Case(
        "POST",
        "/api/subscriptions/sub_1/change/preview",
        "PreviewSubscriptionChange",
        changes.PreviewSubscriptionChangeRequest(change=_CHANGE),
        changes.PreviewSubscriptionChangeResponse(
            subscription=SUBSCRIPTION, invoices=[INVOICE], as_of=at(3)
        ),
        {
            "subscription": SUBSCRIPTION_JSON,
            "invoices": [INVOICE_JSON],
            "asOf": "2026-01-03T00:00:00Z",
        },
        _CHANGE_JSON,
    ),
    Case(
        "GET",
        "/api/subscriptions/sub_1/periods?from=2026-01-02T00:00:00Z&to=2026-01-04T00:00:00Z",
        "ListBillingPeriods",
        changes.ListBillingPeriodsRequest(subscription_id="sub_1", to=at(4), **_FROM),
        changes.ListBillingPeriodsResponse(
            periods=[changes.BillingPeriodSpan(start_time=at(1), end_time=at(8))]
        ),
        {"data": [{"start": "2026-01-01T00:00:00Z", "end": "2026-01-08T00:00:00Z"}]},
    ),
    Case(
        "POST",
        "/api/plans/plan_1/migrate",
        "MigrateSubscriptions",
        changes.MigrateSubscriptionsRequest(
            plan_id="plan_1",
            to_version=3,
            from_version=1,
            timing=invoicer.CHANGE_TIMING_PERIOD_END,
            dry_run=True,
            page_size=2,
            page_token="c",
        ),
        changes.MigrateSubscriptionsResponse(
            to_version=3,
            migrations=[
                changes.Migration(
                    subscription_id="sub_1", customer_id="user_1", from_version=1, time=at(31)
                ),
                changes.Migration(
                    subscription_id="sub_2",
                    customer_id="user_2",
                    from_version=1,
                    time=at(31),
                    problem="P",
                ),
            ],
            next_page_token="next",
        ),
        {
            "toVersion": 3,
            "data": [
                {
                    "subscriptionId": "sub_1",
                    "customerId": "user_1",
                    "fromVersion": 1,
                    "at": "2026-01-31T00:00:00Z",
                    "problem": None,
                },
                {
                    "subscriptionId": "sub_2",
                    "customerId": "user_2",
                    "fromVersion": 1,
                    "at": "2026-01-31T00:00:00Z",
                    "problem": "P",
                },
            ],
            "nextCursor": "next",
        },
        {"toVersion": 3, "fromVersion": 1, "dryRun": True, "limit": 2, "cursor": "c"},
    ),
]
