"""The tables of invoicer, by what they hold; the migrations make them, a test compares the two.

Constraints on values, the triggers that keep rows as they are, and why indexes are as they are,
stand in the migrations.
"""

from services.invoicer.tables.budgets import budget_thresholds, budgets
from services.invoicer.tables.catalog import (
    CUSTOMERS_TENANT,
    currencies,
    customers,
    plan_prices,
    plan_versions,
    plans,
)
from services.invoicer.tables.clocks import test_clocks
from services.invoicer.tables.columns import metadata
from services.invoicer.tables.credit_notes import (
    credit_note_changes,
    credit_note_lines,
    credit_notes,
)
from services.invoicer.tables.credits import credit_entries, credit_grants, credit_wallets
from services.invoicer.tables.documents import (
    document_hashes,
    invoice_readings,
    issuers,
    usage_readings,
)
from services.invoicer.tables.invoices import invoice_counters, invoice_lines, invoices
from services.invoicer.tables.payments import collections, payment_attempts, payment_methods
from services.invoicer.tables.settings import billing_settings
from services.invoicer.tables.subscriptions import (
    charges,
    discounts,
    limit_tells,
    subscription_phases,
    subscriptions,
)
from services.invoicer.tables.taxes import invoice_taxes, tax_assignments, tax_rates
from services.kit.idempotency import idempotency_table
from services.kit.inbox import inbox_table
from services.kit.outbox import outbox_table

outbox = outbox_table(metadata)
# What was done, on its way to the audit log of accounts.
audit_outbox = outbox_table(metadata, "audit_outbox")
inbox = inbox_table(metadata)
idempotency_keys = idempotency_table(metadata)

__all__ = [
    "CUSTOMERS_TENANT",
    "audit_outbox",
    "billing_settings",
    "budget_thresholds",
    "budgets",
    "charges",
    "collections",
    "credit_entries",
    "credit_grants",
    "credit_note_changes",
    "credit_note_lines",
    "credit_notes",
    "credit_wallets",
    "currencies",
    "customers",
    "discounts",
    "document_hashes",
    "idempotency_keys",
    "inbox",
    "invoice_counters",
    "invoice_lines",
    "invoice_readings",
    "invoice_taxes",
    "invoices",
    "issuers",
    "limit_tells",
    "metadata",
    "outbox",
    "payment_attempts",
    "payment_methods",
    "plan_prices",
    "plan_versions",
    "plans",
    "subscription_phases",
    "subscriptions",
    "tax_assignments",
    "tax_rates",
    "test_clocks",
    "usage_readings",
]
