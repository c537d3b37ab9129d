"""Discounts of subscriptions."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited
from services.invoicer.discounts import SubscriptionDiscount, end_of
from services.invoicer.domain import BasePriceTiming, Subscription
from services.invoicer.periods import Period
from services.invoicer.repository import discounts, plans, subscriptions
from services.invoicer.service.subscriptions import require_subscription
from services.invoicer.term_checks import DISCOUNTS_MAX, DiscountInput, check_discount
from services.kit.audit import changes
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError, PreconditionError
from services.kit.ids import is_id, new_id

log = structlog.get_logger()


class Discounts:
    """What single subscriptions have off; plans have their own."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def create_discount(
        self, tenant: TenantKey, subscription_id: str, given: DiscountInput
    ) -> SubscriptionDiscount:
        """From the period on that is not invoiced yet, for as many as it says."""
        checks = FieldChecks()
        discount = check_discount(checks, given)
        checks.done()
        async with self._database.transaction() as connection:
            subscription = await require_subscription(
                connection, tenant, subscription_id, lock=True
            )
            period = subscription.period
            if period is None:
                raise _ended()
            there = await discounts.list_discounts(connection, tenant, subscription_id)
            live = [each for each in there if each.end_time is None or each.end_time > period.start]
            if len(live) >= DISCOUNTS_MAX:
                message = f"A subscription has at most {DISCOUNTS_MAX} discounts at a time"
                raise PreconditionError(message, reason="too_many_discounts")
            # A part of a period counts with the whole.
            whole = Period(period.start, subscription.whole_of(period).end)
            made = SubscriptionDiscount(
                id=new_id("disc"),
                subscription_id=subscription.id,
                discount=discount,
                start_time=period.start,
                end_time=end_of(subscription.cycle_at(period.start), whole, discount.periods),
                create_time=subscription.now(self._now()),
            )
            await discounts.insert_discount(connection, tenant, made)
            shown = audited.discount(made)
            await audited.note(connection, tenant, "discount.created", made.id, shown)
            await _compute_anew(connection, subscription)
        log.info("discount_created", discount_id=made.id, subscription_id=subscription.id)
        return made

    async def list_discounts(
        self, tenant: TenantKey, subscription_id: str
    ) -> list[SubscriptionDiscount]:
        """The subscription's own, ended ones too, oldest first."""
        async with self._database.transaction() as connection:
            await require_subscription(connection, tenant, subscription_id)
            return await discounts.list_discounts(connection, tenant, subscription_id)

    async def end_discount(self, tenant: TenantKey, discount_id: str) -> SubscriptionDiscount:
        """End it before the first period of which nothing is invoiced; one that is over stays so.

        With a base price in advance, part of the running period is.
        """
        async with self._database.transaction() as connection:
            found = await _require_discount(connection, tenant, discount_id)
            subscription = await require_subscription(
                connection, tenant, found.subscription_id, lock=True
            )
            found = await _require_discount(connection, tenant, discount_id)
            end_time = await _first_end(connection, tenant, subscription)
            if end_time is None or (found.end_time is not None and found.end_time <= end_time):
                return found
            end_time = max(end_time, found.start_time)
            await discounts.end_discount(connection, tenant, discount_id, end_time)
            ended = replace(found, end_time=end_time)
            details = changes(audited.discount(found), audited.discount(ended))
            await audited.note(connection, tenant, "discount.ended", discount_id, details)
            await _compute_anew(connection, subscription)
        log.info("discount_ended", discount_id=discount_id)
        return ended


async def _require_discount(
    connection: AsyncConnection, tenant: TenantKey, discount_id: str
) -> SubscriptionDiscount:
    found = None
    if is_id(discount_id, "disc"):
        found = await discounts.get_discount(connection, tenant, discount_id)
    if found is None:
        raise NotFoundError("No such discount")
    return found


async def _first_end(
    connection: AsyncConnection, tenant: TenantKey, subscription: Subscription
) -> datetime | None:
    """The earliest that a discount can end now; None when the subscription has ended."""
    period = subscription.period
    if period is None:
        return None
    phase = subscription.phase_at(period.start)
    plan = await plans.get_plan(connection, tenant, phase.plan_id, phase.plan_version)
    assert plan is not None
    in_advance = plan.content.base_price_timing is BasePriceTiming.IN_ADVANCE
    return period.end if in_advance and not subscription.opening else period.start


async def _compute_anew(connection: AsyncConnection, subscription: Subscription) -> None:
    """What is just being computed of a subscription that the caller has locked is not written."""
    stored = await subscriptions.update_subscription(connection, subscription)
    assert stored


def _ended() -> PreconditionError:
    return PreconditionError(
        "The subscription has ended: nothing is left to bill", reason="subscription_ended"
    )
