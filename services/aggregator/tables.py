"""The tables of aggregator; the migrations make them, a test compares the two."""

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
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.kit.database import metadata_naming
from services.kit.inbox import inbox_table
from services.kit.outbox import outbox_table

metadata = MetaData(naming_convention=metadata_naming)

# A trigger keeps what identifies a metric, keeps definitions that somebody gave, and counts
# fold_state.definition_version up with every change.
metrics = Table(
    "metrics",
    metadata,
    Column("metric_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("aggregation", Text, nullable=False),
    Column("dimensions", ARRAY(Text), nullable=False),
    Column("unique_by", Text, nullable=False),
    # False: it defined itself by its first event.
    Column("defined", Boolean, nullable=False),
    # It had counted events before it was defined: theirs lie under no dimensions.
    Column("counted_undefined", Boolean, nullable=False, server_default=text("false")),
    # How many values each of its dimensions may know.
    Column("dimension_values_max", Integer, nullable=False, server_default=text("1000")),
    # Whether amount_counts is kept. Neither this nor unique_by ever changes.
    Column("percentiles", Boolean, nullable=False, server_default=text("false")),
    Column("create_time", DateTime(timezone=True), nullable=False),
    UniqueConstraint("organization_id", "mode", "key"),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("key ~ '^[A-Za-z0-9_.:-]{1,128}$'", name="key"),
    CheckConstraint("char_length(name) <= 200", name="name"),
    CheckConstraint("char_length(unit) <= 50", name="unit"),
    CheckConstraint(
        "aggregation IN ('SUM', 'COUNT', 'MAX', 'MIN', 'AVG', 'LATEST', 'UNIQUE_COUNT')",
        name="aggregation",
    ),
    CheckConstraint("cardinality(dimensions) <= 8", name="dimensions"),
    CheckConstraint("dimension_values_max >= 1", name="dimension_values_max"),
    CheckConstraint("(unique_by <> '') = (aggregation = 'UNIQUE_COUNT')", name="unique_by"),
    CheckConstraint(
        "defined OR (aggregation = 'SUM' AND dimensions = '{}' AND name = '' AND unit = '')",
        name="defined",
    ),
    # Newest first of one organization and mode.
    Index(None, "organization_id", "mode", "metric_id"),
)

# The values that dimensions know, numbered as they came; a trigger lets no more in than they may
# know. All others are counted under dimensions.OVERFLOW.
dimension_values = Table(
    "dimension_values",
    metadata,
    Column(
        "metric_id",
        BigInteger,
        ForeignKey("metrics.metric_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("dimension", Text, primary_key=True),
    # details.value_key: values are too long to index.
    Column("value_key", LargeBinary, primary_key=True),
    Column("number", Integer, nullable=False),
    UniqueConstraint("metric_id", "dimension", "number"),
    CheckConstraint("octet_length(value_key) = 16", name="value_key"),
    CheckConstraint("number >= 1", name="number"),
)

# What is counted apart: a metric, a customer ('' for none) and dimension values. Rows never change.
series = Table(
    "series",
    metadata,
    Column("series_id", BigInteger, Identity(always=True), primary_key=True),
    Column("metric_id", BigInteger, ForeignKey("metrics.metric_id"), nullable=False),
    # A hash of customer and dimensions (fold.Series.key): values are too long to index.
    Column("series_key", LargeBinary, nullable=False),
    Column("customer_id", Text, nullable=False),
    # Property to value, both texts; properties that an event lacks are left out.
    Column("dimensions", JSONB, nullable=False),
    UniqueConstraint("metric_id", "series_key"),
    CheckConstraint("octet_length(series_key) = 16", name="series_key"),
    CheckConstraint("char_length(customer_id) <= 255", name="customer_id"),
    CheckConstraint("jsonb_typeof(dimensions) = 'object'", name="dimensions"),
    Index(None, "metric_id", "customer_id"),
)

# The usage of a series in a quarter of an hour. Pages keep room so that updates stay in them.
usage_buckets = Table(
    "usage_buckets",
    metadata,
    Column("series_id", BigInteger, ForeignKey("series.series_id"), primary_key=True),
    Column("bucket_start", DateTime(timezone=True), primary_key=True),
    Column("event_count", BigInteger, nullable=False),
    Column("amount_sum", Numeric, nullable=False),
    Column("amount_min", Numeric, nullable=False),
    Column("amount_max", Numeric, nullable=False),
    # The event that happened last; of several at once, the one with the highest id.
    Column("latest_time", DateTime(timezone=True), nullable=False),
    Column("latest_event_id", LargeBinary, nullable=False),
    Column("latest_value", Numeric, nullable=False),
    # False: a void may have taken the smallest, largest or last away; see bucket_recounts.
    Column("extremes_exact", Boolean, nullable=False, server_default=text("true")),
    CheckConstraint(
        "bucket_start = date_bin('15 minutes', bucket_start, 'epoch'::timestamptz)",
        name="bucket_start",
    ),
    CheckConstraint("event_count > 0", name="event_count"),
    # NaN is above Infinity.
    CheckConstraint(
        "amount_sum >= 0 AND amount_sum < 'Infinity' AND (NOT extremes_exact OR "
        "(amount_min >= 0 AND amount_min <= amount_max AND amount_max < 'Infinity'))",
        name="amounts",
    ),
    CheckConstraint(
        "NOT extremes_exact OR (latest_value BETWEEN amount_min AND amount_max "
        "AND octet_length(latest_event_id) = 16 AND latest_time >= bucket_start "
        "AND latest_time < bucket_start + interval '15 minutes')",
        name="latest",
    ),
    Index("ix_usage_buckets_bucket_start", "bucket_start"),
    postgresql_with={"fillfactor": 80},
)

# How many events of a bucket have which value of the property (details.value_key; empty: the event
# has no value); those of a bucket add up to its events.
unique_values = Table(
    "unique_values",
    metadata,
    Column("series_id", BigInteger, primary_key=True),
    Column("bucket_start", DateTime(timezone=True), primary_key=True),
    Column("value_key", LargeBinary, primary_key=True),
    Column("event_count", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["series_id", "bucket_start"],
        ["usage_buckets.series_id", "usage_buckets.bucket_start"],
        ondelete="CASCADE",
    ),
    CheckConstraint("octet_length(value_key) IN (0, 16)", name="value_key"),
    CheckConstraint("event_count > 0", name="event_count"),
)

# How many events of a bucket have which amount (details.rounded); they add up as above.
amount_counts = Table(
    "amount_counts",
    metadata,
    Column("series_id", BigInteger, primary_key=True),
    Column("bucket_start", DateTime(timezone=True), primary_key=True),
    Column("amount", Numeric, primary_key=True),
    Column("event_count", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["series_id", "bucket_start"],
        ["usage_buckets.series_id", "usage_buckets.bucket_start"],
        ondelete="CASCADE",
    ),
    CheckConstraint("amount >= 0 AND amount < 'Infinity'", name="amount"),
    CheckConstraint("event_count > 0", name="event_count"),
)

# The usage of a series in four hours, or a day, of UTC. Triggers on usage_buckets keep them what
# the buckets come to, for all spans that lie before rollup_state.kept_until; nobody else writes.
usage_rollups = Table(
    "usage_rollups",
    metadata,
    Column("series_id", BigInteger, ForeignKey("series.series_id"), primary_key=True),
    Column("span_hours", SmallInteger, primary_key=True),
    Column("span_start", DateTime(timezone=True), primary_key=True),
    # Of the series.
    Column("metric_id", BigInteger, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("amount_sum", Numeric, nullable=False),
    Column("amount_min", Numeric, nullable=False),
    Column("amount_max", Numeric, nullable=False),
    Column("latest_time", DateTime(timezone=True), nullable=False),
    Column("latest_event_id", LargeBinary, nullable=False),
    Column("latest_value", Numeric, nullable=False),
    # False: those of a bucket are not.
    Column("extremes_exact", Boolean, nullable=False),
    CheckConstraint("span_hours IN (4, 24)", name="span_hours"),
    CheckConstraint(
        "span_start = date_bin(span_hours * interval '1 hour', span_start, 'epoch'::timestamptz)",
        name="span_start",
    ),
    CheckConstraint("event_count > 0", name="event_count"),
    CheckConstraint(
        "amount_sum >= 0 AND amount_sum < 'Infinity' AND (NOT extremes_exact OR "
        "(amount_min >= 0 AND amount_min <= amount_max AND amount_max < 'Infinity'))",
        name="amounts",
    ),
    CheckConstraint(
        "NOT extremes_exact OR (latest_value BETWEEN amount_min AND amount_max "
        "AND octet_length(latest_event_id) = 16 AND latest_time >= span_start "
        "AND latest_time < span_start + span_hours * interval '1 hour')",
        name="latest",
    ),
    Index(
        "ix_usage_rollups_metric_id_span_hours_span_start", "metric_id", "span_hours", "span_start"
    ),
    postgresql_with={"fillfactor": 90},
)

# One row. A trigger lets the instants never go back.
rollup_state = Table(
    "rollup_state",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    # Whoever writes a bucket that lies before it writes its spans too.
    Column("kept_until", DateTime(timezone=True), nullable=False),
    # All spans that lie before it are there.
    Column("rolled_until", DateTime(timezone=True), nullable=False),
    # On the way from there to kept_until: up to this series.
    Column("rolled_series_id", BigInteger, nullable=False),
    CheckConstraint("only_row", name="only_row"),
    CheckConstraint("rolled_until <= kept_until", name="rolled_until"),
    CheckConstraint(
        "kept_until = date_bin('4 hours', kept_until, 'epoch'::timestamptz) "
        "AND rolled_until = date_bin('4 hours', rolled_until, 'epoch'::timestamptz)",
        name="spans",
    ),
)

# Buckets whose smallest, largest and last are to be found anew among the stored events. Every mark,
# by a void or by whoever begins to count, is a new number: only who knows the newest may end it.
bucket_recounts = Table(
    "bucket_recounts",
    metadata,
    Column("series_id", BigInteger, primary_key=True),
    Column("bucket_start", DateTime(timezone=True), primary_key=True),
    Column(
        "mark",
        BigInteger,
        Sequence("bucket_recount_marks", metadata=metadata),
        nullable=False,
        server_default=text("nextval('bucket_recount_marks')"),
    ),
    # Until then nobody else begins (the database's clock).
    Column(
        "attempt_time", DateTime(timezone=True), nullable=False, server_default=text("'-infinity'")
    ),
    ForeignKeyConstraint(
        ["series_id", "bucket_start"],
        ["usage_buckets.series_id", "usage_buckets.bucket_start"],
        ondelete="CASCADE",
    ),
)

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

# Whose quotas may have changed by a transaction: its quota, reservations, or usage; '' stands for
# all of the metric. What was committed between two snapshots is found by the transaction's id.
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
    CheckConstraint("cardinality(metric_ids) = cardinality(customer_ids)", name="holders"),
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
Index(None, inbox.c.accept_time)

# For invoicer, and for notifier.
outbox = outbox_table(metadata)
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
