"""Events and the batches they were stored in.

Both are facts: the database itself refuses to change or delete them. The triggers run once a
statement (events) or once a batch (event_batches), so they cost the writing of events nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEEP_EVENTS = """
CREATE FUNCTION keep_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a usage event is never changed or deleted';
END
$$
"""

KEEP_EVENT_BATCHES = """
CREATE FUNCTION keep_event_batches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'a batch of events is never deleted';
    END IF;
    IF (NEW.batch_id, NEW.accept_time, NEW.event_count)
        IS DISTINCT FROM (OLD.batch_id, OLD.accept_time, OLD.event_count)
        OR OLD.apply_time IS NOT NULL
    THEN
        RAISE EXCEPTION 'of a batch of events only apply_time is set, once';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Make the tables and the triggers."""
    op.create_table(
        "events",
        sa.Column("event_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event_id", sa.UUID, nullable=False),
        sa.Column("organization_id", sa.UUID, nullable=False),
        sa.Column("batch_id", sa.UUID, nullable=False),
        sa.Column("mode", sa.SmallInteger, nullable=False),
        sa.Column("amount", sa.Numeric, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("customer_id", sa.Text),
        sa.Column("metadata", sa.Text),
        sa.PrimaryKeyConstraint("event_id", name="pk_events"),
        sa.CheckConstraint("amount >= 0", name="ck_events_amount"),
        sa.CheckConstraint("mode IN (1, 2)", name="ck_events_mode"),
    )
    op.create_index(
        "ix_events_batch_id_event_time",
        "events",
        ["batch_id", "event_time"],
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 32, "autosummarize": "on"},
    )
    op.create_table(
        "event_batches",
        sa.Column("batch_id", sa.UUID, nullable=False),
        sa.Column("accept_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event_count", sa.Integer, nullable=False),
        sa.Column("apply_time", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("batch_id", name="pk_event_batches"),
        sa.CheckConstraint("event_count > 0", name="ck_event_batches_event_count"),
    )
    op.create_index(
        "ix_event_batches_accept_time",
        "event_batches",
        ["accept_time", "batch_id"],
        postgresql_where=sa.text("apply_time IS NULL"),
    )
    op.execute(KEEP_EVENTS)
    op.execute(
        "CREATE TRIGGER keep_events BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_events()"
    )
    op.execute(KEEP_EVENT_BATCHES)
    op.execute(
        "CREATE TRIGGER keep_event_batches BEFORE UPDATE OR DELETE ON event_batches "
        "FOR EACH ROW EXECUTE FUNCTION keep_event_batches()"
    )
    op.execute(
        "CREATE TRIGGER keep_all_event_batches BEFORE TRUNCATE ON event_batches "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_event_batches()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("event_batches")
    op.execute("DROP FUNCTION keep_event_batches()")
    op.drop_table("events")
    op.execute("DROP FUNCTION keep_events()")
