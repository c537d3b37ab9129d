"""Subscriptions."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited, billing_events
from services.invoicer.billing_events import subscription_event
from services.invoicer.changes import (
    Timing,
    begin_at,
    cancelled,
    end_at,
    first_phases,
    is_paused,
    paused,
    resumed,
    uncancelled,
)
from services.invoicer.checks import (
    check_anchor,
    check_customer_id,
    check_idempotency_key,
    check_start,
    is_customer_id,
)
from services.invoicer.clocks import now_of
from services.invoicer.closing import opens
from services.invoicer.domain import Customer, Plan, Subscription, SubscriptionStatus
from services.invoicer.periods import days_later
from services.invoicer.phases import Border, PhaseKind
from services.invoicer.repository import (
    billing_settings,
    clocks,
    customers,
    payments,
    plans,
    subscriptions,
)
from services.invoicer.repository.events import add_events
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.wakes import Wakes
from services.invoicer.subscription_checks import (
    check_quantity,
    check_resume,
    check_timing,
    check_trial,
)
from services.kit import pages
from services.kit.audit import changes
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, FieldChecks, NotFoundError, PreconditionError
from services.kit.events import PAST_DAYS_MAX
from services.kit.ids import is_id, new_id

log = structlog.get_logger()

# With the periods of weeks, what late usage is looked for in stays within 100 parts.
CUTS_MAX = 40
PHASES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class SubscriptionInput:
    """A subscription as asked for; no `start_time`: now, its usage with the running quarter of an
    hour.
    """

    customer_id: str
    plan_id: str
    start_time: datetime | None
    billing_anchor: str
    # "": none.
    idempotency_key: str = ""
    # 0: none. At most one of the two.
    trial_days: int = 0
    trial_end_time: datetime | None = None
    quantity: int = 1

    def digest(self) -> bytes:
        """Of everything but the key: the same for the same content."""
        content: list[object] = [self.customer_id, self.plan_id, _text(self.start_time)]
        content.append(self.billing_anchor)
        more = [self.trial_days, _text(self.trial_end_time), self.quantity]
        if more != [0, "", 1]:
            content += more
        return hashlib.sha256(json.dumps(content).encode()).digest()


def _text(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).isoformat()


class Subscriptions:
    """Customers on plans."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        wakes: Wakes,
        *,
        retry_days: tuple[int, ...],
    ) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes
        self._retry_days = retry_days

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
        checks = FieldChecks()
        check_customer_id(checks, given.customer_id, "customerId")
        clock = await clocks.clock_of(connection, tenant, given.customer_id)
        now = now_of(clock, self._now())
        start = check_start(checks, given.start_time, now)
        anchor = check_anchor(checks, given.billing_anchor)
        check_trial(checks, given.trial_days, given.trial_end_time, start)
        check_quantity(checks, given.quantity)
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
        trial_end = given.trial_end_time
        if given.trial_days:
            trial_end = days_later(start, given.trial_days, customer.time_zone)
        begun = start if given.start_time else now.replace(microsecond=0)
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
            phases=first_phases(plan, start, trial_end, given.quantity, now, begun),
            clock=clock,
        )
        period = subscription.part_from(start)
        assert period is not None
        opening = opens(subscription, plan.content, period)
        second = subscription.exact_at(start)
        subscription = replace(
            subscription, period=period, opening=opening, exact_period_start=second
        )
        await subscriptions.insert_subscription(connection, subscription, made_under)
        event = subscription_event(billing_events.SUBSCRIPTION_CREATED, subscription, now)
        await add_events(connection, [event])
        shown = {"customerId": customer.id, **audited.subscription(subscription)}
        await audited.note(connection, tenant, "subscription.created", subscription.id, shown)
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

    async def cancel_subscription(
        self, tenant: TenantKey, subscription_id: str, timing: str = Timing.PERIOD_END
    ) -> Subscription:
        """End it: with the running period, or NOW: its time at once, its usage with the running
        quarter of an hour; what ends is then invoiced. One that has not begun never begins.
        Repeating it changes nothing; one that is to end later can be ended now.
        """
        at = check_timing(timing)
        async with self._database.transaction() as connection:
            subscription = await require_subscription(
                connection, tenant, subscription_id, lock=True
            )
            now = subscription.now(self._now())
            if subscription.period is None:
                return subscription
            end = Border(subscription.start_time, subscription.start_time)
            if now >= subscription.start_time:
                end = end_at(subscription, at, now)
            until = subscription.priced_until
            if until is not None and until <= end.exact:
                return subscription
            ended = await self._change(
                connection,
                subscription,
                cancelled(subscription, end),
                billing_events.SUBSCRIPTION_CANCELLED,
                "cancelled",
            )
        log.info("subscription_cancelled", subscription_id=subscription_id)
        self._wake()
        return ended

    async def uncancel_subscription(self, tenant: TenantKey, subscription_id: str) -> Subscription:
        """Withdraw a cancellation whose time has not come; there is none: nothing changes. One with
        an invoice that could not be collected is suspended again.

        PreconditionError when it has ended.
        """
        async with self._database.transaction() as connection:
            subscription = await require_subscription(
                connection, tenant, subscription_id, lock=True
            )
            check_goes_on(subscription, subscription.now(self._now()))
            if subscription.cancel_time is None:
                return subscription
            decided = await billing_settings.get_settings(connection, tenant)
            retries = len(decided.retry_days_or(self._retry_days))
            held = await payments.has_exhausted(connection, tenant, subscription.id, retries)
            status = SubscriptionStatus.SUSPENDED if held else SubscriptionStatus.ACTIVE
            changed = await self._change(
                connection,
                subscription,
                uncancelled(subscription, status),
                billing_events.SUBSCRIPTION_CHANGED,
                "uncancelled",
            )
        log.info("subscription_uncancelled", subscription_id=subscription_id)
        self._wake()
        return changed

    async def pause_subscription(
        self,
        tenant: TenantKey,
        subscription_id: str,
        timing: str = Timing.NOW,
        resume_time: datetime | None = None,
    ) -> Subscription:
        """Bill nothing from then on, until it is resumed or `resume_time`; usage of that time is
        never billed. Pausing it again changes the pause. PreconditionError in a trial, and when it
        has ended or ends before.
        """
        at = check_timing(timing)
        async with self._database.transaction() as connection:
            subscription = await require_subscription(
                connection, tenant, subscription_id, lock=True
            )
            now = subscription.now(self._now())
            check_goes_on(subscription, now)
            if subscription.phase_at(max(now, subscription.start_time)).kind is PhaseKind.TRIAL:
                raise PreconditionError("The subscription is in its trial", reason="in_trial")
            start = end_at(subscription, at, now)
            check_resume(resume_time, start.time)
            check_begins(subscription, start)
            # A pause that was asked for before is replaced.
            again = resumed(subscription, start, now)
            after = paused(again, start, resume_time, now)
            if after.phases == subscription.phases:
                return subscription
            check_cuts(after, now)
            changed = await self._change(
                connection, subscription, after, billing_events.SUBSCRIPTION_CHANGED, "paused"
            )
        log.info("subscription_paused", subscription_id=subscription_id)
        self._wake()
        return changed

    async def resume_subscription(self, tenant: TenantKey, subscription_id: str) -> Subscription:
        """End a pause, with usage of the running quarter of an hour billed again, or call it off;
        make a suspended one active again. PreconditionError when it is cancelled.
        """
        async with self._database.transaction() as connection:
            subscription = await require_subscription(
                connection, tenant, subscription_id, lock=True
            )
            now = subscription.now(self._now())
            if subscription.status is SubscriptionStatus.CANCELLED:
                raise PreconditionError(
                    "The subscription is cancelled", reason="subscription_cancelled"
                )
            is_active = subscription.status is SubscriptionStatus.ACTIVE
            if is_active and not is_paused(subscription, now):
                return subscription
            after = resumed(subscription, begin_at(subscription, Timing.NOW, now), now)
            check_cuts(after, now)
            after = replace(after, status=SubscriptionStatus.ACTIVE)
            changed = await self._change(
                connection, subscription, after, billing_events.SUBSCRIPTION_CHANGED, "resumed"
            )
        log.info("subscription_resumed", subscription_id=subscription_id)
        self._wake()
        return changed

    async def _change(
        self,
        connection: AsyncConnection,
        before: Subscription,
        after: Subscription,
        event_type: str,
        what: str,
    ) -> Subscription:
        now = before.now(self._now())
        changed = await store_change(connection, before, after, event_type, now)
        await note_change(connection, before, changed, what)
        return changed

    def _wake(self) -> None:
        """There is an event to tell, and perhaps a period to close."""
        self._wakes.relay()
        self._wakes.scheduler()


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


