"""Quotas and reservations as tests set and ask for them, in one line."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.aggregator.quotas.change_repository import Changes
from services.aggregator.quotas.checking import QuotaChecks
from services.aggregator.quotas.domain import Customer, Quota, QuotaSettings, Reservation
from services.aggregator.quotas.service import Quotas, Reservations, Reserved
from services.aggregator.quotas.states import CustomerStates
from services.aggregator.watermark import WatermarkSource
from services.kit import clock
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.sending import Event


@dataclass
class QuotaReplica:
    """One replica's use cases of quotas, for one organization and mode and the metric A."""

    tenant: TenantKey
    quotas: Quotas
    checks: QuotaChecks
    reservations: Reservations

    @classmethod
    def on(
        cls, database: Database, watermark: WatermarkSource, tenant: TenantKey
    ) -> "QuotaReplica":
        """A replica that remembers nothing yet."""
        return cls(
            tenant,
            Quotas(database),
            QuotaChecks(database, watermark),
            Reservations(database, watermark),
        )

    async def set(
        self, limit: str | None, customer_id: str = "", metric: str = "A", **more: object
    ) -> Quota:
        """A quota; a hard one of a month unless `more` says otherwise."""
        settings = QuotaSettings(metric, customer_id, **more)  # type: ignore[arg-type]
        return (await self.quotas.set(self.tenant, settings, limit))[0]

    async def left(self, customer_id: str = "user_1", metric: str = "A") -> str | None:
        """What the tightest quota leaves, as of now; None: unlimited or no quota."""
        self.checks.forget_all()
        answer = await self.checks.check(Customer(self.tenant, metric, customer_id), "0")
        remaining = answer.states[0].remaining if answer.states else None
        return None if remaining is None else f"{remaining:f}"

    async def allowed(self, amount: str, customer_id: str = "user_1", metric: str = "A") -> bool:
        """Whether the customer may use so much more, as of now."""
        self.checks.forget_all()
        answer = await self.checks.check(Customer(self.tenant, metric, customer_id), amount)
        return answer.allowed

    async def reserve(
        self, amount: str, customer_id: str = "user_1", *, ttl_s: int = 60, key: str = ""
    ) -> Reserved:
        """Units set aside."""
        customer = Customer(self.tenant, "A", customer_id)
        return await self.reservations.reserve(customer, amount, ttl_s, key)

    async def commit(self, made: Reservation, amount: str = "") -> Reservation:
        """They were used."""
        return await self.reservations.commit(self.tenant, made.reservation_id, amount)

    async def release(self, made: Reservation) -> Reservation:
        """They were not."""
        return await self.reservations.release(self.tenant, made.reservation_id)


class CountedChecks(QuotaChecks):
    """Tells how many customers were read."""

    reads = 0

    async def _load(
        self, customers: Sequence[Customer], now: datetime, at: datetime | None = None
    ) -> tuple[Changes, dict[Customer, CustomerStates]]:
        self.reads += len(customers)
        return await super()._load(customers, now, at)


async def remembered(checks: CountedChecks, customer: Customer) -> None:
    """Ask until an answer comes from memory."""
    async with asyncio.timeout(10):
        while True:
            reads = checks.reads
            await checks.check(customer, "0")
            if checks.reads == reads:
                return


def now_event(amount: str, customer_id: str = "user_1", metric: str = "A") -> Event:
    """An event that happens now."""
    return Event(metric, amount, customer_id, clock.now())


@dataclass
class SetClock:
    """What a test says that time it is; `clock.now` of the services."""

    time: datetime

    def now(self) -> datetime:
        """What is set."""
        return self.time


def amounts(*texts: str) -> list[Decimal]:
    """Decimals."""
    return [Decimal(text) for text in texts]
