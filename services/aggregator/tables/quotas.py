"""Quotas, what they allow, and units set aside."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)

from services.aggregator.tables.base import metadata

# A limit on a metric's usage in each period, for one customer or ('') for each of all others.
quotas = Table(
    "quotas",
    metadata,
    Column("quota_id", Text, primary_key=True),
    Column("metric_id", BigInteger, ForeignKey("metrics.metric_id"), nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("period", Text, nullable=False),
    # NULL: unlimited.
    Column("limit_amount", Numeric),
    Column("enforcement", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("update_time", DateTime(timezone=True), nullable=False),
    # "80%" of the limit, or units such as "1000".
    Column("thresholds", ARRAY(Text), nullable=False),
    UniqueConstraint("metric_id", "customer_id", "period"),
    CheckConstraint("char_length(customer_id) <= 255", name="customer_id"),
    CheckConstraint("period IN ('HOUR', 'DAY', 'WEEK', 'MONTH', 'TOTAL')", name="period"),
    CheckConstraint("limit_amount >= 0 AND limit_amount < 'Infinity'", name="limit_amount"),
    CheckConstraint("enforcement IN ('HARD', 'SOFT')", name="enforcement"),
    CheckConstraint("cardinality(thresholds) <= 10", name="thresholds"),
)

# Limits that come from plans: on the usage of a subscription's customer in each of its periods,
# which lie between `boundaries`.
plan_limits = Table(
    "plan_limits",
    metadata,
    Column("quota_id", Text, primary_key=True),
    Column("metric_id", BigInteger, ForeignKey("metrics.metric_id"), nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("subscription_id", Text, nullable=False),
    Column("limit_amount", Numeric, nullable=False),
    Column("enforcement", Text, nullable=False),
    Column("boundaries", ARRAY(DateTime(timezone=True)), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("update_time", DateTime(timezone=True), nullable=False),
    UniqueConstraint("subscription_id", "metric_id"),
    CheckConstraint("char_length(customer_id) BETWEEN 1 AND 255", name="customer_id"),
    CheckConstraint("limit_amount >= 0 AND limit_amount < 'Infinity'", name="limit_amount"),
    CheckConstraint("enforcement IN ('HARD', 'SOFT')", name="enforcement"),
    CheckConstraint("cardinality(boundaries) BETWEEN 2 AND 100", name="boundaries"),
    Index(None, "metric_id", "customer_id"),
)

# A queue: usage of a metric that has quotas has grown in a bucket, so thresholds may be reached.
# Written by the fold in its transaction, only ever inserted and deleted.
quota_touches = Table(
    "quota_touches",
    metadata,
    Column("touch_id", BigInteger, Identity(always=True), primary_key=True),
    Column("metric_id", BigInteger, nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("bucket_start", DateTime(timezone=True), nullable=False),
    # Not looked at before (the database's clock).
    Column("due_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# Whose quotas have changed by a transaction: usage has grown by so much, in quarters of an hour
# (numbers since 1970); or, where these are NULL, anything, and '' stands for all of the metric.
# What was committed between two snapshots is found by the transaction's id.
quota_changes = Table(
    "quota_changes",
    metadata,
    Column(
        "transaction_id",
        BigInteger,
        nullable=False,
        server_default=text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
    ),
    Column("metric_ids", ARRAY(BigInteger), nullable=False),
    Column("customer_ids", ARRAY(Text), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("quarters", ARRAY(BigInteger)),
    Column("event_counts", ARRAY(BigInteger)),
    Column("amount_sums", ARRAY(Numeric)),
    CheckConstraint("cardinality(metric_ids) = cardinality(customer_ids)", name="holders"),
    CheckConstraint(
        "num_nulls(quarters, event_counts, amount_sums) = 3 "
        "OR num_nulls(quarters, event_counts, amount_sums) = 0 "
        "AND cardinality(quarters) = cardinality(metric_ids) "
        "AND cardinality(event_counts) = cardinality(metric_ids) "
        "AND cardinality(amount_sums) = cardinality(metric_ids)",
        name="growth",
    ),
    Index(None, "transaction_id"),
)

# Which thresholds the organization was told of: each once for a quota, customer and period.
quota_thresholds_reached = Table(
    "quota_thresholds_reached",
    metadata,
    Column("quota_id", Text, primary_key=True),
    Column("customer_id", Text, primary_key=True),
    Column("period_start", DateTime(timezone=True), primary_key=True),
    Column("threshold", Text, primary_key=True),
    Column("period_end", DateTime(timezone=True), nullable=False),
    Index(None, "period_end"),
)

# Units set aside for a customer. A trigger keeps what was promised, and what became of it.
quota_reservations = Table(
    "quota_reservations",
    metadata,
    Column("reservation_id", Text, primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("metric_id", BigInteger, ForeignKey("metrics.metric_id"), nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("status", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    # What was used; may be more than was set aside.
    Column("committed_amount", Numeric),
    # ACTIVE: when it expires; otherwise when it was committed or released.
    Column("hold_time", DateTime(timezone=True), nullable=False),
    UniqueConstraint("organization_id", "mode", "idempotency_key"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("char_length(customer_id) BETWEEN 1 AND 255", name="customer_id"),
    CheckConstraint("amount > 0 AND amount < 'Infinity'", name="amount"),
    CheckConstraint("status IN ('ACTIVE', 'COMMITTED', 'RELEASED')", name="status"),
    CheckConstraint("expire_time > create_time", name="expire_time"),
    CheckConstraint("status <> 'ACTIVE' OR hold_time = expire_time", name="hold_time"),
    CheckConstraint(
        "(status = 'COMMITTED') = (committed_amount IS NOT NULL) "
        "AND committed_amount >= 0 AND committed_amount < 'Infinity'",
        name="committed_amount",
    ),
    Index(
        "ix_quota_reservations_held",
        "metric_id",
        "customer_id",
        "hold_time",
        postgresql_where="status <> 'RELEASED'",
    ),
    Index(None, "hold_time"),
)
