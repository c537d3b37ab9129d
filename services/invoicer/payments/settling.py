"""What follows when an invoice was paid, or its payment failed: in the caller's transaction.

The caller has locked the invoice's subscription, if it has one, and then the invoice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import billing_events
from services.invoicer.billing_events import invoice_event
from services.invoicer.domain import (
    Invoice,
    InvoiceStatus,
    Subscription,
    SubscriptionStatus,
)
from services.invoicer.payments.domain import (
    Attempt,
    AttemptState,
    Outcome,
    ProviderName,
    is_exhausted,
    next_attempt_time,
)
from services.invoicer.repository import billing_settings, invoices, payments
from services.invoicer.repository.events import add_events
from services.invoicer.service.subscriptions import store_and_tell
from services.kit.database import TenantKey
from services.kit.errors import PreconditionError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Locked:
    """An invoice and its subscription, None: it has none, locked by the caller; and the time of
    their customer, who may be on a test clock; and the real time.
    """

    tenant: TenantKey
    subscription: Subscription | None
    invoice: Invoice
    now: datetime
    real: datetime


async def check_not_being_paid(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str
) -> None:
    """PreconditionError while nobody knows what came of an attempt; the caller has the lock."""
    if await payments.is_being_paid(connection, tenant, invoice_id):
        raise _being_paid()


async def record_told(
    connection: AsyncConnection,
    locked: Locked,
    state: AttemptState,
    reference: str,
) -> None:
    """What the organization tells: an attempt that it made itself, or what came of a provider's
    that nobody can ask about any more, since its key is gone. PreconditionError while one can be.
    """
    tenant, invoice = locked.tenant, locked.invoice
    earlier = await payments.attempts_of(connection, tenant, invoice.id)
    newest = earlier[-1] if earlier else None
    if newest is not None and newest.state is AttemptState.PENDING:
        settings = await billing_settings.get_settings(connection, tenant)
        asked = settings.sealed_provider_key is not None
        # Whoever has just begun it may still get an answer.
        if asked or await payments.is_leased(connection, tenant, invoice.id):
            raise _being_paid()
        outcome = Outcome(state, reference or newest.reference)
        await payments.end_attempt(connection, tenant, newest, outcome, locked.now)
        return
    attempt = Attempt(
        invoice_id=invoice.id,
        number=len(earlier) + 1,
        provider=ProviderName.MANUAL,
        method=None,
        amount=invoice.amount_due,
        currency=invoice.currency,
        state=state,
        reference=reference,
        error_code="",
        error_message="",
        start_time=locked.now,
        end_time=locked.now,
        real_start_time=locked.real,
    )
    await payments.insert_attempt(connection, tenant, attempt)


def _being_paid() -> PreconditionError:
    return PreconditionError(
        "The invoice is just being paid: try again when it is known what came of it",
        reason="payment_in_progress",
    )


async def settle_paid(
    connection: AsyncConnection, locked: Locked, retry_days: Sequence[int]
) -> Invoice:
    """PAID; a subscription that was suspended for it goes on, unless another invoice holds it."""
    tenant, subscription = locked.tenant, locked.subscription
    paid = await set_status(connection, locked, InvoiceStatus.PAID, billing_events.INVOICE_PAID)
    await payments.stop(connection, tenant, paid.id)
    if subscription and subscription.status is SubscriptionStatus.SUSPENDED:
        held = await payments.has_exhausted(connection, tenant, subscription.id, len(retry_days))
        if not held:
            again = replace(subscription, status=SubscriptionStatus.ACTIVE)
            await store_and_tell(connection, again, billing_events.SUBSCRIPTION_CHANGED, locked.now)
    return paid


async def settle_failed(
    connection: AsyncConnection, locked: Locked, retry_days: Sequence[int]
) -> tuple[Invoice, datetime | None]:
    """FAILED, counted; with the last failure that is tolerated the subscription is suspended.

    Also when it is tried again, as far as a provider collects it; None: not any more.
    """
    subscription = locked.subscription
    failed = await set_status(
        connection, locked, InvoiceStatus.FAILED, billing_events.INVOICE_FAILED
    )
    if is_exhausted(failed.failed_payments, retry_days):
        await payments.stop(connection, locked.tenant, failed.id)
        if subscription and subscription.status is SubscriptionStatus.ACTIVE:
            suspended = replace(subscription, status=SubscriptionStatus.SUSPENDED)
            await store_and_tell(
                connection, suspended, billing_events.SUBSCRIPTION_SUSPENDED, locked.now
            )
        return failed, None
    if await payments.next_attempt_time(connection, locked.tenant, failed.id) is None:
        return failed, None
    attempts = await payments.attempts_of(connection, locked.tenant, failed.id)
    ended = [each.end_time for each in attempts if each.state is AttemptState.FAILED]
    first = next((time for time in ended if time is not None), locked.now)
    following = next_attempt_time(first, failed.failed_payments, retry_days, locked.now)
    assert following is not None, "not exhausted"
    await payments.schedule(connection, locked.tenant, failed.id, following)
    return failed, following


async def set_status(
    connection: AsyncConnection,
    locked: Locked,
    status: InvoiceStatus,
    event_type: str,
) -> Invoice:
    """Store the status of a finalized invoice, and tell."""
    invoice, now = locked.invoice, locked.now
    await invoices.set_status(connection, locked.tenant, invoice.id, status, now)
    failures = invoice.failed_payments + (status is InvoiceStatus.FAILED)
    changed = replace(invoice, status=status, failed_payments=failures)
    await add_events(connection, [invoice_event(locked.tenant, event_type, changed, now)])
    log.info("invoice_changed", invoice_id=invoice.id, status=status.value)
    return changed
