"""PaymentsService and BillingSettingsService over real gRPC: scopes, tags, what a tenant sees."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from usageflow.invoicer.v1 import (
    billing_settings_pb2,
    billing_settings_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
)

from services.invoicer.billing_settings_servicer import BillingSettingsServicer
from services.invoicer.payment_servicer import PaymentsServicer
from services.kit.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    StaleError,
    from_rpc_error,
)
from services.kit.grpc_client import api_key_metadata, open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.settings import ServiceSettings
from tests.integration.invoicer.stand_ins import GRACE, TOKEN, World, new_tenant, utc
from tests.integration.invoicer.test_invoicer_grpc import DEADLINE_S, Keys

METHOD = payments_pb2.PaymentMethod(stripe_customer="cus_1", stripe_payment_method="pm_1")
SERVICES = [
    *billing_settings_pb2.DESCRIPTOR.services_by_name.values(),
    *payments_pb2.DESCRIPTOR.services_by_name.values(),
]
METHODS = [method.name for service in SERVICES for method in service.methods]


@dataclass
class Api:
    """Calls methods by name with a key."""

    stubs: tuple[Any, ...]

    async def call(self, name: str, key: str = "ours-admin", **request: object) -> Any:
        """The response, or the domain error that came back."""
        stub = next(each for each in self.stubs if hasattr(each, name))
        module = payments_pb2 if hasattr(payments_pb2, f"{name}Request") else billing_settings_pb2
        message = getattr(module, f"{name}Request")(**request)
        try:
            return await getattr(stub, name)(
                message, timeout=DEADLINE_S, metadata=api_key_metadata(key)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The services of `world` on a port of their own."""
    settings = ServiceSettings(
        database_url=SecretStr("postgresql://unused"),
        nats_url=SecretStr("nats://unused"),
        internal_token=TOKEN,
        shutdown_s=1,
    )
    ids = {"ours": world.tenant.organization_id, "theirs": new_tenant().organization_id}
    server = GrpcServer(settings, Keys(ids))
    server.add(
        billing_settings_pb2_grpc.add_BillingSettingsServiceServicer_to_server,
        BillingSettingsServicer(world.settings),
        "usageflow.invoicer.v1.BillingSettingsService",
    )
    server.add(
        payments_pb2_grpc.add_PaymentsServiceServicer_to_server,
        PaymentsServicer(world.payments),
        "usageflow.invoicer.v1.PaymentsService",
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        yield Api(
            (
                billing_settings_pb2_grpc.BillingSettingsServiceStub(channel),
                payments_pb2_grpc.PaymentsServiceStub(channel),
            )
        )
    await server.stop()


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
    assert sorted(asked) == sorted(METHODS)
    for name, request in asked.items():
        reads = name.startswith(("Get", "List"))
        for key in ["ours-track"] if reads else ["ours-track", "ours-read"]:
            with pytest.raises(PermissionDeniedError, match="lacks the scope"):
                await api.call(name, key, **request)


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
