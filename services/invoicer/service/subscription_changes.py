"""Subscriptions that move to other plans, versions and quantities."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import billing_events
from services.invoicer.adjustments import billed_part
from services.invoicer.base_prices import Prepaid, outstanding
from services.invoicer.changes import Timing, begin_at, changed, migrated
from services.invoicer.closing import OpenPeriod
from services.invoicer.credit_use import would_pay
from services.invoicer.domain import (
    InvoiceDraft,
    InvoiceLine,
    LineKind,
    Plan,
    Subscription,
)
from services.invoicer.exact import add, total
from services.invoicer.late_credits import credited_late
from services.invoicer.phases import Border, Phase
from services.invoicer.repository import closing, ledger, plans, subscriptions
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.subscriptions import (
    check_begins,
    check_cuts,
    check_goes_on,
    note_change,
    require_subscription,
    store_change,
)
from services.invoicer.service.wakes import Wakes
from services.invoicer.subscription_checks import check_quantity, check_timing
from services.invoicer.usage import UsageSource
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import DomainError, FieldChecks, NotFoundError
from services.kit.ids import is_id

log = structlog.get_logger()

# Periods that are over and not invoiced, the one that is cut, and the one after the change.
PREVIEW_INVOICES_MAX = 12


@dataclass(frozen=True, slots=True)
class ChangeInput:
    """What a subscription is to be on; "" and 0: as it is."""

    subscription_id: str
    plan_id: str = ""
    plan_version: int = 0
    quantity: int = 0
    timing: str = Timing.NOW


@dataclass(frozen=True, slots=True)
class ChangePreview:
    """The subscription as it would be, and the invoices to come with everything accepted before
    `as_of`; of each, what prepaid credits would pay.
    """

    subscription: Subscription
    invoices: tuple[InvoiceDraft, ...]
    as_of: datetime
    credits_applied: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True)
class MigrationInput:
    """Which subscriptions are to be on which version; 0: on any other, on the newest."""

    plan_id: str
    to_version: int = 0
    from_version: int = 0
    timing: str = Timing.PERIOD_END
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """One subscription; `problem`: why it can't be moved, "": it is, or would be."""

    subscription_id: str
    customer_id: str
    from_version: int
    time: datetime
    problem: str = ""


