"""The tables of notifier; the migrations make them, a test compares the two."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from services.kit.database import metadata_naming
from services.kit.idempotency import idempotency_table
from services.kit.inbox import inbox_table
from services.kit.outbox import outbox_table

metadata = MetaData(naming_convention=metadata_naming)
idempotency_keys = idempotency_table(metadata)

inbox = inbox_table(metadata)
Index("ix_inbox_receive_time", inbox.c.receive_time)

# What was done to endpoints, on its way to accounts.
audit_outbox = outbox_table(metadata, "audit_outbox")

# A deleted endpoint keeps its row: its deliveries stay explainable.
endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("delete_time", DateTime(timezone=True)),
    Column("rate_limit", Integer, nullable=False, server_default="0"),
    Column("header_names", ARRAY(Text), nullable=False, server_default="{}"),
    Column("sealed_headers", LargeBinary),
    Column("disabled_reason", Text, nullable=False, server_default=""),
    Column("disable_time", DateTime(timezone=True)),
    # How it is doing (health_repository.py).
    Column("failing_since", DateTime(timezone=True)),
    Column("last_failure_time", DateTime(timezone=True)),
    Column("throttle_step", SmallInteger, nullable=False, server_default="0"),
    Column("throttle_until", DateTime(timezone=True)),
    Column("paced_until", DateTime(timezone=True)),
    CheckConstraint("id ~ '^whe_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("char_length(url) <= 2048 AND url ~ '^https?://'", name="url"),
    CheckConstraint("char_length(description) <= 500", name="description"),
    CheckConstraint("rate_limit BETWEEN 0 AND 1000", name="rate_limit"),
    CheckConstraint(
        "disabled_reason IN ('', 'requested', 'failing', 'gone')", name="disabled_reason"
    ),
    CheckConstraint(
        "(disabled_reason = '') = (disable_time IS NULL)"
        " AND enabled = (disabled_reason = '' AND delete_time IS NULL)",
        name="enabled",
    ),
    CheckConstraint(
        "throttle_step >= 0 AND (throttle_step = 0) = (throttle_until IS NULL)", name="throttle"
    ),
    UniqueConstraint("organization_id", "mode", "id"),
)

# The one without expire_time is the current one; the others still sign until they expire. `key` is
# what an older version has written in plain; `sealed` takes its place when notifier starts.
endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("endpoint_id", Text, ForeignKey("endpoints.id"), nullable=False),
    Column("key", LargeBinary),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True)),
    Column("kind", Text, nullable=False, server_default="v1"),
    Column("sealed", LargeBinary),
    Column("public_key", LargeBinary),
    CheckConstraint("kind IN ('v1', 'v1a')", name="kind"),
    CheckConstraint("num_nonnulls(key, sealed) = 1", name="material"),
    CheckConstraint("(kind = 'v1a') = (public_key IS NOT NULL)", name="public_key"),
    CheckConstraint("octet_length(key) BETWEEN 24 AND 64", name="key"),
    Index(None, "endpoint_id", "id"),
    Index(
        "ix_endpoint_secrets_current",
        "endpoint_id",
        unique=True,
        postgresql_where=text("expire_time IS NULL"),
    ),
)

# Never changed (trigger): `body` is what was signed.
webhook_events = Table(
    "webhook_events",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("take_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("ix_webhook_events_take_time", "take_time"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
)

# The tenant stands in both foreign keys: no event can ever go to another tenant's endpoint.
# `schedule_step` is the place in the retry schedule of the attempt that comes next.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("endpoint_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("schedule_step", SmallInteger, nullable=False),
    Column("next_attempt_time", DateTime(timezone=True)),
    Column("lease_until", DateTime(timezone=True)),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("replay_time", DateTime(timezone=True)),
    ForeignKeyConstraint(
        ["organization_id", "mode", "event_id"],
        ["webhook_events.organization_id", "webhook_events.mode", "webhook_events.id"],
        name="fk_deliveries_event",
    ),
    ForeignKeyConstraint(
        ["organization_id", "mode", "endpoint_id"],
        ["endpoints.organization_id", "endpoints.mode", "endpoints.id"],
        name="fk_deliveries_endpoint",
    ),
    UniqueConstraint("event_id", "endpoint_id"),
    CheckConstraint("id ~ '^whd_[0-9a-f]{32}$'", name="id"),
    CheckConstraint("status IN ('pending', 'succeeded', 'failed', 'dropped')", name="status"),
    CheckConstraint(
        "(status = 'pending') = (next_attempt_time IS NOT NULL)", name="next_attempt_time"
    ),
    CheckConstraint("status = 'pending' OR lease_until IS NULL", name="lease_until"),
    CheckConstraint("attempt_count >= 0 AND schedule_step >= 0", name="counts"),
    Index("ix_deliveries_of_endpoint", "endpoint_id", "create_time", "id"),
    Index("ix_deliveries_of_tenant", "organization_id", "mode", "create_time", "id"),
    # What workers claim from: small, however many deliveries are done.
    Index(
        "ix_deliveries_pending",
        "endpoint_id",
        "next_attempt_time",
        postgresql_where=text("status = 'pending'"),
    ),
)

# Never changed (trigger).
delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey("deliveries.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("start_time", DateTime(timezone=True), nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("response_status", SmallInteger, nullable=False),
    Column("error", Text, nullable=False),
    Column("response_body", LargeBinary, nullable=False),
    CheckConstraint("number >= 1 AND duration_ms >= 0", name="numbers"),
    CheckConstraint("octet_length(response_body) <= 16384", name="response_body"),
    CheckConstraint(
        "error IN ('', 'timeout', 'connection', 'dns', 'tls', 'refused_address', 'http_status')",
        name="error",
    ),
)
