"""Voids: facts that take events out of what is billed, and the batches that they travel in.

A void keeps a copy of its event's content. So a batch of voids is rebuilt without the events, which
retention may have dropped by then, and from one small table.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

EVENT_VOIDS = """
CREATE TABLE event_voids (
    event_id uuid NOT NULL,
    organization_id uuid NOT NULL,
    batch_id uuid NOT NULL,
    event_batch_id uuid NOT NULL,
    mode smallint NOT NULL,
    event_time timestamptz NOT NULL,
    void_time timestamptz NOT NULL,
    amount numeric NOT NULL,
    metric text NOT NULL,
    customer_id text,
    metadata text,
    key_id text NOT NULL,
    reason text NOT NULL,
    CONSTRAINT pk_event_voids PRIMARY KEY (event_id),
    CONSTRAINT fk_event_voids_batch_id_event_batches
        FOREIGN KEY (batch_id) REFERENCES event_batches (batch_id),
    CONSTRAINT ck_event_voids_mode CHECK (mode IN (1, 2)),
    CONSTRAINT ck_event_voids_amount CHECK (amount >= 0),
    CONSTRAINT ck_event_voids_key_id CHECK (key_id <> ''),
    CONSTRAINT ck_event_voids_reason CHECK (char_length(reason) <= 500)
)
"""

KEEP_EVENT_VOIDS = """
CREATE FUNCTION keep_event_voids() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a void is never changed or deleted';
END
$$
"""

KEEP_EVENT_BATCHES = """
CREATE OR REPLACE FUNCTION keep_event_batches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'a batch of events is never deleted';
    END IF;
    IF (NEW.batch_id, NEW.accept_time, NEW.event_count{void_count})
        IS DISTINCT FROM (OLD.batch_id, OLD.accept_time, OLD.event_count{old_void_count})
        OR OLD.apply_time IS NOT NULL
    THEN
        RAISE EXCEPTION 'of a batch of events only apply_time is set, once';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Make the table of voids; let a batch hold voids in place of events."""
    op.execute("ALTER TABLE event_batches ADD COLUMN void_count integer NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE event_batches DROP CONSTRAINT ck_event_batches_event_count")
    # Exactly one of the two is above 0.
    op.execute(
        "ALTER TABLE event_batches ADD CONSTRAINT ck_event_batches_event_count CHECK "
        "(event_count >= 0 AND void_count >= 0 AND (event_count > 0) <> (void_count > 0))"
    )
    op.execute(
        KEEP_EVENT_BATCHES.format(void_count=", NEW.void_count", old_void_count=", OLD.void_count")
    )
    op.execute(EVENT_VOIDS)
    op.execute("CREATE INDEX ix_event_voids_batch_id ON event_voids (batch_id)")
    op.execute(KEEP_EVENT_VOIDS)
    op.execute(
        "CREATE TRIGGER keep_event_voids BEFORE UPDATE OR DELETE OR TRUNCATE ON event_voids "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_event_voids()"
    )


def downgrade() -> None:
    """Undo upgrade; the database refuses it while there are batches of voids."""
    op.drop_table("event_voids")
    op.execute("DROP FUNCTION keep_event_voids()")
    op.execute(KEEP_EVENT_BATCHES.format(void_count="", old_void_count=""))
    op.execute("ALTER TABLE event_batches DROP CONSTRAINT ck_event_batches_event_count")
    op.execute(
        "ALTER TABLE event_batches ADD CONSTRAINT ck_event_batches_event_count "
        "CHECK (event_count > 0)"
    )
    op.execute("ALTER TABLE event_batches DROP COLUMN void_count")
