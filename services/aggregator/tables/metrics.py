"""Metrics, how they are being changed, and the series that are counted."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.aggregator.tables.base import metadata

# A row with a key is a metric, one without is what a changed definition of a metric counts by.
# Triggers keep what identifies both, let a definition that somebody gave change only together with
# counted_id, and count fold_state.definition_version up with every change of a definition.
metrics = Table(
    "metrics",
    metadata,
    Column("metric_id", BigInteger, Identity(always=True), primary_key=True),
    Column("organization_id", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("key", Text),
    # Whose series hold what the metric has counted: its own, or those of what was built for it.
    Column("counted_id", BigInteger, ForeignKey("metrics.metric_id")),
    # Of what was built, or is being built: the metric that it is for.
    Column("of_metric_id", BigInteger, ForeignKey("metrics.metric_id")),
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
    # Whether amount_counts is kept. This and unique_by change only together with counted_id.
    Column("percentiles", Boolean, nullable=False, server_default=text("false")),
    Column("create_time", DateTime(timezone=True), nullable=False),
    # Not listed any more since then; it counts all the same.
    Column("archive_time", DateTime(timezone=True)),
    # When its usage was last asked for by billing, give or take a day.
    Column("billed_time", DateTime(timezone=True)),
    UniqueConstraint("organization_id", "mode", "key"),
    UniqueConstraint("counted_id"),
    CheckConstraint("(key IS NULL) = (counted_id IS NULL)", name="counted_id"),
    CheckConstraint("(key IS NULL) = (of_metric_id IS NOT NULL)", name="of_metric_id"),
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
    Index(None, "of_metric_id", postgresql_where=text("of_metric_id IS NOT NULL")),
)

# Changed definitions of metrics on their way: their events are read again from ingest and counted
# under building_id, then the voids; at most one of a metric runs. A trigger lets each end once.
metric_rebuilds = Table(
    "metric_rebuilds",
    metadata,
    Column("rebuild_id", BigInteger, Identity(always=True), primary_key=True),
    Column("metric_id", BigInteger, ForeignKey("metrics.metric_id"), nullable=False),
    Column("building_id", BigInteger, ForeignKey("metrics.metric_id", ondelete="SET NULL")),
    # EVENTS, VOIDS: what is being read; DONE, FAILED, CANCELLED.
    Column("state", Text, nullable=False),
    # Batches of events, and of voids, that were folded since these versions are counted in both.
    Column("start_version", BigInteger, nullable=False),
    Column("voids_version", BigInteger),
    # Where ingest's history goes on.
    Column("cursor", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("events_done", BigInteger, nullable=False),
    # How many there were when it began; NULL: not known yet.
    Column("events_total", BigInteger),
    Column("error", Text, nullable=False),
    # Nobody else works on it before (the database's clock).
    Column("due_time", DateTime(timezone=True), nullable=False),
    Column("start_time", DateTime(timezone=True), nullable=False),
    Column("end_time", DateTime(timezone=True)),
    CheckConstraint("state IN ('EVENTS', 'VOIDS', 'DONE', 'FAILED', 'CANCELLED')", name="state"),
    CheckConstraint("(state IN ('EVENTS', 'VOIDS')) = (end_time IS NULL)", name="end_time"),
    CheckConstraint("building_id IS NOT NULL OR end_time IS NOT NULL", name="building_id"),
    CheckConstraint("state <> 'VOIDS' OR voids_version > start_version", name="voids_version"),
    CheckConstraint("(state = 'FAILED') = (error <> '')", name="error"),
    CheckConstraint("events_done >= 0 AND events_total >= 0", name="events"),
    Index(
        "uq_metric_rebuilds_running",
        "metric_id",
        unique=True,
        postgresql_where=text("end_time IS NULL"),
    ),
    Index(None, "metric_id", "rebuild_id"),
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
