"""How customers pay, what is being collected, and every attempt."""

from sqlalchemy import (
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from services.invoicer.tables.columns import metadata, tenant_columns, time_column


def _invoice_key(name: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name=name,
    )


payment_methods = Table(
    "payment_methods",
    metadata,
    *tenant_columns(),
    Column("customer_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    # The provider's names of the customer and of what is charged.
    Column("provider_customer", Text, nullable=False),
    Column("provider_method", Text, nullable=False),
    time_column("update_time"),
    PrimaryKeyConstraint("organization_id", "mode", "customer_id"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_payment_methods_customers",
    ),
)

collections = Table(
    "collections",
    metadata,
    *tenant_columns(),
    Column("invoice_id", Text, nullable=False),
    time_column("next_attempt_time"),
    # Until then no other replica takes it (the database's clock).
    Column(
        "lease_time", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    # Not before that by the real time, whatever the customer's test clock shows.
    Column(
        "pause_until", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    # How often in a row nobody could tell what came of an attempt.
    Column("unknown_count", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id"),
    _invoice_key("fk_collections_invoices"),
    Index("ix_collections_next_attempt_time", "mode", "next_attempt_time"),
)

payment_attempts = Table(
    "payment_attempts",
    metadata,
    *tenant_columns(),
    Column("invoice_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_customer", Text),
    Column("provider_method", Text),
    Column("amount", Numeric, nullable=False),
    Column("currency", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reference", Text, nullable=False, server_default=text("''")),
    Column("error_code", Text, nullable=False, server_default=text("''")),
    Column("error_message", Text, nullable=False, server_default=text("''")),
    time_column("start_time"),
    time_column("end_time", nullable=True),
    # start_time is by the customer's test clock, if there is one. NULL: it is the same.
    time_column("real_start_time", nullable=True),
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id", "number"),
    _invoice_key("fk_payment_attempts_invoices"),
    Index(
        "uq_payment_attempts_pending",
        "invoice_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("state = 'PENDING'"),
    ),
    Index(
        "uq_payment_attempts_succeeded",
        "invoice_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("state = 'SUCCEEDED'"),
    ),
)
