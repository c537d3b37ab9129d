"""Usage of series: buckets, what they keep in detail, and rollups."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    text,
)

from services.aggregator.tables.base import metadata

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
    # What the largest of a month are found by: days lie scattered between spans of four hours.
    Index(
        "ix_usage_rollups_days",
        "metric_id",
        "span_start",
        postgresql_include=["series_id", "amount_sum", "event_count"],
        postgresql_where=text("span_hours = 24"),
    ),
    postgresql_with={"fillfactor": 90, "autovacuum_vacuum_insert_scale_factor": "0.02"},
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
