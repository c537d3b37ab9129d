"""Usage by the periods of a subscription: aggregator knows no subscriptions, so it is told them."""

from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.aggregator.v1 import aggregator_pb2
from usageflow.invoicer.v1 import invoicer_pb2, subscription_changes_pb2

from gateway.calls import Calls
from services.kit import clock
from services.kit.errors import FieldProblem, InvalidArgumentError

_SUBSCRIPTIONS_MAX: Final = 100


async def set_windows(
    calls: Calls, request: aggregator_pb2.QueryUsageRequest, subscription_id: str
) -> None:
    """Fill in where the windows of BILLING_PERIOD begin; other requests stay as they are.

    `from` and `to` are moved to what the subscription has periods of. InvalidArgumentError,
    NotFoundError.
    """
    if request.window != aggregator_pb2.WINDOW_BILLING_PERIOD:
        if subscription_id:
            raise _problem("subscriptionId", "must be left out but for window BILLING_PERIOD")
        return
    subscription = await _subscription(calls, request.customer_id, subscription_id)
    if request.customer_id not in ("", subscription.customer_id):
        raise _problem("subscriptionId", "must be a subscription of customerId")
    request.customer_id = subscription.customer_id
    asked = subscription_changes_pb2.ListBillingPeriodsRequest(subscription_id=subscription.id)
    for name in ("from", "to"):
        if request.HasField(name):
            getattr(asked, name).CopyFrom(getattr(request, name))
    periods = (await calls.call(calls.changes.ListBillingPeriods, asked)).periods
    if not periods:
        raise _problem("from", "must lie where the subscription has a billing period")
    start, end = getattr(request, "from"), request.to
    first, last = periods[0].start_time, periods[-1].end_time
    if not request.HasField("from") or _time(start) < _time(first):
        start.CopyFrom(first)
    if _time(last) < (_time(end) if request.HasField("to") else clock.now()):
        end.CopyFrom(last)
    request.window_starts.extend(period.start_time for period in periods)


async def _subscription(
    calls: Calls, customer_id: str, subscription_id: str
) -> invoicer_pb2.Subscription:
    if subscription_id:
        by_id = invoicer_pb2.GetSubscriptionRequest(subscription_id=subscription_id)
        return (await calls.call(calls.invoicer.GetSubscription, by_id)).subscription
    if not customer_id:
        raise _problem("customerId", "is required for window BILLING_PERIOD")
    of_customer = invoicer_pb2.ListSubscriptionsRequest(
        customer_id=customer_id, page_size=_SUBSCRIPTIONS_MAX
    )
    found = (await calls.call(calls.invoicer.ListSubscriptions, of_customer)).subscriptions
    going_on = [each for each in found if each.status != invoicer_pb2.SUBSCRIPTION_STATUS_CANCELLED]
    if len(found) == 1 or len(going_on) == 1:
        return (going_on or found)[0]
    many = "has several subscriptions" if found else "has no subscription"
    raise _problem("subscriptionId", f"is required: the customer {many}")


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)


def _problem(field: str, message: str) -> InvalidArgumentError:
    return InvalidArgumentError([FieldProblem(field, message)])
