"""Invoices and their payments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import billing_events
from services.invoicer.billing_events import invoice_event
from services.invoicer.checks import is_customer_id
from services.invoicer.clocks import now_of
from services.invoicer.closing import Usage
from services.invoicer.credit_use import give_back
from services.invoicer.credits import payable
from services.invoicer.domain import (
    Invoice,
    InvoiceDraft,
    InvoiceStatus,
    Subscription,
    SubscriptionStatus,
    check_failable,
    check_payable,
    check_voidable,
)
from services.invoicer.exact import ZERO
from services.invoicer.projection import projected_usages
from services.invoicer.repository import (
    clocks,
    closing,
    credit_notes,
    invoices,
    ledger,
    subscriptions,
)
from services.invoicer.repository.events import add_events
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.subscriptions import require_subscription, store_and_tell
from services.invoicer.service.wakes import Wakes
from services.invoicer.usage import UsageSource
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError, PreconditionError
from services.kit.ids import is_id

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class InvoiceFilter:
    """Which invoices to list; "" and None: any. Finalized in [start, end)."""

    customer_id: str = ""
    subscription_id: str = ""
    status: InvoiceStatus | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """An invoice as it is with everything accepted before `as_of`, and as it is `projected` to be
    at its period's end; and what prepaid credits would pay of either.
    """

    draft: InvoiceDraft
    projected: InvoiceDraft
    as_of: datetime
    credits_applied: Decimal = ZERO
    projected_credits: Decimal = ZERO


class Invoices:
    """Bills. closer.py writes them; here they are shown, previewed, paid, failed and voided."""

    def __init__(
        self,
        database: Database,
        usage: UsageSource,
        now: Callable[[], datetime],
        wakes: Wakes,
        *,
        failures_max: int,
        late: timedelta,
    ) -> None:
        self._database = database
        self._usage = usage
        self._now = now
        self._wakes = wakes
        self._failures_max = failures_max
        self._late = late

    async def get_invoice(self, tenant: TenantKey, invoice_id: str) -> Invoice:
        """The invoice with its lines."""
        async with self._database.transaction() as connection:
            return await require_invoice(connection, tenant, invoice_id)

    async def list_invoices(
        self, tenant: TenantKey, wanted: InvoiceFilter, page: Page
    ) -> tuple[list[Invoice], str]:
        """A page of invoices with their lines."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "inv")
        if wanted.customer_id and not is_customer_id(wanted.customer_id):
            return [], ""
        if wanted.subscription_id and not is_id(wanted.subscription_id, "sub"):
            return [], ""
        async with self._database.transaction() as connection:
            found = await invoices.list_invoices(
                connection,
                tenant,
                customer_id=wanted.customer_id,
                subscription_id=wanted.subscription_id,
                status=wanted.status,
                between=(wanted.start, wanted.end),
                before_id=before_id,
                limit=limit + 1,
            )
        return found[:limit], next_token([invoice.id for invoice in found], limit)

    async def preview_invoice(self, tenant: TenantKey, subscription_id: str) -> Preview:
        """What the period that is not invoiced yet costs with the usage there is, and will cost
        at its end when usage goes on as it did so far. Nothing is written.
        """
        async with self._database.transaction() as connection:
            subscription = await require_subscription(connection, tenant, subscription_id)
            found = await closing.open_periods(connection, [subscription], self._late)
            if subscription.period is None:
                raise PreconditionError(
                    "The subscription has ended: nothing is left to bill",
                    reason="subscription_ended",
                )
            (period,) = found
            wallet = (subscription.customer_id, period.plan.content.currency)
            grants = await ledger.open_grants(connection, tenant, [wallet])
        now = as_of = subscription.now(self._now())
        usages: Sequence[Usage] = ()
        projected: Sequence[Usage] = ()
        if selections := period.selections():
            answer = await self._usage.billable(tenant, selections)
            usages, as_of = answer.usages, subscription.now(answer.as_of)
            projected = projected_usages(period, usages, as_of)
        draft, at_end = period.draft(usages), period.draft(projected)
        return Preview(
            draft,
            at_end,
            as_of,
            payable(grants, draft.amount, now),
            payable(grants, at_end.amount, max(now, period.period.end)),
        )

    async def pay_invoice(self, tenant: TenantKey, invoice_id: str) -> Invoice:
        """Mark an invoice paid; repeating it changes nothing. PreconditionError when void."""
        async with self._database.transaction() as connection:
            invoice = await require_invoice(connection, tenant, invoice_id, lock=True)
            if not check_payable(invoice):
                return invoice
            paid = await self._set_status(
                connection, tenant, invoice, InvoiceStatus.PAID, billing_events.INVOICE_PAID
            )
        self._wakes.relay()
        return paid

    async def fail_invoice(self, tenant: TenantKey, invoice_id: str) -> Invoice:
        """Count a failed payment; the last one that is tolerated suspends the subscription.

        PreconditionError when paid or void.
        """
        async with self._database.transaction() as connection:
            subscription, invoice = await _lock_invoice(connection, tenant, invoice_id)
            check_failable(invoice)
            failed = await self._set_status(
                connection, tenant, invoice, InvoiceStatus.FAILED, billing_events.INVOICE_FAILED
            )
            too_often = failed.failed_payments >= self._failures_max
            if too_often and subscription and subscription.status is SubscriptionStatus.ACTIVE:
                suspended = replace(subscription, status=SubscriptionStatus.SUSPENDED)
                now = subscription.now(self._now())
                await store_and_tell(
                    connection, suspended, billing_events.SUBSCRIPTION_SUSPENDED, now
                )
        self._wakes.relay()
        return failed

    async def void_invoice(self, tenant: TenantKey, invoice_id: str) -> Invoice:
        """Declare an unpaid invoice void; repeating it changes nothing. PreconditionError: paid.

        Its period is not billed again; late usage of earlier periods that it carried is. Credit
        that paid some of it goes back.
        """
        async with self._database.transaction() as connection:
            subscription, invoice = await _lock_invoice(connection, tenant, invoice_id)
            if not check_voidable(invoice):
                return invoice
            if await credit_notes.credited_of(connection, tenant, invoice.id):
                raise PreconditionError(
                    "The invoice has credit notes: credit all that is left instead",
                    reason="invoice_credited",
                )
            reason, now = f"{invoice.number} is void", self._now()
            await give_back(connection, tenant, invoice, invoice.credits_applied, reason, now)
            voided = await self._set_status(
                connection,
                tenant,
                replace(invoice, credits_applied=ZERO),
                InvoiceStatus.VOID,
                billing_events.INVOICE_VOIDED,
            )
            if subscription:
                # What is just being computed from what this invoice billed must not be written.
                await subscriptions.update_subscription(connection, subscription)
        self._wakes.relay()
        return voided

    async def _set_status(
        self,
        connection: AsyncConnection,
        tenant: TenantKey,
        invoice: Invoice,
        status: InvoiceStatus,
        event_type: str,
    ) -> Invoice:
        clock = await clocks.clock_of(connection, tenant, invoice.customer_id)
        now = now_of(clock, self._now())
        await invoices.set_status(connection, tenant, invoice.id, status, now)
        failures = invoice.failed_payments + (status is InvoiceStatus.FAILED)
        changed = replace(invoice, status=status, failed_payments=failures)
        await add_events(connection, [invoice_event(tenant, event_type, changed, now)])
        log.info("invoice_changed", invoice_id=invoice.id, status=status.value)
        return changed


async def require_invoice(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str, *, lock: bool = False
) -> Invoice:
    """The invoice with its lines; NotFoundError. With `lock` nobody else changes it meanwhile."""
    found = None
    if is_id(invoice_id, "inv"):
        found = await invoices.get_invoice(connection, tenant, invoice_id, lock=lock)
    if found is None:
        raise NotFoundError("No such invoice")
    return found


async def _lock_invoice(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str
) -> tuple[Subscription | None, Invoice]:
    """An invoice and its subscription, locked in the order that everybody locks them in.

    The invoice of a one-off charge has none.
    """
    subscription_id = (await require_invoice(connection, tenant, invoice_id)).subscription_id
    subscription = None
    if subscription_id:
        subscription = await require_subscription(connection, tenant, subscription_id, lock=True)
    return subscription, await require_invoice(connection, tenant, invoice_id, lock=True)
