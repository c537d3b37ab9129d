"""What was billed: numbers, invoices and their lines."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.invoicer.tables.catalog import plan_version_key
from services.invoicer.tables.columns import line_columns, metadata, tenant_columns, time_column

invoice_counters = Table(
    "invoice_counters",
    metadata,
    *tenant_columns(),
    Column("series", Text, nullable=False),
    Column("newest_sequence", BigInteger, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "series"),
)

invoices = Table(
    "invoices",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    # NULL, as the plan, on the invoice of a one-off charge.
    Column("subscription_id", Text),
    Column("plan_id", Text),
    Column("plan_version", Integer),
    time_column("period_start"),
    time_column("period_end"),
    # What time it bills, when it is that of a period.
    time_column("exact_period_start", nullable=True),
    time_column("exact_period_end", nullable=True),
    Column("currency", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("kind", Text, nullable=False, server_default=text("'PERIOD'")),
    Column("status", Text, nullable=False, server_default=text("'DRAFT'")),
    Column("series", Text, nullable=False, server_default=text("'INV'")),
    Column("sequence", BigInteger),
    Column("number", Text),
    Column("failed_payments", Integer, nullable=False, server_default=text("0")),
    time_column("create_time"),
    time_column("finalize_time", nullable=True),
    time_column("paid_time", nullable=True),
    time_column("void_time", nullable=True),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    UniqueConstraint(
        "subscription_id",
        "organization_id",
        "mode",
        "period_start",
        "kind",
        name="uq_invoices_period",
    ),
    UniqueConstraint("series", "organization_id", "mode", "sequence", name="uq_invoices_sequence"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "subscription_id"],
        ["subscriptions.organization_id", "subscriptions.mode", "subscriptions.id"],
        name="fk_invoices_subscriptions",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_invoices_customers",
    ),
    plan_version_key(
        "organization_id", "mode", "plan_id", "plan_version", name="fk_invoices_plan_versions"
    ),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_invoices_currencies"),
    Index("ix_invoices_customer_id", "customer_id", "organization_id", "mode", "id"),
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    *tenant_columns(),
    Column("invoice_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    *line_columns(),
    # The one-off charge that the line bills.
    Column("charge_id", Text),
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id", "position"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_invoice_lines_invoices",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "charge_id"],
        ["charges.organization_id", "charges.mode", "charges.id"],
        name="fk_invoice_lines_charges",
    ),
    Index(
        "uq_invoice_lines_charge_id",
        "charge_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("charge_id IS NOT NULL"),
    ),
    Index(
        "uq_invoice_lines_credit_carried",
        "invoice_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("kind = 'CREDIT_CARRIED'"),
    ),
)
