"""The tables of ingest; the migrations make them, a test compares the two."""

from sqlalchemy import (
    UUID,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    text,
)

from services.kit.database import metadata_naming

metadata = MetaData(naming_convention=metadata_naming)

# The order of the columns is the order of the binary COPY rows in copy_format.py, those of fixed
# length first. The trigger keep_events refuses UPDATE, DELETE and TRUNCATE.
events = Table(
    "events",
    metadata,
    Column("event_time", DateTime(timezone=True), nullable=False),
    Column("event_id", UUID, primary_key=True),
    Column("organization_id", UUID, nullable=False),
    Column("batch_id", UUID, nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("metric", Text, nullable=False),
    Column("customer_id", Text),
    Column("metadata", Text),
    CheckConstraint("amount >= 0", name="amount"),
    CheckConstraint("mode IN (1, 2)", name="mode"),
    # Rows are appended batch by batch and mostly in the order in which they happened: block
    # ranges find a batch, or an hour, at no cost to writers.
    Index(
        "ix_events_batch_id_event_time",
        "batch_id",
        "event_time",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": "on"},
    ),
)

# What was committed in one transaction; also the outbox: not applied = not yet confirmed by
# aggregator's inbox. The trigger keep_event_batches lets nothing but apply_time be set, once.
event_batches = Table(
    "event_batches",
    metadata,
    Column("batch_id", UUID, primary_key=True),
    Column("accept_time", DateTime(timezone=True), nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("apply_time", DateTime(timezone=True)),
    CheckConstraint("event_count > 0", name="event_count"),
    Index(
        "ix_event_batches_accept_time",
        "accept_time",
        "batch_id",
        postgresql_where=text("apply_time IS NULL"),
    ),
)
