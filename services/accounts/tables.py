"""The tables of accounts; the migrations make them, a test compares the two."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import CIDR

from services.kit.database import metadata_naming
from services.kit.idempotency import idempotency_table

metadata = MetaData(naming_convention=metadata_naming)
idempotency_keys = idempotency_table(metadata)

organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("event_past_days", Integer, nullable=False, server_default="35"),
    Column("event_retention_days", Integer, nullable=False, server_default="400"),
    Column("strict_metrics", Boolean, nullable=False, server_default=text("false")),
    Column("requests_per_second", Integer, nullable=False, server_default="50000"),
    Column("events_per_second", Integer, nullable=False, server_default="1000000"),
    CheckConstraint("id ~ '^org_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name"),
    CheckConstraint("event_past_days BETWEEN 35 AND 400", name="event_past_days"),
    CheckConstraint("event_retention_days BETWEEN 90 AND 36500", name="event_retention_days"),
    # As long as an event may still be sent again, its key has to be known.
    CheckConstraint("event_retention_days >= event_past_days", name="event_kept_days"),
    CheckConstraint("requests_per_second BETWEEN 1 AND 1000000", name="requests_per_second"),
    CheckConstraint("events_per_second BETWEEN 1 AND 10000000", name="events_per_second"),
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
    Column("use_time", DateTime(timezone=True)),
    Column("successor_id", Text, ForeignKey("api_keys.id")),
    # None: from anywhere. The database takes only what is a network.
    Column("allowed_networks", ARRAY(CIDR), nullable=False, server_default="{}"),
    # 0: as fast as the organization may.
    Column("requests_per_second", Integer, nullable=False, server_default="0"),
    Column("events_per_second", Integer, nullable=False, server_default="0"),
    CheckConstraint("id ~ '^key_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("char_length(name) <= 200", name="name"),
    CheckConstraint("char_length(prefix) = 12", name="prefix"),
    CheckConstraint("octet_length(key_hash) = 32", name="key_hash"),
    CheckConstraint(
        "cardinality(scopes) > 0 AND scopes <@ ARRAY['track', 'read', 'admin']", name="scopes"
    ),
    CheckConstraint("cardinality(allowed_networks) <= 50", name="allowed_networks"),
    CheckConstraint("requests_per_second BETWEEN 0 AND 1000000", name="requests_per_second"),
    CheckConstraint("events_per_second BETWEEN 0 AND 10000000", name="events_per_second"),
    # Ids sort by time: newest first of one organization and mode.
    Index(None, "organization_id", "mode", "id"),
)

# The time of customers ('': of all) in test mode, as invoicer tells it; NULL: that clock has ended.
test_clocks = Table(
    "test_clocks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("clock_time", DateTime(timezone=True)),
    Column("revision", BigInteger, nullable=False),
    CheckConstraint("id ~ '^clk_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("char_length(customer_id) <= 255", name="customer_id"),
    Index(
        "ix_test_clocks_running",
        "organization_id",
        postgresql_where=text("clock_time IS NOT NULL"),
    ),
)

# The end of each organization's and mode's chain of entries; a trigger lets it grow one by one.
audit_heads = Table(
    "audit_heads",
    metadata,
    Column("organization_id", Text, ForeignKey("organizations.id"), primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

# Rows are added, and nothing else: a trigger refuses UPDATE, DELETE and TRUNCATE; another works out
# number and hashes. `time` is when it
# was done, `record_time` when accounts learned of it. An empty key_id: UsageFlow itself.
audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("mode", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("record_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("details", JSON, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    UniqueConstraint("organization_id", "mode", "number", name="uq_audit_log_number"),
    CheckConstraint("id ~ '^aud_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("action ~ '^[a-z_]{1,40}[.][a-z_]{1,40}$'", name="action"),
    CheckConstraint(
        "greatest(char_length(target_id), char_length(key_id), char_length(request_id)) <= 255",
        name="ids",
    ),
    CheckConstraint("json_typeof(details) = 'object'", name="details"),
    Index("ix_audit_log_of_tenant", "organization_id", "mode", "time", "id"),
    Index("ix_audit_log_of_target", "organization_id", "mode", "target_id", "time", "id"),
)


# A trigger keeps what identifies a member, keeps removed members as they were, and keeps the last
# owner; rows are never deleted, for the audit log names them.
members = Table(
    "members",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("sign_in_time", DateTime(timezone=True)),
    Column("remove_time", DateTime(timezone=True)),
    CheckConstraint("id ~ '^mem_[0-9a-f]{32}$'", name="id"),
    CheckConstraint(
        "email = lower(email) AND char_length(email) <= 254 "
        "AND email ~ '^[^[:space:]@]+@[^[:space:]@]+$'",
        name="email",
    ),
    CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name"),
    CheckConstraint("role IN ('OWNER', 'ADMIN', 'DEVELOPER', 'VIEWER')", name="role"),
    CheckConstraint("password_hash LIKE '$argon2id$%'", name="password_hash"),
    Index(
        "uq_members_email",
        "organization_id",
        "email",
        unique=True,
        postgresql_where=text("remove_time IS NULL"),
    ),
    Index("ix_members_of_email", "email", postgresql_where=text("remove_time IS NULL")),
)


def _sign_in(name: str, prefix: str, *more: Column[Any] | CheckConstraint) -> Table:
    """What a member signs in with; a trigger keeps what has ended ended."""
    return Table(
        name,
        metadata,
        Column("id", Text, primary_key=True),
        Column("member_id", Text, ForeignKey("members.id"), nullable=False),
        Column("token_hash", LargeBinary, nullable=False, unique=True),
        Column("create_time", DateTime(timezone=True), nullable=False),
        Column("expire_time", DateTime(timezone=True), nullable=False),
        Column("end_time", DateTime(timezone=True)),
        *more,
        CheckConstraint(f"id ~ '^{prefix}_[0-9a-f]{{32}}$'", name="id"),
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
        CheckConstraint("expire_time > create_time", name="expire_time"),
        Index(None, "member_id", "id"),
    )


sign_in_links = _sign_in("sign_in_links", "lnk")
sessions = _sign_in(
    "sessions",
    "ses",
    Column("use_time", DateTime(timezone=True), nullable=False),
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    CheckConstraint("char_length(address) <= 64 AND char_length(user_agent) <= 400", name="seen"),
)

# Signing in by password that failed, or is being tried: by address and by where it came from.
sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_time", DateTime(timezone=True), nullable=False),
    CheckConstraint("char_length(subject) <= 100", name="subject"),
    CheckConstraint("failures > 0", name="failures"),
    Index(None, "last_time"),
)

# A trigger keeps for whom an invitation is, and that what was accepted or revoked stays so.
invitations = Table(
    "invitations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("invited_by", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    Column("accept_time", DateTime(timezone=True)),
    Column("revoke_time", DateTime(timezone=True)),
    Column("member_id", Text, ForeignKey("members.id")),
    CheckConstraint("id ~ '^ivt_[0-9a-f]{32}$'", name="id"),
    CheckConstraint(
        "email = lower(email) AND char_length(email) <= 254 "
        "AND email ~ '^[^[:space:]@]+@[^[:space:]@]+$'",
        name="email",
    ),
    CheckConstraint("role IN ('OWNER', 'ADMIN', 'DEVELOPER', 'VIEWER')", name="role"),
    CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
    CheckConstraint("expire_time > create_time", name="expire_time"),
    CheckConstraint(
        "(accept_time IS NULL) = (member_id IS NULL) "
        "AND (accept_time IS NULL OR revoke_time IS NULL)",
        name="outcome",
    ),
    Index(None, "organization_id", "id"),
    # Of one address one is open at a time.
    Index(
        "uq_invitations_open",
        "organization_id",
        "email",
        unique=True,
        postgresql_where=text("accept_time IS NULL AND revoke_time IS NULL"),
    ),
)

# A trigger keeps what a link is for and that a revoked one stays revoked. Rows go some time after
# they have expired.
portal_links = Table(
    "portal_links",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, ForeignKey("organizations.id"), nullable=False),
    Column("mode", Text, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("created_by", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    Column("revoke_time", DateTime(timezone=True)),
    CheckConstraint("id ~ '^ptl_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("char_length(customer_id) BETWEEN 1 AND 255", name="customer_id"),
    CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
    CheckConstraint(
        "expire_time > create_time AND expire_time <= create_time + interval '720 hours'",
        name="expire_time",
    ),
    Index("ix_portal_links_of_customer", "organization_id", "mode", "customer_id", "id"),
    Index("ix_portal_links_of_tenant", "organization_id", "mode", "id"),
    Index("ix_portal_links_by_end", "organization_id", "mode", "expire_time"),
)
