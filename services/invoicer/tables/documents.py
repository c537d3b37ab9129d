"""The chain of hashes over all finalized documents."""

from sqlalchemy import (
    BigInteger,
    Column,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
)

from services.invoicer.tables.columns import metadata, tenant_columns

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
