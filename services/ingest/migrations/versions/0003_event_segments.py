"""Segments: events are written to a small open table, older ones are closed.

A random key has to find its place in the index of everything stored before; with tens of millions
of events that is most of the work of storing one. So `events` becomes a partitioned table whose
partitions ("segments") are filled one after the other. Exactly one is open; closing it waits for
the transactions that write to it and lets in no others, so that whoever writes to the next one can
know all that the closed ones hold.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# The sequence of its columns is that of `events`, whose rows are copied by name.
MAKE_SEGMENT = """
CREATE FUNCTION make_event_segment(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Only appended to and never vacuumed while it is open, so that closing it need not wait.
    EXECUTE format('CREATE TABLE events_%1$s (LIKE events INCLUDING CONSTRAINTS) '
        'WITH (autovacuum_enabled = false)', n);
    EXECUTE format('ALTER TABLE events_%1$s ALTER segment SET DEFAULT %1$s, '
        'ADD CONSTRAINT pk_events_%1$s PRIMARY KEY (event_id)', n);
    EXECUTE format('CREATE INDEX ix_events_%1$s_batch_id_event_time ON events_%1$s '
        'USING brin (batch_id, event_time) WITH (pages_per_range = 32)', n);
    PERFORM keep_event_segment(n);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION events_%1$s FOR VALUES IN (%1$s)', n);
END
$$
"""

KEEP_SEGMENT = """
CREATE FUNCTION keep_event_segment(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER keep_events BEFORE UPDATE OR DELETE OR TRUNCATE ON events_%s '
        'FOR EACH STATEMENT EXECUTE FUNCTION keep_events()', n);
END
$$
"""

REFUSE_EVENT = """
CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'this segment of events is closed' USING ERRCODE = 'UF001';
END
$$
"""

# Opens the next segment and closes `n`: nobody writes to it any more once this returns.
ROTATE_SEGMENTS = """
CREATE FUNCTION rotate_event_segments(n integer, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM event_segments WHERE segment = n AND close_time IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM make_event_segment(n + 1);
    EXECUTE format('LOCK TABLE events_%s IN SHARE ROW EXCLUSIVE MODE', n);
    EXECUTE format('CREATE TRIGGER refuse_event BEFORE INSERT ON events_%s '
        'FOR EACH STATEMENT EXECUTE FUNCTION refuse_event()', n);
    EXECUTE format('ALTER TABLE events_%s RESET (autovacuum_enabled)', n);
    UPDATE event_segments SET close_time = at WHERE segment = n;
    INSERT INTO event_segments (segment, open_time) VALUES (n + 1, at);
    RETURN true;
END
$$
"""


KEEP_EVENT_BATCHES = """
CREATE OR REPLACE FUNCTION keep_event_batches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'a batch of events is never deleted';
    END IF;
    IF (NEW.batch_id, NEW.accept_time, NEW.event_count, NEW.void_count{new_segment})
        IS DISTINCT FROM
        (OLD.batch_id, OLD.accept_time, OLD.event_count, OLD.void_count{old_segment})
        OR OLD.apply_time IS NOT NULL
    THEN
        RAISE EXCEPTION 'of a batch of events only apply_time is set, once';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Make what is stored the first segment."""
    op.create_table(
        "event_segments",
        sa.Column("segment", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("open_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("close_time", sa.DateTime(timezone=True)),
        sa.Column("event_count", sa.BigInteger),
        sa.Column("key_filter", sa.LargeBinary),
        sa.Column("index_time", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("segment", name="pk_event_segments"),
        sa.CheckConstraint(
            "close_time IS NOT NULL OR (key_filter IS NULL AND index_time IS NULL)",
            name="ck_event_segments_open",
        ),
        sa.CheckConstraint(
            "(event_count IS NULL) = (key_filter IS NULL)", name="ck_event_segments_filter"
        ),
    )
    op.execute("ALTER TABLE event_segments ALTER key_filter SET STORAGE EXTERNAL")
    op.execute(
        "CREATE UNIQUE INDEX uq_event_segments_open ON event_segments ((close_time IS NULL)) "
        "WHERE close_time IS NULL"
    )
    op.execute("INSERT INTO event_segments (segment, open_time) VALUES (1, now())")
    _make_first_segment()
    for statement in (KEEP_SEGMENT, MAKE_SEGMENT, REFUSE_EVENT, ROTATE_SEGMENTS):
        op.execute(statement)
    # In which segment a batch's events lie: all so far in the first.
    op.execute("ALTER TABLE event_batches ADD segment integer DEFAULT 1")
    op.execute("ALTER TABLE event_batches ALTER segment DROP DEFAULT")
    op.execute("ALTER TABLE event_batches DISABLE TRIGGER keep_event_batches")
    op.execute("UPDATE event_batches SET segment = NULL WHERE event_count = 0")
    op.execute("ALTER TABLE event_batches ENABLE TRIGGER keep_event_batches")
    op.execute(
        "ALTER TABLE event_batches ADD CONSTRAINT ck_event_batches_segment "
        "CHECK ((segment IS NULL) = (event_count = 0))"
    )
    op.execute(KEEP_EVENT_BATCHES.format(new_segment=", NEW.segment", old_segment=", OLD.segment"))


def _make_first_segment() -> None:
    op.execute("ALTER TABLE events RENAME TO events_1")
    op.execute("ALTER TABLE events_1 RENAME CONSTRAINT pk_events TO pk_events_1")
    op.execute(
        "ALTER INDEX ix_events_batch_id_event_time RENAME TO ix_events_1_batch_id_event_time"
    )
    op.execute("ALTER INDEX ix_events_1_batch_id_event_time RESET (autosummarize)")
    op.execute(
        "ALTER TABLE events_1 ADD segment integer NOT NULL DEFAULT 1, "
        "SET (autovacuum_enabled = false)"
    )
    op.execute(
        "CREATE TABLE events (LIKE events_1 INCLUDING CONSTRAINTS) PARTITION BY LIST (segment)"
    )
    op.execute(
        "CREATE INDEX ix_events_batch_id_event_time ON events "
        "USING brin (batch_id, event_time) WITH (pages_per_range = 32)"
    )
    op.execute("ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES IN (1)")
    op.execute(
        "CREATE TRIGGER keep_events BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_events()"
    )


def downgrade() -> None:
    """Undo upgrade; only while there is but one segment."""
    op.execute(KEEP_EVENT_BATCHES.format(new_segment="", old_segment=""))
    op.drop_column("event_batches", "segment")
    for function in ("rotate_event_segments(integer, timestamptz)", "make_event_segment(integer)"):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("ALTER TABLE events DETACH PARTITION events_1")
    op.execute("DROP TABLE events")
    op.execute("ALTER TABLE events_1 DROP COLUMN segment, RESET (autovacuum_enabled)")
    op.execute("ALTER TABLE events_1 RENAME TO events")
    op.execute("ALTER TABLE events RENAME CONSTRAINT pk_events_1 TO pk_events")
    op.execute(
        "ALTER INDEX ix_events_1_batch_id_event_time RENAME TO ix_events_batch_id_event_time"
    )
    op.execute("DROP FUNCTION keep_event_segment(integer)")
    op.execute("DROP FUNCTION refuse_event()")
    op.drop_table("event_segments")
