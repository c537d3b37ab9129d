"""Subscriptions."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import billing_events
from services.invoicer.billing_events import subscription_event
from services.invoicer.checks import (
    check_anchor,
    check_customer_id,
    check_idempotency_key,
    check_start,
    is_customer_id,
)
from services.invoicer.domain import Customer, Plan, Subscription, SubscriptionStatus
from services.invoicer.periods import first_period, period_at
from services.invoicer.repository import customers, plans, subscriptions
from services.invoicer.repository.events import add_events
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.wakes import Wakes
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, FieldChecks, NotFoundError, PreconditionError
from services.kit.ids import is_id, new_id

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SubscriptionInput:
    """A subscription as asked for; no `start_time`: the running quarter of an hour."""

    customer_id: str
    plan_id: str
    start_time: datetime | None
    billing_anchor: str
    # "": none.
    idempotency_key: str = ""

    def digest(self) -> bytes:
        """Of everything but the key: the same for the same content."""
        start = "" if self.start_time is None else self.start_time.astimezone(UTC).isoformat()
        content = (self.customer_id, self.plan_id, start, self.billing_anchor)
        return hashlib.sha256(json.dumps(content).encode()).digest()


class Subscriptions:
    """Customers on plans."""

    def __init__(self, database: Database, now: Callable[[], datetime], wakes: Wakes) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes

    async def create_subscription(
        self, tenant: TenantKey, given: SubscriptionInput
    ) -> tuple[Subscription, bool]:
        """Put a customer on the newest version of a plan; an unknown customer comes into being.

        Also tells whether an earlier call with this idempotency key had made it: nothing is made
        then, and it is returned as it is now. ConflictError when that call had other content.
        """
        checks = FieldChecks()
        check_idempotency_key(checks, given.idempotency_key)
        checks.done()
        made_under = None
        async with self._database.transaction() as connection:
            if given.idempotency_key:
                made_under = subscriptions.MadeUnder(given.idempotency_key, given.digest())
                earlier = await _made_earlier(connection, tenant, made_under)
                if earlier is not None:
                    return earlier, True
            subscription = await self._create(connection, tenant, given, made_under)
        log.info("subscription_created", subscription_id=subscription.id)
        self._wakes.relay()
        self._wakes.scheduler()
        return subscription, False

    async def _create(
        self,
        connection: AsyncConnection,
        tenant: TenantKey,
        given: SubscriptionInput,
        made_under: subscriptions.MadeUnder | None,
    ) -> Subscription:
        now, checks = self._now(), FieldChecks()
        check_customer_id(checks, given.customer_id, "customerId")
        start = check_start(checks, given.start_time, now)
        anchor = check_anchor(checks, given.billing_anchor)
        plan = None
        if is_id(given.plan_id, "plan"):
            plan = await plans.get_plan(connection, tenant, given.plan_id)
        checks.require(plan is not None, "planId", "there is no such plan")
        checks.done()
        assert plan is not None
        await customers.ensure_customers(connection, [(tenant, given.customer_id)], now)
        customer = await customers.get_customer(connection, tenant, given.customer_id)
        assert customer is not None
        _check_currencies(customer, plan)
        subscription = Subscription(
            tenant=tenant,
            id=new_id("sub"),
            customer_id=customer.id,
            plan_id=plan.id,
            plan_version=plan.version,
            status=SubscriptionStatus.ACTIVE,
            billing_anchor=anchor,
            billing_period=plan.content.billing_period,
            time_zone=customer.time_zone,
            start_time=start,
            period=None,
            cancel_time=None,
            revision=1,
            create_time=now,
            opening=plan.content.has_opening,
        )
        subscription = replace(subscription, period=first_period(subscription.cycle))
        await subscriptions.insert_subscription(connection, subscription, made_under)
        event = subscription_event(billing_events.SUBSCRIPTION_CREATED, subscription, now)
        await add_events(connection, [event])
        return subscription

    async def get_subscription(self, tenant: TenantKey, subscription_id: str) -> Subscription:
        """The subscription."""
        async with self._database.transaction() as connection:
            return await require_subscription(connection, tenant, subscription_id)

    async def list_subscriptions(
        self, tenant: TenantKey, customer_id: str, page: Page
    ) -> tuple[list[Subscription], str]:
        """A page of subscriptions, of one customer or ("") of all."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "sub")
        if customer_id and not is_customer_id(customer_id):
            return [], ""
        async with self._database.transaction() as connection:
            found = await subscriptions.list_subscriptions(
                connection, tenant, customer_id=customer_id, before_id=before_id, limit=limit + 1
            )
        return found[:limit], next_token([entry.id for entry in found], limit)

    async def cancel_subscription(self, tenant: TenantKey, subscription_id: str) -> Subscription:
        """End it at the end of the running period; one that has not begun never begins.

        Repeating it changes nothing.
        """
        now = self._now()
        async with self._database.transaction() as connection:
            subscription = await require_subscription(
                connection, tenant, subscription_id, lock=True
            )
            if subscription.status is SubscriptionStatus.CANCELLED:
                return subscription
            cancelled = _cancelled(subscription, now)
            await self._change(connection, cancelled, billing_events.SUBSCRIPTION_CANCELLED)
        log.info("subscription_cancelled", subscription_id=subscription_id)
        self._wakes.relay()
        return cancelled

    async def resume_subscription(self, tenant: TenantKey, subscription_id: str) -> Subscription:
        """Make a suspended one active again; PreconditionError when it is cancelled."""
        async with self._database.transaction() as connection:
            subscription = await require_subscription(
                connection, tenant, subscription_id, lock=True
            )
            if subscription.status is SubscriptionStatus.CANCELLED:
                raise PreconditionError(
                    "The subscription is cancelled", reason="subscription_cancelled"
                )
            if subscription.status is SubscriptionStatus.ACTIVE:
                return subscription
            resumed = replace(subscription, status=SubscriptionStatus.ACTIVE)
            await self._change(connection, resumed, billing_events.SUBSCRIPTION_CHANGED)
        log.info("subscription_resumed", subscription_id=subscription_id)
        self._wakes.relay()
        return resumed

    async def _change(
        self, connection: AsyncConnection, subscription: Subscription, event_type: str
    ) -> None:
        await store_and_tell(connection, subscription, event_type, self._now())


