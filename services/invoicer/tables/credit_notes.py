"""What was credited of invoices."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from services.invoicer.tables.columns import line_columns, metadata, tenant_columns, time_column

credit_notes = Table(
    "credit_notes",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("reason", Text, nullable=False),
    # How it was paid back; NULL: the invoice was not paid.
    Column("refund_reference", Text),
    Column("lines_count", Integer, nullable=False),
    # Of one that was made since a period costs less after all: how many changes it has, what usage
    # was read for it, and the invoice that was written with it, which tells its place among those;
    # NULL: the subscription has ended, and nothing follows.
    Column("changes_count", Integer, nullable=False, server_default=text("0")),
    Column("reading_id", Text),
    Column("next_invoice_id", Text),
    Column("series", Text, nullable=False, server_default=text("'CN'")),
    Column("sequence", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("content_digest", LargeBinary, nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    UniqueConstraint(
        "series", "organization_id", "mode", "sequence", name="uq_credit_notes_sequence"
    ),
    UniqueConstraint(
        "idempotency_key", "organization_id", "mode", name="uq_credit_notes_idempotency_key"
    ),
    UniqueConstraint(
        "organization_id", "mode", "id", "invoice_id", name="uq_credit_notes_invoice_id"
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_credit_notes_invoices",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_credit_notes_customers",
    ),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_credit_notes_currencies"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "reading_id"],
        ["usage_readings.organization_id", "usage_readings.mode", "usage_readings.id"],
        name="fk_credit_notes_usage_readings",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "next_invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_credit_notes_next_invoices",
        deferrable=True,
        initially="DEFERRED",
    ),
    Index("ix_credit_notes_invoice_id", "invoice_id", "organization_id", "mode", "id"),
    Index("ix_credit_notes_customer_id", "customer_id", "organization_id", "mode", "id"),
    Index(
        "ix_credit_notes_next_invoice_id",
        "next_invoice_id",
        "organization_id",
        "mode",
        postgresql_where=text("next_invoice_id IS NOT NULL"),
    ),
)

credit_note_lines = Table(
    "credit_note_lines",
    metadata,
    *tenant_columns(),
    Column("credit_note_id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    # Of the invoice's line.
    Column("position", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "credit_note_id", "position"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "credit_note_id", "invoice_id"],
        [
            "credit_notes.organization_id",
            "credit_notes.mode",
            "credit_notes.id",
            "credit_notes.invoice_id",
        ],
        name="fk_credit_note_lines_credit_notes",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id", "position"],
        [
            "invoice_lines.organization_id",
            "invoice_lines.mode",
            "invoice_lines.invoice_id",
            "invoice_lines.position",
        ],
        name="fk_credit_note_lines_invoice_lines",
    ),
    Index("ix_credit_note_lines_invoice_id", "invoice_id", "organization_id", "mode", "position"),
)

# As invoice_lines: what usage of the invoice's period comes to less than was billed.
credit_note_changes = Table(
    "credit_note_changes",
    metadata,
    *tenant_columns(),
    Column("credit_note_id", Text, nullable=False),
    Column("invoice_id", Text, nullable=False),
    Column("position", Integer, nullable=False),
    *line_columns(),
    PrimaryKeyConstraint("organization_id", "mode", "credit_note_id", "position"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "credit_note_id", "invoice_id"],
        [
            "credit_notes.organization_id",
            "credit_notes.mode",
            "credit_notes.id",
            "credit_notes.invoice_id",
        ],
        name="fk_credit_note_changes_credit_notes",
    ),
    Index("ix_credit_note_changes_invoice_id", "invoice_id", "organization_id", "mode"),
)