async def store_change(
    connection: AsyncConnection,
    before: Subscription,
    after: Subscription,
    event_type: str,
    now: datetime,
) -> Subscription:
    """Store what has become of a subscription that the caller has locked, with its phases and the
    event that says so.
    """
    if after.period is not None and now < after.start_time:
        # Nothing of it is invoiced: what is due at its start is that of what it now starts with.
        first = after.phase_at(after.start_time)
        tenant = after.tenant
        plan = await plans.get_plan(connection, tenant, first.plan_id, first.plan_version)
        assert plan is not None
        after = replace(after, opening=opens(after, plan.content, after.period))
    await subscriptions.store_change(connection, before, after)
    told = replace(after, revision=after.revision + 1)  # as it is stored now
    await add_events(connection, [subscription_event(event_type, told, now)])
    return told


async def note_change(
    connection: AsyncConnection, before: Subscription, after: Subscription, what: str
) -> None:
    """Tell the audit log what somebody has done to a subscription."""
    details = changes(audited.subscription(before), audited.subscription(after))
    await audited.note(connection, after.tenant, f"subscription.{what}", after.id, details)


def check_goes_on(subscription: Subscription, now: datetime) -> None:
    """PreconditionError when it has ended."""
    over = subscription.cancel_time is not None and subscription.cancel_time <= now
    if subscription.period is None or over:
        raise PreconditionError("The subscription has ended", reason="subscription_ended")


def check_begins(subscription: Subscription, border: Border) -> None:
    """PreconditionError when it is cancelled, and ends before something is to begin."""
    until = subscription.priced_until
    if until is not None and until <= border.exact:
        message = "The subscription ends before that"
        raise PreconditionError(message, reason="subscription_cancelled")


def check_cuts(subscription: Subscription, now: datetime) -> None:
    """PreconditionError when its time is cut into too many parts to be looked at again."""
    since = now - timedelta(days=PAST_DAYS_MAX)
    later = subscription.phases[1:]
    cuts = [
        phase
        for before, phase in zip(subscription.phases, later, strict=False)
        if phase.start_time > since and not phase.continues(before)
    ]
    if len(cuts) > CUTS_MAX:
        message = f"At most {CUTS_MAX} changes of plan, pauses and resumptions in {PAST_DAYS_MAX}"
        raise PreconditionError(f"{message} days", reason="too_many_changes")
    if len(subscription.phases) > PHASES_MAX:
        message = f"A subscription changes at most {PHASES_MAX} times"
        raise PreconditionError(message, reason="too_many_changes")


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
