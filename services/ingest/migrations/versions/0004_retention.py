"""Raw events may go once their organization no longer wants them: never before 90 days, and only
out of closed segments. A batch goes with its segment.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

# The clock is moved by tests and rehearsals only; it can't make a segment older than 90 days of its
# own, since closing has moved with it.
KEEP_EVENTS = """
CREATE OR REPLACE FUNCTION keep_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME ~ '^events_[0-9]+$' AND EXISTS (
        SELECT FROM event_segments WHERE segment = substr(TG_TABLE_NAME, 8)::integer
        AND close_time < now() - interval '90 days'
            + coalesce(current_setting('usageflow.clock_offset', true), '0')::interval
    ) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'a usage event is never changed or deleted';
END
$$
"""
KEEP_EVENTS_FOR_EVER = """
CREATE OR REPLACE FUNCTION keep_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a usage event is never changed or deleted';
END
$$
"""

KEEP_EVENT_BATCHES = """
CREATE OR REPLACE FUNCTION keep_event_batches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.apply_time IS NOT NULL AND OLD.segment IS NOT NULL
        AND NOT EXISTS (SELECT FROM event_segments WHERE segment = OLD.segment)
    THEN
        RETURN OLD;
    END IF;
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'a batch of events is never deleted';
    END IF;
    IF (NEW.batch_id, NEW.accept_time, NEW.event_count, NEW.void_count, NEW.segment)
        IS DISTINCT FROM
        (OLD.batch_id, OLD.accept_time, OLD.event_count, OLD.void_count, OLD.segment)
        OR OLD.apply_time IS NOT NULL
    THEN
        RAISE EXCEPTION 'of a batch of events only apply_time is set, once';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Let old events go."""
    op.execute(KEEP_EVENTS)
    op.execute(KEEP_EVENT_BATCHES)
    op.create_index("ix_event_batches_segment", "event_batches", ["segment"])


def downgrade() -> None:
    """Keep them for ever."""
    op.drop_index("ix_event_batches_segment")
    op.execute(KEEP_EVENTS_FOR_EVER)
