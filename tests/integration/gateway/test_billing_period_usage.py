"""Usage by billing periods: the gateway asks invoicer for the periods, and tells aggregator."""

from typing import Any

import httpx
import pytest
from usageflow.aggregator.v1 import aggregator_pb2 as aggregator
from usageflow.invoicer.v1 import invoicer_pb2 as invoicer
from usageflow.invoicer.v1 import subscription_changes_pb2 as changes

from tests.integration.gateway.conftest import World
from tests.integration.gateway.route_cases import at

USAGE = "/api/usage?metric=A&window=BILLING_PERIOD"


def subscription(number: int, *, cancelled: bool = False) -> invoicer.Subscription:
    """One of user_1's."""
    status = invoicer.SUBSCRIPTION_STATUS_ACTIVE
    if cancelled:
        status = invoicer.SUBSCRIPTION_STATUS_CANCELLED
    return invoicer.Subscription(
        id=f"sub_{number}",
        customer_id="user_1",
        status=status,
        billing_anchor=invoicer.BILLING_ANCHOR_CALENDAR,
    )


@pytest.fixture(autouse=True)
def answers(world: World) -> dict[str, Any]:
    """user_1 has one subscription that goes on, with periods of a week."""
    world.answers = {
        "ListSubscriptions": invoicer.ListSubscriptionsResponse(
            subscriptions=[subscription(2), subscription(1, cancelled=True)]
        ),
        "GetSubscription": invoicer.GetSubscriptionResponse(subscription=subscription(1)),
        "ListBillingPeriods": changes.ListBillingPeriodsResponse(
            periods=[
                changes.BillingPeriodSpan(start_time=at(day), end_time=at(day + 7))
                for day in (5, 12)
            ]
        ),
        "QueryUsage": aggregator.QueryUsageResponse(metric="A"),
    }
    return world.answers


def last(world: World, rpc: str) -> Any:
    """The last request of a kind."""
    return next(request for name, request in reversed(world.requests) if name == rpc)


async def test_the_periods_of_the_customers_subscription_are_the_windows(
    http: httpx.AsyncClient, world: World
) -> None:
    answer = await http.get(f"{USAGE}&customerId=user_1&from=2026-01-01T00:00:00Z")
    assert answer.status_code == 200, answer.text
    asked = last(world, "QueryUsage")
    assert asked.window == aggregator.WINDOW_BILLING_PERIOD
    assert list(asked.window_starts) == [at(5), at(12)]
    # Only what the subscription has periods of.
    assert (getattr(asked, "from"), asked.to, asked.customer_id) == (at(5), at(19), "user_1")
    periods = last(world, "ListBillingPeriods")
    assert (periods.subscription_id, getattr(periods, "from")) == ("sub_2", at(1))
    assert not periods.HasField("to")


async def test_what_is_asked_for_stays_where_there_are_periods(
    http: httpx.AsyncClient, world: World
) -> None:
    times = "from=2026-01-06T00:00:00Z&to=2026-01-18T00:00:00Z"
    assert (await http.get(f"{USAGE}&subscriptionId=sub_1&{times}")).status_code == 200
    asked = last(world, "QueryUsage")
    assert (getattr(asked, "from"), asked.to, asked.customer_id) == (at(6), at(18), "user_1")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (f"{USAGE}", "customerId"),
        (f"{USAGE}&customerId=user_2&subscriptionId=sub_1", "subscriptionId"),
        ("/api/usage?metric=A&customerId=user_1&subscriptionId=sub_1", "subscriptionId"),
        ("/api/usage.csv?metric=A&window=BILLING_PERIOD", "customerId"),
        ("/api/usage/live?metric=A&window=BILLING_PERIOD", "customerId"),
    ],
)
async def test_a_question_without_one_subscription_is_refused_by_name(
    http: httpx.AsyncClient, query: str, field: str
) -> None:
    answer = await http.get(query)
    assert answer.status_code == 400, answer.text
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


async def test_of_several_subscriptions_one_has_to_be_named(
    http: httpx.AsyncClient, answers: dict[str, Any]
) -> None:
    for subscriptions in ([], [subscription(1), subscription(2)]):
        answers["ListSubscriptions"] = invoicer.ListSubscriptionsResponse(
            subscriptions=subscriptions
        )
        answer = await http.get(f"{USAGE}&customerId=user_1")
        assert answer.json()["details"][0]["field"] == "subscriptionId"


async def test_where_there_is_no_period_the_range_is_refused(
    http: httpx.AsyncClient, answers: dict[str, Any]
) -> None:
    answers["ListBillingPeriods"] = changes.ListBillingPeriodsResponse()
    answer = await http.get(f"{USAGE}&customerId=user_1")
    assert answer.json()["details"][0]["field"] == "from"
