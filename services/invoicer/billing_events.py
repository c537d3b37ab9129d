"""What the organization's application may want to hear of, as it goes to the notifier. Pure."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from usageflow.events.v1 import events_pb2

from services.invoicer.budgets import Reached
from services.invoicer.credit_notes import CreditNote
from services.invoicer.credits import CreditGrant, Wallet
from services.invoicer.domain import Invoice, InvoiceStatus, Subscription
from services.invoicer.exact import format_price
from services.invoicer.payments.domain import Attempt, Outcome
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.ids import new_id
from services.kit.money import format_money

SUBJECT = "usageflow.billing.event"
CONSUMER = "notifier"

INVOICE_CREATED = "invoice.created"
INVOICE_PAID = "invoice.paid"
INVOICE_FAILED = "invoice.failed"
INVOICE_VOIDED = "invoice.voided"
CREDIT_NOTE_CREATED = "credit_note.created"
CREDITS_GRANTED = "credits.granted"
CREDITS_EXPIRED = "credits.expired"
CREDITS_LOW_BALANCE = "credits.low_balance"
PAYMENT_SUCCEEDED = "payment.succeeded"
PAYMENT_FAILED = "payment.failed"
PAYMENT_RETRY_SCHEDULED = "payment.retry_scheduled"
SUBSCRIPTION_CREATED = "subscription.created"
SUBSCRIPTION_CHANGED = "subscription.changed"
SUBSCRIPTION_SUSPENDED = "subscription.suspended"
SUBSCRIPTION_CANCELLED = "subscription.cancelled"
THRESHOLD_REACHED = "usage.threshold_reached"


@dataclass(frozen=True, slots=True)
class BillingEvent:
    """A message for the outbox: an events_pb2.BillingEvent under its id."""

    id: str
    payload: bytes


def invoice_event(
    tenant: TenantKey, event_type: str, invoice: Invoice, time: datetime
) -> BillingEvent:
    """The event that something happened to a finalized invoice."""
    data: dict[str, str | int] = {
        "invoiceId": invoice.id,
        "number": invoice.number,
        "customerId": invoice.customer_id,
        "amount": format_money(invoice.amount, invoice.currency),
        "creditsApplied": format_money(invoice.credits_applied, invoice.currency),
        "amountDue": format_money(invoice.amount_due, invoice.currency),
        "currency": invoice.currency,
        "periodStart": rfc3339(invoice.period.start),
        "periodEnd": rfc3339(invoice.period.end),
        "status": invoice.status.value,
        "sequence": _invoice_sequence(invoice),
    }
    return _event(tenant, event_type, data, time)


def payment_event(
    event_type: str,
    tenant: TenantKey,
    invoice: Invoice,
    attempt: Attempt,
    outcome: Outcome,
    next_attempt_time: datetime | None,
    time: datetime,
) -> BillingEvent:
    """The event of an attempt that UsageFlow made by a provider. Its sequence counts the events of
    the invoice's attempts.
    """
    scheduled = event_type == PAYMENT_RETRY_SCHEDULED
    data: dict[str, str | int] = {
        "invoiceId": invoice.id,
        "number": invoice.number,
        "customerId": invoice.customer_id,
        "attempt": attempt.number,
        "provider": attempt.provider.value,
        "amount": format_money(attempt.amount, attempt.currency),
        "currency": attempt.currency,
        "reference": outcome.reference,
        "errorCode": outcome.error_code,
        "sequence": 2 * attempt.number + scheduled,
    }
    if next_attempt_time is not None:
        data["nextAttemptAt"] = rfc3339(next_attempt_time)
    return _event(tenant, event_type, data, time)


def credit_note_event(tenant: TenantKey, note: CreditNote, time: datetime) -> BillingEvent:
    """The event that a credit note was made; it never changes."""
    draft = note.draft
    data: dict[str, str | int] = {
        "creditNoteId": note.id,
        "number": note.number,
        "invoiceId": draft.invoice_id,
        "customerId": draft.customer_id,
        "amount": format_money(draft.amount, draft.currency),
        "currency": draft.currency,
        "sequence": 1,
    }
    return _event(tenant, CREDIT_NOTE_CREATED, data, time)


def credits_granted_event(
    tenant: TenantKey, grant: CreditGrant, wallet: Wallet, time: datetime
) -> BillingEvent:
    """The event that a customer has credit that was not there before; `wallet` as it is then."""
    data: dict[str, str | int] = {
        "grantId": grant.id,
        "kind": grant.kind.value,
        "amount": format_money(grant.amount, grant.currency),
        **_wallet(wallet),
    }
    if grant.expire_time is not None:
        data["expiresAt"] = rfc3339(grant.expire_time)
    return _event(tenant, CREDITS_GRANTED, data, time)


def credits_expired_event(
    tenant: TenantKey, grant: CreditGrant, wallet: Wallet, time: datetime
) -> BillingEvent:
    """The event that what was left of a grant is gone; `wallet` as it is without it."""
    data: dict[str, str | int] = {
        "grantId": grant.id,
        "amount": format_money(grant.balance, grant.currency),
        **_wallet(wallet),
    }
    return _event(tenant, CREDITS_EXPIRED, data, time)


def low_balance_event(tenant: TenantKey, wallet: Wallet, time: datetime) -> BillingEvent:
    """The event that a wallet has come down to its threshold."""
    assert wallet.low_balance is not None
    threshold = format_money(wallet.low_balance, wallet.currency)
    data: dict[str, str | int] = {"threshold": threshold, **_wallet(wallet)}
    return _event(tenant, CREDITS_LOW_BALANCE, data, time)


def budget_event(tenant: TenantKey, reached: Reached) -> BillingEvent:
    """The event that what a period comes to has reached a percentage of the budget."""
    data: dict[str, str | int] = {
        "subscriptionId": reached.subscription_id,
        "customerId": reached.customer_id,
        "amount": format_money(reached.amount, reached.currency),
        "percent": reached.percent,
        "thresholdAmount": format_price(reached.threshold, reached.currency),
        "spent": format_money(reached.spent, reached.currency),
        "currency": reached.currency,
        "periodStart": rfc3339(reached.period.start),
        "periodEnd": rfc3339(reached.period.end),
    }
    return _event(tenant, THRESHOLD_REACHED, data, reached.time)


def _wallet(wallet: Wallet) -> dict[str, str | int]:
    """`sequence` is that of the ledger."""
    return {
        "customerId": wallet.customer_id,
        "balance": format_money(wallet.balance, wallet.currency),
        "currency": wallet.currency,
        "sequence": wallet.sequence,
    }


def _invoice_sequence(invoice: Invoice) -> int:
    """Grows with each event of the invoice: webhooks may arrive in any order.

    An invoice is finalized, may fail to be paid some times, and is then paid or void.
    """
    ended = invoice.status in (InvoiceStatus.PAID, InvoiceStatus.VOID)
    return 1 + invoice.failed_payments + ended


def subscription_event(
    event_type: str, subscription: Subscription, time: datetime, as_of: datetime | None = None
) -> BillingEvent:
    """The event that something happened to a subscription, which tells it as it is `as_of` then
    (None: now).
    """
    as_of = as_of or time
    never = not subscription.phases
    data: dict[str, str | int] = {
        "subscriptionId": subscription.id,
        "customerId": subscription.customer_id,
        "planId": subscription.plan_id if never else subscription.phase_at(as_of).plan_id,
        "status": subscription.status_at(as_of).value,
        "sequence": subscription.revision,
    }
    return _event(subscription.tenant, event_type, data, time)


def _event(
    tenant: TenantKey, event_type: str, data: dict[str, str | int], time: datetime
) -> BillingEvent:
    event = events_pb2.BillingEvent(
        id=new_id("whevt"),
        organization_id=tenant.organization_id,
        mode=MODE_NUMBERS[tenant.mode],
        type=event_type,
        data_json=json.dumps(data, ensure_ascii=False, separators=(",", ":")),
    )
    event.create_time.FromDatetime(time)
    return BillingEvent(event.id, event.SerializeToString())


def rfc3339(time: datetime) -> str:
    """For example "2026-01-31T23:45:00Z"; fractions of a second only when there are any."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
