"""A customer who pays by Stripe: its real SDK against a server that speaks its HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from usageflow.events.v1 import events_pb2

from services.invoicer.domain import Invoice, SubscriptionStatus
from services.invoicer.payments.collector import Collector, CollectorSettings
from services.invoicer.payments.domain import Attempt, PaymentMethod, ProviderName
from services.invoicer.payments.stripe_provider import StripeProviders
from services.invoicer.service.billing_settings import SettingsInput
from tests.integration.invoicer.stand_in_stripe import Does, StandInStripe, stand_in_stripe
from tests.integration.invoicer.stand_ins import GRACE, PROVIDER_KEYS, RETRY_DAYS, World, utc

JANUARY, FEBRUARY = utc("2026-01-01"), utc("2026-02-01")
API_KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
METHOD = PaymentMethod(ProviderName.STRIPE, "cus_1", "pm_1")
DAY = timedelta(days=1)
# More than any pause after which what is not known is asked for again.
LATER = timedelta(minutes=20)


@dataclass
class Paying:
    """A world whose one customer pays by Stripe, with an invoice of January over 119.68 USD."""

    world: World
    stripe: StandInStripe
    providers: StripeProviders
    invoice: Invoice

    def new_collector(self, timeout_s: float = 20, lease: timedelta = timedelta(0)) -> Collector:
        """Another replica's; without a lease others are not kept off."""
        settings = CollectorSettings(lease, timeout_s, 1, 8, RETRY_DAYS)
        world = self.world
        return Collector(
            world.database, self.providers, PROVIDER_KEYS, settings, world.clock, lambda: None
        )

    async def collect(self, *script: Does, after: timedelta = timedelta(0)) -> Invoice:
        """Let so much time pass and collect what is due; the invoice as it is then."""
        self.stripe.script.extend(script)
        self.world.at(self.world.clock.time + after)
        await self.new_collector().collect_batch()
        return await self.now()

    async def now(self) -> Invoice:
        """The invoice."""
        return await self.world.invoices.get_invoice(self.world.tenant, self.invoice.id)

    async def attempts(self) -> list[Attempt]:
        """All of the invoice."""
        found, _ = await self.world.payments.list_attempts(self.world.tenant, self.invoice.id)
        return found

    async def status(self) -> SubscriptionStatus:
        """The subscription's."""
        sub_id = self.invoice.subscription_id
        found = await self.world.subscriptions.get_subscription(self.world.tenant, sub_id)
        return found.status

    async def told(self, *prefixes: str) -> list[tuple[str, dict[str, Any]]]:
        """The billing events of these kinds, by their sequence."""
        async with self.world.database.transaction() as connection:
            rows = await connection.execute(text("SELECT payload FROM outbox"))
            events = [events_pb2.BillingEvent.FromString(payload) for payload in rows.scalars()]
        told = [(each.type, json.loads(each.data_json)) for each in events]
        wanted = [(kind, data) for kind, data in told if kind.startswith(prefixes)]
        return sorted(wanted, key=lambda each: (each[1]["sequence"], each[0]))


async def use_stripe(world: World) -> None:
    """Let the organization collect by Stripe."""
    given = SettingsInput(provider=ProviderName.STRIPE, stripe_api_key=API_KEY)
    await world.settings.update_settings(world.tenant, given, by_key="key_1")


@asynccontextmanager
async def paying_world(world: World) -> AsyncIterator[Paying]:
    """January is invoiced, and to be collected."""
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "11968")
    await world.subscribe(start=JANUARY)
    await use_stripe(world)
    await world.payments.set_method(world.tenant, "user_123", METHOD, by_key="key_1")
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    (invoice,) = await world.all_invoices()
    async with stand_in_stripe(API_KEY) as stripe:
        providers = StripeProviders(20, stripe.url)
        yield Paying(world, stripe, providers, invoice)
        await providers.close()
