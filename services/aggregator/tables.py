"""The tables of aggregator; the migrations make them, a test compares the two."""

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
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
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
    CheckConstraint("(unique_by <> '') = (aggregation = 'UNIQUE_COUNT')", name="unique_by"),
    CheckConstraint(
        "defined OR (aggregation = 'SUM' AND dimensions = '{}' AND name = '' AND unit = '')",
        name="defined",
    ),
    # Newest first of one organization and mode.
    Index(None, "organization_id", "mode", "metric_id"),
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
    CheckConstraint(
        "bucket_start = date_bin('15 minutes', bucket_start, 'epoch'::timestamptz)",
        name="bucket_start",
    ),
    CheckConstraint("event_count > 0", name="event_count"),
    # NaN is above Infinity.
    CheckConstraint(
        "amount_min >= 0 AND amount_min <= amount_max AND amount_max <= amount_sum "
        "AND amount_sum < 'Infinity'",
        name="amounts",
    ),
    CheckConstraint(
        "latest_value BETWEEN amount_min AND amount_max AND octet_length(latest_event_id) = 16 "
        "AND latest_time >= bucket_start AND latest_time < bucket_start + interval '15 minutes'",
        name="latest",
    ),
    postgresql_with={"fillfactor": 80},
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

outbox = outbox_table(metadata)
