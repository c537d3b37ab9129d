"""Invoices and their payments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited, billing_events
from services.invoicer.checks import is_customer_id
from services.invoicer.closing import Usage
from services.invoicer.credit_use import give_back
from services.invoicer.credits import payable
from services.invoicer.domain import (
    Invoice,
    InvoiceDraft,
    InvoiceStatus,
    check_failable,
    check_payable,
    check_voidable,
)
from services.invoicer.exact import ZERO
from services.invoicer.late_credits import credited_late
from services.invoicer.payments.domain import REFERENCE_CHARS_MAX, AttemptState
from services.invoicer.payments.settling import (
    Locked,
    check_not_being_paid,
    record_told,
    set_status,
    settle_failed,
    settle_paid,
)
from services.invoicer.projection import projected_usages
from services.invoicer.repository import (
    billing_settings,
    closing,
    credit_notes,
    invoices,
    ledger,
    payments,
    subscriptions,
)
from services.invoicer.service.locking import lock_invoice, require_invoice
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.subscriptions import require_subscription
from services.invoicer.service.wakes import Wakes
from services.invoicer.usage import UsageSource
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, PreconditionError
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
        retry_days: tuple[int, ...],
        late: timedelta,
    ) -> None:
        self._database = database
        self._usage = usage
        self._now = now
        self._wakes = wakes
        self._retry_days = retry_days
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
        credited = await credited_late(self._database, period, usages)
        draft, at_end = period.draft(usages, credited), period.draft(projected, credited)
        return Preview(
            draft,
            at_end,
            as_of,
            payable(grants, draft.amount, now),
            payable(grants, at_end.amount, max(now, period.period.end)),
        )

    async def pay_invoice(self, tenant: TenantKey, invoice_id: str, reference: str = "") -> Invoice:
        """Mark an invoice paid; repeating it changes nothing. PreconditionError when void, or just
        being paid by a provider whose key there is.
        """
        check_reference(reference)
        async with self._database.transaction() as connection:
            locked = await lock_invoice(connection, tenant, invoice_id, self._now())
            if not check_payable(locked.invoice):
                return locked.invoice
            await record_told(connection, locked, AttemptState.SUCCEEDED, reference)
            retry_days = await billing_settings.retry_days_of(connection, tenant, self._retry_days)
            paid = await settle_paid(connection, locked, retry_days)
            await _note(connection, locked, paid, "paid", reference)
        self._wakes.relay()
        return paid

    async def fail_invoice(
        self, tenant: TenantKey, invoice_id: str, reference: str = ""
    ) -> Invoice:
        """Count a failed payment; the last one that is tolerated suspends the subscription.

        PreconditionError when paid or void, or just being paid by a provider whose key there is.
        """
        check_reference(reference)
        async with self._database.transaction() as connection:
            locked = await lock_invoice(connection, tenant, invoice_id, self._now())
            check_failable(locked.invoice)
            await record_told(connection, locked, AttemptState.FAILED, reference)
            retry_days = await billing_settings.retry_days_of(connection, tenant, self._retry_days)
            failed, _ = await settle_failed(connection, locked, retry_days)
            await _note(connection, locked, failed, "failed", reference)
        self._wakes.relay()
        return failed

    async def void_invoice(self, tenant: TenantKey, invoice_id: str) -> Invoice:
        """Declare an unpaid invoice void; repeating it changes nothing. PreconditionError: paid.

        Its period is not billed again; late usage of earlier periods that it carried is. Credit
        that paid some of it goes back.
        """
        async with self._database.transaction() as connection:
            locked = await lock_invoice(connection, tenant, invoice_id, self._now())
            invoice, subscription = locked.invoice, locked.subscription
            if not check_voidable(invoice):
                return invoice
            await check_not_being_paid(connection, tenant, invoice_id)
            if await credit_notes.credited_of(connection, tenant, invoice.id):
                raise PreconditionError(
                    "The invoice has credit notes: credit all that is left instead",
                    reason="invoice_credited",
                )
            reason = f"{invoice.number} is void"
            await give_back(
                connection, tenant, invoice, invoice.credits_applied, reason, locked.now
            )
            without = replace(locked, invoice=replace(invoice, credits_applied=ZERO))
            voided = await set_status(
                connection, without, InvoiceStatus.VOID, billing_events.INVOICE_VOIDED
            )
            await payments.stop(connection, tenant, invoice.id)
            await _note(connection, locked, voided, "voided")
            if subscription:
                # What is just being computed from what this invoice billed must not be written.
                await subscriptions.update_subscription(connection, subscription)
        self._wakes.relay()
        return voided


async def _note(
    connection: AsyncConnection, locked: Locked, invoice: Invoice, what: str, reference: str = ""
) -> None:
    """Tell the audit log; of a payment also what it is called where it was made."""
    before, after = audited.invoice(locked.invoice), audited.invoice(invoice)
    details = after | {"before": {"status": before["status"]}}
    if reference:
        details["reference"] = reference
    await audited.note(connection, locked.tenant, f"invoice.{what}", invoice.id, details)


def check_reference(reference: str) -> None:
    """InvalidArgumentError unless it can be kept."""
    checks = FieldChecks()
    fits = len(reference) <= REFERENCE_CHARS_MAX and (not reference or reference.isprintable())
    message = f"must have at most {REFERENCE_CHARS_MAX} characters and no control characters"
    checks.require(fits, "reference", message)
    checks.done()
