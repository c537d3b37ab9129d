"""What the fold, the outboxes and reconciliation rely on."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Numeric,
    Table,
    Text,
    text,
)

from services.aggregator.tables.base import metadata
from services.kit.inbox import inbox_table
from services.kit.outbox import outbox_table

# Customers that events have named; whoever is new is told to invoicer.
customers_seen = Table(
    "customers_seen",
    metadata,
    Column("organization_id", Text, primary_key=True),
    Column("mode", Text, primary_key=True),
    Column("customer_id", Text, primary_key=True),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("char_length(customer_id) BETWEEN 1 AND 255", name="customer_id"),
)

# One row. A trigger lets none of its columns go back.
fold_state = Table(
    "fold_state",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    # Counts changes of definitions: who remembers definitions of an older one asks again.
    Column("definition_version", BigInteger, nullable=False),
    # Batches accepted before it have been applied, and may be forgotten in the inbox.
    Column("inbox_horizon", DateTime(timezone=True)),
    # The newest that ingest told: everything accepted before it has been applied.
    Column("watermark", DateTime(timezone=True)),
    CheckConstraint("only_row", name="only_row"),
    CheckConstraint("inbox_horizon <= watermark", name="inbox_horizon"),
)

# Batches that were applied, with the time at which ingest accepted them.
inbox = inbox_table(metadata)
inbox.append_column(Column("accept_time", DateTime(timezone=True), nullable=False))
# fold_state.definition_version by which they were folded; 0: before such was noted.
inbox.append_column(
    Column("definition_version", BigInteger, nullable=False, server_default=text("0"))
)
Index(None, inbox.c.accept_time)

# For invoicer, for notifier, and for the audit log.
outbox = outbox_table(metadata)
audit_outbox = outbox_table(metadata, "audit_outbox")
billing_outbox = outbox_table(metadata, "billing_outbox")

# How far reconciliation has got, and which replica is at it.
reconciliation_state = Table(
    "reconciliation_state",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    Column("closed_hour", DateTime(timezone=True)),
    Column("sweep_hour", DateTime(timezone=True)),
    Column("sweep_start_time", DateTime(timezone=True)),
    CheckConstraint("only_row", name="only_row"),
    CheckConstraint(
        "closed_hour = date_bin('1 hour', closed_hour, 'epoch'::timestamptz) "
        "AND sweep_hour = date_bin('1 hour', sweep_hour, 'epoch'::timestamptz)",
        name="hours",
    ),
)

# Hours of metrics that were not what ingest accepted. The trigger keep_reconciliation_differences
# lets nothing of a repaired one be changed.
reconciliation_differences = Table(
    "reconciliation_differences",
    metadata,
    Column("difference_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("hour", DateTime(timezone=True), nullable=False),
    Column("accepted_count", BigInteger, nullable=False),
    Column("accepted_sum", Numeric, nullable=False),
    Column("counted_count", BigInteger, nullable=False),
    Column("counted_sum", Numeric, nullable=False),
    Column("find_time", DateTime(timezone=True), nullable=False),
    Column("check_time", DateTime(timezone=True), nullable=False),
    Column("repair_time", DateTime(timezone=True)),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("hour = date_bin('1 hour', hour, 'epoch'::timestamptz)", name="hour"),
    CheckConstraint(
        "(accepted_count, accepted_sum) <> (counted_count, counted_sum)", name="differ"
    ),
    CheckConstraint("repair_time >= find_time", name="repair_time"),
    Index(
        "uq_reconciliation_differences_open",
        "organization_id",
        "mode",
        "metric",
        "hour",
        unique=True,
        postgresql_where=text("repair_time IS NULL"),
    ),
)
