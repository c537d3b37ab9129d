"""Prepaid credits: wallets, grants and the ledger."""

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

from services.invoicer.tables.columns import metadata, tenant_columns, time_column

_WALLET_KEY = ("organization_id", "mode", "customer_id", "currency")

# A customer's credit in one currency. Balance and sequence follow from the entries.
credit_wallets = Table(
    "credit_wallets",
    metadata,
    *tenant_columns(),
    Column("customer_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("balance", Numeric, nullable=False, server_default=text("0")),
    Column("newest_sequence", BigInteger, nullable=False, server_default=text("0")),
    # NULL: nobody wants to be told.
    Column("low_balance", Numeric),
    time_column("create_time"),
    PrimaryKeyConstraint(*_WALLET_KEY),
    ForeignKeyConstraint(
        ["organization_id", "mode", "customer_id"],
        ["customers.organization_id", "customers.mode", "customers.id"],
        name="fk_credit_wallets_customers",
    ),
    ForeignKeyConstraint(["currency"], ["currencies.code"], name="fk_credit_wallets_currencies"),
)

credit_grants = Table(
    "credit_grants",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    # What is left of it; follows from the entries.
    Column("balance", Numeric, nullable=False, server_default=text("0")),
    Column("kind", Text, nullable=False),
    # The least is used first.
    Column("priority", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("metadata_json", Text, nullable=False),
    time_column("expire_time", nullable=True),
    time_column("void_time", nullable=True),
    # Whose refund it is.
    Column("credit_note_id", Text),
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
    UniqueConstraint(
        "organization_id", "mode", "id", "customer_id", "currency", name="uq_credit_grants_wallet"
    ),
    ForeignKeyConstraint(
        _WALLET_KEY,
        [f"credit_wallets.{column}" for column in _WALLET_KEY],
        name="fk_credit_grants_credit_wallets",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "credit_note_id"],
        ["credit_notes.organization_id", "credit_notes.mode", "credit_notes.id"],
        name="fk_credit_grants_credit_notes",
    ),
    Index("ix_credit_grants_customer_id", "customer_id", "organization_id", "mode", "id"),
    Index(
        "ix_credit_grants_open",
        "customer_id",
        "organization_id",
        "mode",
        postgresql_where=text("balance > 0"),
    ),
    Index(
        "ix_credit_grants_expire_time",
        "expire_time",
        postgresql_where=text("balance > 0 AND expire_time IS NOT NULL"),
    ),
    Index(
        "uq_credit_grants_credit_note_id",
        "credit_note_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("credit_note_id IS NOT NULL"),
    ),
)

credit_entries = Table(
    "credit_entries",
    metadata,
    *tenant_columns(),
    Column("customer_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("grant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    # Below 0: it was taken off.
    Column("amount", Numeric, nullable=False),
    # Of the wallet, after it.
    Column("balance", Numeric, nullable=False),
    Column("invoice_id", Text),
    Column("reason", Text, nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint(*_WALLET_KEY, "sequence"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "grant_id", "customer_id", "currency"],
        [
            "credit_grants.organization_id",
            "credit_grants.mode",
            "credit_grants.id",
            "credit_grants.customer_id",
            "credit_grants.currency",
        ],
        name="fk_credit_entries_credit_grants",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_credit_entries_invoices",
    ),
    Index(
        "uq_credit_entries_grant",
        "grant_id",
        "organization_id",
        "mode",
        unique=True,
        postgresql_where=text("kind = 'GRANT'"),
    ),
    Index(
        "ix_credit_entries_invoice_id",
        "invoice_id",
        "organization_id",
        "mode",
        postgresql_where=text("invoice_id IS NOT NULL"),
    ),
)
