"""What belongs to finalized documents: hashes, what usage was read for them, who issues them."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)

from services.invoicer.tables.columns import metadata, tenant_columns, time_column

# The trigger chain_document fills in what follows from the document and its predecessor.
document_hashes = Table(
    "document_hashes",
    metadata,
    *tenant_columns(),
    Column("series", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("document_id", Text, nullable=False),
    # How the content is written down before it is hashed.
    Column("format", SmallInteger, nullable=False),
    # Of the document whose number is one less; zeros in the first.
    Column("previous_hash", LargeBinary, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    # SHA-256 of the two.
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "series", "sequence"),
)

# Which batches of events figures hold: all that were accepted before, and some others.
usage_readings = Table(
    "usage_readings",
    metadata,
    *tenant_columns(),
    Column("id", Text, nullable=False),
    time_column("counted_before"),
    # 16 bytes each.
    Column("batch_ids", LargeBinary, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "id"),
)

invoice_readings = Table(
    "invoice_readings",
    metadata,
    *tenant_columns(),
    Column("invoice_id", Text, nullable=False),
    Column("reading_id", Text, nullable=False),
    PrimaryKeyConstraint("organization_id", "mode", "invoice_id"),
    ForeignKeyConstraint(
        ["organization_id", "mode", "invoice_id"],
        ["invoices.organization_id", "invoices.mode", "invoices.id"],
        name="fk_invoice_readings_invoices",
        deferrable=True,
        initially="DEFERRED",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "reading_id"],
        ["usage_readings.organization_id", "usage_readings.mode", "usage_readings.id"],
        name="fk_invoice_readings_usage_readings",
    ),
)

# What stands on invoices; one that was finalized keeps the version of its time.
issuers = Table(
    "issuers",
    metadata,
    *tenant_columns(),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("tax_id", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("footer", Text, nullable=False),
    Column("logo", LargeBinary, nullable=False),
    time_column("create_time"),
    PrimaryKeyConstraint("organization_id", "mode", "version"),
)
