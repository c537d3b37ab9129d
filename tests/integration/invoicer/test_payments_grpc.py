"""PaymentsService and BillingSettingsService over real gRPC: scopes, tags, what a tenant sees."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from usageflow.invoicer.v1 import (
    billing_settings_pb2,
    payments_pb2,
)

from services.invoicer.billing_settings_servicer import BillingSettingsServicer
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
        world, BillingSettingsServicer(world.settings), PaymentsServicer(world.payments)
    ) as api:
        yield api


async def examples(world: World) -> dict[str, dict[str, Any]]:
    """A request for each method about things of ours."""
    await world.subscribe(start=utc("2026-01-01"))
    world.at(utc("2026-02-01") + GRACE)
    await world.close_all()
    (invoice,) = await world.all_invoices()
    by_customer, by_invoice = {"customer_id": "user_123"}, {"invoice_id": invoice.id}
    return {
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
    await api.call("SetPaymentMethod", **asked["SetPaymentMethod"])
    for name, request in asked.items():
        if request:
            if name == "UpdateBillingSettings":
                await api.call(name, key, **request)
                continue
            with pytest.raises(NotFoundError):
                await api.call(name, key, **request)
    assert (await api.call("GetBillingSettings", "ours-read")).settings.grace_seconds == 3600
    shown = await api.call("GetPaymentMethod", "ours-read", customer_id="user_123")
    assert shown.payment_method == METHOD


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
