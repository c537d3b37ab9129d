"""The tables of ingest; the migrations make them, a test compares the two."""

from sqlalchemy import (
    UUID,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import TSTZMULTIRANGE

from services.kit.database import metadata_naming
from services.kit.idempotency import idempotency_table
from services.kit.outbox import outbox_table

metadata = MetaData(naming_convention=metadata_naming)
idempotency_keys = idempotency_table(metadata)

# Which events were voided by whom, on its way to accounts.
audit_outbox = outbox_table(metadata, "audit_outbox")

# Segments of `events` are filled one after the other; the one that has no close_time is open.
# A closed one gets its key filter (key_filter.py), then the second one, and then, at index_time,
# indexes for searching.
event_segments = Table(
    "event_segments",
    metadata,
    Column("segment", Integer, primary_key=True, autoincrement=False),
    Column("open_time", DateTime(timezone=True), nullable=False),
    Column("close_time", DateTime(timezone=True)),
    Column("event_count", BigInteger),
    Column("key_filter", LargeBinary),
    Column("second_key_filter", LargeBinary),
    Column("index_time", DateTime(timezone=True)),
    CheckConstraint(
        "close_time IS NOT NULL OR (key_filter IS NULL AND index_time IS NULL)", name="open"
    ),
    CheckConstraint("(event_count IS NULL) = (key_filter IS NULL)", name="filter"),
    CheckConstraint("second_key_filter IS NULL OR key_filter IS NOT NULL", name="second_filter"),
    Index(
        "uq_event_segments_open",
        text("(close_time IS NULL)"),
        unique=True,
        postgresql_where=text("close_time IS NULL"),
    ),
)

# Partitioned by segment: events_1, events_2, .. (make_event_segment in the migrations), each with
# event_id as its primary key. The order of the columns is that of the binary COPY rows in
# copy_format.py, those of fixed length first; the segment is its table's default. The trigger
# keep_events refuses UPDATE, DELETE and TRUNCATE; a closed segment refuses INSERT too.
events = Table(
    "events",
    metadata,
    Column("event_time", DateTime(timezone=True), nullable=False),
    Column("event_id", UUID, nullable=False),
    Column("organization_id", UUID, nullable=False),
    Column("batch_id", UUID, nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("metric", Text, nullable=False),
    Column("customer_id", Text),
    Column("metadata", Text),
    Column("segment", Integer, nullable=False),
    CheckConstraint("amount >= 0", name="amount"),
    CheckConstraint("mode IN (1, 2)", name="mode"),
    # Rows are appended batch by batch and mostly in the order in which they happened: block
    # ranges find a batch, or an hour, at no cost to writers.
    Index(
        "ix_events_batch_id_event_time",
        "batch_id",
        "event_time",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32},
    ),
    postgresql_partition_by="LIST (segment)",
)

# What replicas noted of the keys of a closed segment, until its filter is made of them.
key_filter_parts = Table(
    "key_filter_parts",
    metadata,
    Column(
        "segment",
        Integer,
        ForeignKey("event_segments.segment", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("replica", UUID, primary_key=True),
    Column("event_count", BigInteger, nullable=False),
    Column("key_filter", LargeBinary, nullable=False),
    CheckConstraint("event_count > 0", name="event_count"),
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
    Column("void_count", Integer, nullable=False, server_default=text("0")),
    Column("segment", Integer, index=True),
    # A batch holds events or voids, never both.
    CheckConstraint(
        "event_count >= 0 AND void_count >= 0 AND (event_count > 0) <> (void_count > 0)",
        name="event_count",
    ),
    CheckConstraint("(segment IS NULL) = (event_count = 0)", name="segment"),
    Index(
        "ix_event_batches_accept_time",
        "accept_time",
        "batch_id",
        postgresql_where=text("apply_time IS NULL"),
    ),
)

# Events that were taken out of what is billed: by whom (an API key), when and why. What the event
# said is copied, so that a batch of voids can be rebuilt without the events. No foreign key leads
# to them, because retention drops them. The trigger keep_event_voids lets nothing be changed.
event_voids = Table(
    "event_voids",
    metadata,
    Column("event_id", UUID, primary_key=True),
    Column("organization_id", UUID, nullable=False),
    # The batch that the void travels in, and that of the event.
    Column("batch_id", UUID, ForeignKey("event_batches.batch_id"), nullable=False),
    Column("event_batch_id", UUID, nullable=False),
    Column("mode", SmallInteger, nullable=False),
    Column("event_time", DateTime(timezone=True), nullable=False),
    Column("void_time", DateTime(timezone=True), nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("metric", Text, nullable=False),
    Column("customer_id", Text),
    Column("metadata", Text),
    Column("key_id", Text, nullable=False),
    # '': nobody said why.
    Column("reason", Text, nullable=False),
    CheckConstraint("mode IN (1, 2)", name="mode"),
    CheckConstraint("amount >= 0", name="amount"),
    CheckConstraint("key_id <> ''", name="key_id"),
    CheckConstraint("char_length(reason) <= 500", name="reason"),
    Index("ix_event_voids_batch_id", "batch_id"),
    Index("ix_event_voids_event_time", "event_time"),
)

# When the events happened that are gone, to whole quarters of an hour. Triggers note them in the
# transaction in which events go: note_deleted_events on each closed segment, note_dropped_segment
# on event_segments. The zero organization stands for all: what went before this was noted.
event_drops = Table(
    "event_drops",
    metadata,
    Column("organization_id", UUID, primary_key=True),
    Column("mode", SmallInteger, primary_key=True),
    Column("event_times", TSTZMULTIRANGE, nullable=False),
    CheckConstraint("mode IN (1, 2)", name="mode"),
    CheckConstraint("NOT isempty(event_times)", name="event_times"),
)
