"""What the audit log is told of billing, with the names of the HTTP contract.

Invoices that are made, payments that are collected and subscriptions that are suspended by
themselves are not in it: invoices, attempts and webhooks tell of those.
"""

from collections.abc import Mapping

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import rfc3339
from services.invoicer.charges import OneOffCharge
from services.invoicer.credit_notes import CreditNote
from services.invoicer.discounts import SubscriptionDiscount
from services.invoicer.domain import Customer, Invoice, Plan, Subscription
from services.invoicer.exact import format_price
from services.invoicer.issuers import Issuer
from services.invoicer.phases import Phase
from services.invoicer.service import noting
from services.invoicer.taxes import TaxRate, TaxRates
from services.kit.auth import principal_or_none
from services.kit.database import TenantKey
from services.kit.money import format_decimal, format_money

PHASES_TOLD_MAX = 20  # the last ones of a subscription, which may have a thousand


async def note(
    connection: AsyncConnection,
    tenant: TenantKey,
    action: str,
    target_id: str,
    details: Mapping[str, object],
) -> None:
    """Tell the audit log what the running call does, when the caller's transaction commits."""
    caller = principal_or_none()
    by = "" if caller is None else caller.actor_id
    await noting.note(connection, tenant, action, by, target_id, details)


def customer(found: Customer) -> dict[str, object]:
    """What may be changed of a customer."""
    return {
        "name": found.name,
        "email": found.email,
        "timezone": found.time_zone,
        "currency": found.currency or None,
        "metadata": msgspec.Raw((found.metadata_json or "{}").encode()),
    }


def plan(found: Plan) -> dict[str, object]:
    """Which version it is; what it says never changes."""
    content = found.content
    return {
        "name": content.name,
        "version": found.version,
        "currency": content.currency,
        "basePrice": format_price(content.base_price, content.currency),
    }


def subscription(found: Subscription) -> dict[str, object]:
    """What may be changed of a subscription."""
    return {
        "status": found.status.value,
        "cancelAt": None if found.cancel_time is None else rfc3339(found.cancel_time),
        "phases": [_phase(phase) for phase in found.phases[-PHASES_TOLD_MAX:]],
    }


def _phase(phase: Phase) -> dict[str, object]:
    return {
        "kind": phase.kind.value,
        "startsAt": rfc3339(phase.start_time),
        "endsAt": None if phase.end_time is None else rfc3339(phase.end_time),
        "exactStartsAt": rfc3339(phase.priced_from),
        "exactEndsAt": None if phase.priced_until is None else rfc3339(phase.priced_until),
        "planId": phase.plan_id,
        "planVersion": phase.plan_version,
        "quantity": phase.quantity,
    }


def discount(found: SubscriptionDiscount) -> dict[str, object]:
    """A discount of a subscription."""
    off = found.discount
    return {
        "subscriptionId": found.subscription_id,
        "name": off.name,
        "percent": None if off.percent is None else format_decimal(off.percent),
        "amount": None if off.amount is None else format_decimal(off.amount),
        "startsAt": rfc3339(found.start_time),
        "endsAt": None if found.end_time is None else rfc3339(found.end_time),
    }


def charge(found: OneOffCharge) -> dict[str, object]:
    """A one-off charge."""
    return {
        "customerId": found.customer_id,
        "description": found.description,
        "amount": format_money(found.amount, found.currency),
        "currency": found.currency,
        "timing": found.timing.value,
    }


def tax_rate(found: TaxRate) -> dict[str, object]:
    """A tax rate."""
    return {
        "name": found.name,
        "percent": format_decimal(found.percent),
        "inclusive": found.inclusive,
    }


def tax_rates(found: TaxRates) -> dict[str, object]:
    """Whose rates are which."""
    return {"taxRateIds": None if found.inherited else [rate.id for rate in found.rates]}


def invoice(found: Invoice) -> dict[str, object]:
    """Which invoice it is, and how it stands."""
    return {
        "number": found.number,
        "customerId": found.customer_id,
        "amount": format_money(found.amount, found.currency),
        "currency": found.currency,
        "status": found.status.value,
    }


def credit_note(found: CreditNote) -> dict[str, object]:
    """Which credit note it is, of what."""
    draft = found.draft
    return {
        "number": found.number,
        "invoiceId": draft.invoice_id,
        "customerId": draft.customer_id,
        "amount": format_money(draft.amount, draft.currency),
        "currency": draft.currency,
        "reason": draft.reason,
        "refundReference": draft.refund_reference or None,
    }


def issuer(found: Issuer) -> dict[str, object]:
    """Who issues invoices; of the logo only how large it is."""
    return {
        "name": found.name,
        "address": found.address,
        "taxId": found.tax_id,
        "email": found.email,
        "footer": found.footer,
        "logoBytes": len(found.logo),
    }
