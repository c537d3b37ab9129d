"""Reconciliation: how far it has got, what it has found, and a way to an hour's buckets.

A difference that was repaired is a fact, and there is at most one open one of a metric and hour.
"""

from alembic import op

revision = "0008"
down_revision = "0010"

# All buckets of an hour stand side by side in it. bucket_start never changes, so that adding to a
# bucket does not touch it.
INDEX = "CREATE INDEX ix_usage_buckets_bucket_start ON usage_buckets (bucket_start)"

STATE = """
CREATE TABLE reconciliation_state (
    only_row boolean NOT NULL,
    holder text NOT NULL,
    lease_until timestamptz NOT NULL,
    closed_hour timestamptz,
    sweep_hour timestamptz,
    sweep_start_time timestamptz,
    CONSTRAINT pk_reconciliation_state PRIMARY KEY (only_row),
    CONSTRAINT ck_reconciliation_state_only_row CHECK (only_row),
    CONSTRAINT ck_reconciliation_state_hours CHECK (
        closed_hour = date_bin('1 hour', closed_hour, 'epoch'::timestamptz)
        AND sweep_hour = date_bin('1 hour', sweep_hour, 'epoch'::timestamptz)
    )
)
"""

DIFFERENCES = """
CREATE TABLE reconciliation_differences (
    difference_id bigint GENERATED ALWAYS AS IDENTITY,
    organization_id text NOT NULL,
    mode text NOT NULL,
    metric text NOT NULL,
    hour timestamptz NOT NULL,
    accepted_count bigint NOT NULL,
    accepted_sum numeric NOT NULL,
    counted_count bigint NOT NULL,
    counted_sum numeric NOT NULL,
    find_time timestamptz NOT NULL,
    check_time timestamptz NOT NULL,
    repair_time timestamptz,
    CONSTRAINT pk_reconciliation_differences PRIMARY KEY (difference_id),
    CONSTRAINT ck_reconciliation_differences_mode CHECK (mode IN ('live', 'test')),
    CONSTRAINT ck_reconciliation_differences_hour CHECK (
        hour = date_bin('1 hour', hour, 'epoch'::timestamptz)
    ),
    CONSTRAINT ck_reconciliation_differences_differ CHECK (
        (accepted_count, accepted_sum) <> (counted_count, counted_sum)
    ),
    CONSTRAINT ck_reconciliation_differences_repair_time CHECK (repair_time >= find_time)
)
"""

OPEN = """
CREATE UNIQUE INDEX uq_reconciliation_differences_open
ON reconciliation_differences (organization_id, mode, metric, hour) WHERE repair_time IS NULL
"""

KEEP_DIFFERENCES = """
CREATE FUNCTION keep_reconciliation_differences() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.repair_time IS NOT NULL THEN
        RAISE EXCEPTION 'a repaired difference never changes';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGER = (
    "CREATE TRIGGER keep_reconciliation_differences BEFORE UPDATE ON reconciliation_differences "
    "FOR EACH ROW EXECUTE FUNCTION keep_reconciliation_differences()"
)

FIRST = (
    "INSERT INTO reconciliation_state (only_row, holder, lease_until) "
    "VALUES (true, '', '-infinity')"
)


def upgrade() -> None:
    """Make the index, the tables and the one row of the state."""
    for statement in (INDEX, STATE, DIFFERENCES, OPEN, KEEP_DIFFERENCES, TRIGGER, FIRST):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("reconciliation_differences")
    op.execute("DROP FUNCTION keep_reconciliation_differences()")
    op.drop_table("reconciliation_state")
    op.execute("DROP INDEX ix_usage_buckets_bucket_start")
