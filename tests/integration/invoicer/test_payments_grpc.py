"""PaymentsService, BillingSettingsService and BudgetsService over real gRPC: scopes, tags, what a
tenant sees.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from usageflow.invoicer.v1 import (
    billing_settings_pb2,
    payments_pb2,
)

from services.invoicer.billing_settings_servicer import BillingSettingsServicer
from services.invoicer.budget_servicer import BudgetsServicer
from services.invoicer.payment_servicer import PaymentsServicer
from services.kit.errors import (
    InvalidArgumentError,
    NotFoundError,
    StaleError,
)
from tests.integration.invoicer.serving import Api, serving
from tests.integration.invoicer.stand_ins import GRACE, World, utc

METHOD = payments_pb2.PaymentMethod(stripe_customer="cus_1", stripe_payment_method="pm_1")


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The services of `world` on a port of their own."""
    async with serving(
        world,
        BillingSettingsServicer(world.settings),
        PaymentsServicer(world.payments),
        BudgetsServicer(world.budgets),
    ) as api:
        yield api


async def examples(world: World) -> dict[str, dict[str, Any]]:
    """A request for each method about things of ours."""
    subscription = await world.subscribe(start=utc("2026-01-01"))
    world.at(utc("2026-02-01") + GRACE)
    await world.close_all()
    (invoice,) = await world.all_invoices()
    by_customer, by_invoice = {"customer_id": "user_123"}, {"invoice_id": invoice.id}
    by_subscription = {"subscription_id": subscription.id}
    return {
        "SetBudget": {**by_subscription, "amount": "500"},
        "GetBudget": by_subscription,
        "RemoveBudget": by_subscription,
        "GetBillingSettings": {},
        "UpdateBillingSettings": {"grace_seconds": 60},
        "SetPaymentMethod": {**by_customer, "payment_method": METHOD},
        "GetPaymentMethod": by_customer,
        "RemovePaymentMethod": by_customer,
        "ListPaymentAttempts": by_invoice,
        "CollectInvoice": by_invoice,
    }


async def test_reading_takes_the_scope_read_and_all_else_admin(world: World, api: Api) -> None:
    asked = await examples(world)
    reads = {name for name in asked if name.startswith(("Get", "List"))}
    await api.refuse_who_lacks_scopes(asked, reads)


@pytest.mark.parametrize("key", ["theirs-admin", "ours-admin-live"])
async def test_no_method_shows_or_changes_what_is_another_tenants(
    world: World, api: Api, key: str
) -> None:
    asked = await examples(world)
    method = (await api.call("SetPaymentMethod", **asked["SetPaymentMethod"])).payment_method
    budget = (await api.call("SetBudget", **asked["SetBudget"])).budget
    for name, request in asked.items():
        if request:
            if name == "UpdateBillingSettings":
                await api.call(name, key, **request)
                continue
            with pytest.raises(NotFoundError):
                await api.call(name, key, **request)
    assert (await api.call("GetBillingSettings", "ours-read")).settings.grace_seconds == 3600
    shown = await api.call("GetPaymentMethod", "ours-read", customer_id="user_123")
    assert shown.payment_method == method
    assert (await api.call("GetBudget", "ours-read", **asked["GetBudget"])).budget == budget


async def test_whoever_changes_what_has_changed_since_changes_nothing(api: Api) -> None:
    before = (await api.call("GetBillingSettings")).settings
    days = billing_settings_pb2.RetryDays(days=[2, 9])
    changed = await api.call("UpdateBillingSettings", retry_days=days, if_match=[before.etag])
    assert list(changed.settings.retry_days) == [2, 9]
    assert changed.settings.grace_seconds == before.grace_seconds
    with pytest.raises(StaleError):
        await api.call("UpdateBillingSettings", grace_seconds=1, if_match=[before.etag])
    after = (await api.call("GetBillingSettings")).settings
    assert after == changed.settings


async def test_a_budget_is_set_as_long_as_it_is_what_was_seen(world: World, api: Api) -> None:
    asked = (await examples(world))["SetBudget"]
    with pytest.raises(StaleError):
        await api.call("SetBudget", **asked, if_match=["*"])
    made = (await api.call("SetBudget", **asked)).budget
    assert (made.amount, made.currency, list(made.percents)) == ("500.00", "USD", [50, 80, 100])
    assert (await api.call("SetBudget", **asked, if_match=[made.etag])).budget == made
    changed = {**asked, "amount": "600.50", "percents": [90, 10]}
    after = (await api.call("SetBudget", **changed, if_match=[made.etag])).budget
    assert (after.amount, list(after.percents)) == ("600.50", [10, 90])
    by_subscription = {"subscription_id": asked["subscription_id"]}
    for name, request in {"SetBudget": asked, "RemoveBudget": by_subscription}.items():
        with pytest.raises(StaleError):
            await api.call(name, **request, if_match=[made.etag])
    assert (await api.call("GetBudget", **by_subscription)).budget == after
    await api.call("RemoveBudget", **by_subscription, if_match=[after.etag])
    for name in ("GetBudget", "RemoveBudget"):
        with pytest.raises(NotFoundError, match="has no budget"):
            await api.call(name, **by_subscription)


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"amount": "0"}, ["amount"]),
        ({"amount": "-1"}, ["amount"]),
        ({"amount": "1.001"}, ["amount"]),
        ({"amount": ""}, ["amount"]),
        ({"amount": "1", "percents": [0]}, ["percents"]),
        ({"amount": "1", "percents": [1001]}, ["percents"]),
        ({"amount": "1", "percents": [50, 50]}, ["percents"]),
        ({"amount": "nine", "percents": range(1, 12)}, ["amount", "percents"]),
    ],
)
async def test_a_wrong_budget_is_refused(
    world: World, api: Api, given: dict[str, Any], fields: list[str]
) -> None:
    subscription = await world.subscribe(start=utc("2026-01-01"))
    with pytest.raises(InvalidArgumentError) as caught:
        await api.call("SetBudget", subscription_id=subscription.id, **given)
    assert [problem.field for problem in caught.value.problems] == fields


async def test_wrong_fields_are_named(world: World, api: Api) -> None:
    await examples(world)
    for days in ([0], [61], [2, 2], [3, 1], list(range(1, 12))):
        with pytest.raises(InvalidArgumentError, match="retryDays: must be up to 10 days"):
            await api.call(
                "UpdateBillingSettings", retry_days=billing_settings_pb2.RetryDays(days=days)
            )
    with pytest.raises(InvalidArgumentError, match="paymentProvider: must be one of MANUAL"):
        await api.call("UpdateBillingSettings", payment_provider=9)
    with pytest.raises(InvalidArgumentError) as caught:
        await api.call("SetPaymentMethod", customer_id="user_123")
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["stripeCustomer", "stripePaymentMethod"]
