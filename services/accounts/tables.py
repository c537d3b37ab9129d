"""The tables of accounts; the migrations make them, a test compares the two."""

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from services.kit.database import metadata_naming

metadata = MetaData(naming_convention=metadata_naming)

organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    CheckConstraint("id ~ '^org_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name"),
)

# A trigger keeps what identifies a key, and keeps revoked keys revoked; rows are never deleted.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("mode", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True)),
    Column("revoke_time", DateTime(timezone=True)),
    CheckConstraint("id ~ '^key_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("char_length(name) <= 200", name="name"),
    CheckConstraint("char_length(prefix) = 12", name="prefix"),
    CheckConstraint("octet_length(key_hash) = 32", name="key_hash"),
    CheckConstraint(
        "cardinality(scopes) > 0 AND scopes <@ ARRAY['track', 'read', 'admin']", name="scopes"
    ),
    # Ids sort by time: newest first of one organization and mode.
    Index(None, "organization_id", "mode", "id"),
)