class SubscriptionChanges:
    """Changes of plan and quantity, one by one or many, and what they would come to."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        now: Callable[[], datetime],
        wakes: Wakes,
        *,
        late: timedelta,
    ) -> None:
        self._database = database
        self._usage = usage
        self._now = now
        self._wakes = wakes
        self._late = late

    async def change_subscription(self, tenant: TenantKey, given: ChangeInput) -> Subscription:
        """Put it on another plan, version or quantity; repeating it changes nothing."""
        async with self._database.transaction() as connection:
            before = await require_subscription(
                connection, tenant, given.subscription_id, lock=True
            )
            after, _ = await self._changed(connection, before, given)
            if after.phases == before.phases:
                return before
            now = before.now(self._now())
            stored = await store_change(
                connection, before, after, billing_events.SUBSCRIPTION_CHANGED, now
            )
            await note_change(connection, before, stored, "changed")
        log.info("subscription_changed", subscription_id=before.id)
        self._wake()
        return stored

    async def preview_change(self, tenant: TenantKey, given: ChangeInput) -> ChangePreview:
        """What change_subscription would do, and the invoices to the first one after the change."""
        async with self._database.transaction() as connection:
            before = await require_subscription(connection, tenant, given.subscription_id)
            after, start = await self._changed(connection, before, given)
            dues = await self._dues(connection, after, start)
            wallets = {(after.customer_id, due.plan.content.currency) for due in dues}
            grants = await ledger.open_grants(connection, tenant, wallets)
        drafts: list[InvoiceDraft] = []
        as_of = after.now(self._now())
        for due in dues:
            known = _after(due, drafts)
            selections = known.selections()
            usages = []
            if selections:
                answer = await self._usage.billable(tenant, selections)
                usages, as_of = answer.usages, min(as_of, after.now(answer.as_of))
            credited = await credited_late(self._database, known, usages)
            drafts.append(known.draft(usages, credited))
        applied = would_pay(grants, drafts, self._now())
        return ChangePreview(after, tuple(drafts), as_of, applied)

    async def migrate_subscriptions(
        self, tenant: TenantKey, given: MigrationInput, page: Page
    ) -> tuple[int, list[Migration], str]:
        """Move a page of subscriptions to a version, each by itself: the version, what was done,
        and the next page's token.
        """
        timing = check_timing(given.timing)
        limit, after_id = pages.page_limit(page.size), id_position(page.token, "sub")
        async with self._database.transaction() as connection:
            plan = await _find_plan(connection, tenant, given.plan_id, given.to_version)
            if plan is None:
                raise NotFoundError("No such plan, or no such version of it")
            wanted = subscriptions.OnOtherVersions(
                plan.id, plan.version, given.from_version, self._now(), after_id or ""
            )
            found = await subscriptions.list_on_other_versions(
                connection, tenant, wanted, limit + 1
            )
        each_done = [
            await self._migrate(tenant, subscription_id, plan, timing, dry_run=given.dry_run)
            for subscription_id in found[:limit]
        ]
        done = [each for each in each_done if each is not None]
        if done and not given.dry_run:
            log.info("subscriptions_migrated", plan_id=plan.id, subscriptions=len(done))
            self._wake()
        return plan.version, done, next_token(found, limit)

    async def _migrate(
        self,
        tenant: TenantKey,
        subscription_id: str,
        plan: Plan,
        timing: Timing,
        *,
        dry_run: bool,
    ) -> Migration | None:
        """What is done with one; None: it is moved already, and its time has not come yet."""
        async with self._database.transaction() as connection:
            before = await require_subscription(
                connection, tenant, subscription_id, lock=not dry_run
            )
            now = before.now(self._now())
            ended = before.period is None
            border = Border(now, now) if ended else begin_at(before, timing, now)
            start = border.time
            version = next(
                (
                    phase.plan_version
                    for phase in before.phases
                    if phase.plan_id == plan.id
                    and (phase.end_time is None or phase.end_time > start)
                ),
                plan.version,
            )
            done = Migration(before.id, before.customer_id, version, start)
            try:
                check_goes_on(before, now)
                check_begins(before, border)
                current = before.priced_at(border.exact)
                _same_currency(await _plan_of(connection, before, current), plan)
                after = migrated(before, border, plan, now)
                check_cuts(after, now)
            except DomainError as error:
                return replace(done, problem=error.message)
            if after.phases == before.phases:
                return None
            if not dry_run:
                event_type = billing_events.SUBSCRIPTION_CHANGED
                stored = await store_change(connection, before, after, event_type, now)
                await note_change(connection, before, stored, "changed")
            return done

    async def _changed(
        self, connection: AsyncConnection, before: Subscription, given: ChangeInput
    ) -> tuple[Subscription, datetime]:
        """What would become of it, and when."""
        timing = check_timing(given.timing)
        now, checks = before.now(self._now()), FieldChecks()
        something = given.plan_id or given.plan_version or given.quantity
        checks.require(bool(something), "planId", "give planId, planVersion or quantity")
        if given.quantity:
            check_quantity(checks, given.quantity)
        checks.done()
        check_goes_on(before, now)
        border = begin_at(before, timing, now)
        start = border.time
        check_begins(before, border)
        phase = before.priced_at(border.exact)
        current = await _plan_of(connection, before, phase)
        plan: Plan | None = current
        if given.plan_id or given.plan_version:
            plan_id = given.plan_id or phase.plan_id
            plan = await _find_plan(connection, before.tenant, plan_id, given.plan_version)
        field = "planVersion" if given.plan_version else "planId"
        checks.require(plan is not None, field, "there is no such plan, or version of it")
        checks.done()
        assert plan is not None
        _same_currency(current, plan)
        after = changed(before, border, plan, given.quantity or phase.quantity, now)
        check_cuts(after, now)
        return after, start

    async def _dues(
        self, connection: AsyncConnection, subscription: Subscription, start: datetime
    ) -> list[OpenPeriod]:
        """What is to be invoiced, to the first part that ends after `start`."""
        dues: list[OpenPeriod] = []
        for _ in range(PREVIEW_INVOICES_MAX):
            (due,) = await closing.open_periods(connection, [subscription], self._late)
            if not due.is_idle:
                dues.append(due)
            following = due.following()
            if following is None or (due.period.end > start and not subscription.opening):
                break
            subscription = replace(
                subscription,
                period=following,
                exact_period_start=subscription.exact_at(following.start),
                opening=due.opens_next(),
            )
        return dues

    def _wake(self) -> None:
        self._wakes.relay()
        self._wakes.scheduler()


def _after(due: OpenPeriod, drafts: Sequence[InvoiceDraft]) -> OpenPeriod:
    """The same as if the drafts were invoices already."""
    if not drafts:
        return due
    lines = [line for draft in drafts for line in draft.lines]
    carried = (line.amount for line in lines if line.kind is LineKind.CREDIT_CARRIED)
    return replace(
        due,
        earlier=(),
        charges=(),
        carried=add(due.carried, total(carried)),
        billed_parts=(
            *due.billed_parts,
            *(billed_part(line) for line in lines),
        ),
        prepaid=tuple(outstanding([*due.prepaid, *_prepaid(due, lines)], lines)),
    )


def _prepaid(due: OpenPeriod, lines: Sequence[InvoiceLine]) -> Iterator[Prepaid]:
    start = due.subscription.exact_at(due.period.start)
    for line in lines:
        begins = line.period.start >= start
        if line.kind is LineKind.BASE and line.unit_price is not None and begins:
            yield Prepaid(line.period, line.unit_price, line.quantity, line.amount)


async def _find_plan(
    connection: AsyncConnection, tenant: TenantKey, plan_id: str, version: int
) -> Plan | None:
    return (
        await plans.get_plan(connection, tenant, plan_id, version)
        if is_id(plan_id, "plan")
        else None
    )


async def _plan_of(connection: AsyncConnection, subscription: Subscription, phase: Phase) -> Plan:
    tenant = subscription.tenant
    plan = await plans.get_plan(connection, tenant, phase.plan_id, phase.plan_version)
    assert plan is not None
    return plan


def _same_currency(current: Plan, plan: Plan) -> None:
    """InvalidArgumentError unless invoices can go on in one currency."""
    checks, currency = FieldChecks(), current.content.currency
    same = plan.content.currency == currency
    checks.require(same, "planId", f"must be in {currency}, as the subscription is")
    checks.done()
