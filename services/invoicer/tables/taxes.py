"""Tax rates, whose they are, and what they came to."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from services.invoicer.tables.columns import metadata, tenant_columns, time_column

tax_rates = Table(
    "tax_rates",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("percent", Numeric, nullable=False),
    # Prices contain it; otherwise it is added to them.
    Column("inclusive", Boolean, nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
)

tax_assignments = Table(
    "tax_assignments",
    metadata,
    *tenant_columns(),
    # NULL: of all customers without rates of their own.
    Column("customer_id", Text),
    # In the order of an invoice's lines; none: no tax.
    Column("tax_rate_ids", ARRAY(Text), nullable=False),
    UniqueConstraint(
        "organization_id",
        "mode",
        "customer_id",
        name="uq_tax_assignments_customer",
        postgresql_nulls_not_distinct=True,
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_tax_assignments_customers",
    ),
)

invoice_taxes = Table(
    "invoice_taxes",
    metadata,
    *tenant_columns(),
    Column("invoice_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("tax_rate_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("percent", Numeric, nullable=False),
    Column("inclusive", Boolean, nullable=False),
    # The sum of the lines without taxes.
    Column("taxable", Numeric, nullable=False),
    Column("amount", Numeric, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id", "position"),
    UniqueConstraint(
        "organization_id",
        "mode",
        "invoice_id",
        "tax_rate_id",
        name="uq_invoice_taxes_tax_rate_id",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_invoice_taxes_invoices",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "tax_rate_id"],
        ["tax_rates.organization_id", "tax_rates.mode", "tax_rates.id"],
        name="fk_invoice_taxes_tax_rates",
    ),
)