async def _made_earlier(
    connection: AsyncConnection, tenant: TenantKey, made_under: subscriptions.MadeUnder
) -> Subscription | None:
    """What was made under the key; ConflictError when something else had been asked for."""
    found = await subscriptions.find_made_under(connection, tenant, made_under.key)
    if found is None:
        return None
    subscription, digest = found
    if digest != made_under.digest:
        raise ConflictError(
            "This Idempotency-Key was used for another subscription; nothing was stored",
            reason="idempotency_conflict",
        )
    return subscription


async def store_and_tell(
    connection: AsyncConnection, subscription: Subscription, event_type: str, now: datetime
) -> None:
    """Store a subscription that the caller has locked, with the event that says so."""
    stored = await subscriptions.update_subscription(connection, subscription)
    assert stored
    told = replace(subscription, revision=subscription.revision + 1)  # as it is stored now
    await add_events(connection, [subscription_event(event_type, told, now)])


def _cancelled(subscription: Subscription, now: datetime) -> Subscription:
    period = subscription.period
    # Only a cancelled subscription can have no period left.
    assert period is not None
    if now < subscription.start_time:
        cancel_time, period = subscription.start_time, None
    else:
        cancel_time = period_at(subscription.cycle, period, now).end
    return replace(
        subscription,
        status=SubscriptionStatus.CANCELLED,
        cancel_time=cancel_time,
        period=period,
        opening=subscription.opening and period is not None,
    )


def _check_currencies(customer: Customer, plan: Plan) -> None:
    checks = FieldChecks()
    currency = plan.content.currency
    same = customer.currency in ("", currency)
    checks.require(
        same, "planId", f"the plan is in {currency}, the customer pays in {customer.currency}"
    )
    checks.done()


async def require_subscription(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str, *, lock: bool = False
) -> Subscription:
    """The tenant's subscription; NotFoundError when there is none."""
    found = None
    if is_id(subscription_id, "sub"):
        found = await subscriptions.get_subscription(connection, tenant, subscription_id, lock=lock)
    if found is None:
        raise NotFoundError("No such subscription")
    return found
