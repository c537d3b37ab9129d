"""What may have changed what is left of quotas, so that replicas may remember it.

Whoever changes a quota, a reservation, or usage of a metric with quotas notes it in the same
transaction, with its transaction id: a reader finds what was committed between two snapshots.
"""

from alembic import op

revision = "0010"
down_revision = "0005"

QUOTA_CHANGES = """
CREATE TABLE quota_changes (
    transaction_id bigint NOT NULL DEFAULT CAST(CAST(pg_current_xact_id() AS text) AS bigint),
    metric_ids bigint[] NOT NULL,
    customer_ids text[] NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_quota_changes_holders
        CHECK (cardinality(metric_ids) = cardinality(customer_ids))
)
"""

INDEX = "CREATE INDEX ix_quota_changes_transaction_id ON quota_changes (transaction_id)"

NOTE_QUOTA_CHANGE = """
CREATE FUNCTION note_quota_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed record := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    INSERT INTO quota_changes (metric_ids, customer_ids)
    VALUES (ARRAY[changed.metric_id], ARRAY[changed.customer_id]);
    RETURN NULL;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER note_quota_change AFTER INSERT OR UPDATE OR DELETE ON quotas "
    "FOR EACH ROW EXECUTE FUNCTION note_quota_change()",
    # What is deleted has ended before.
    "CREATE TRIGGER note_quota_change AFTER INSERT OR UPDATE ON quota_reservations "
    "FOR EACH ROW EXECUTE FUNCTION note_quota_change()",
)


def upgrade() -> None:
    """Make the table and the triggers."""
    for statement in (QUOTA_CHANGES, INDEX, NOTE_QUOTA_CHANGE, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    for table in ("quotas", "quota_reservations"):
        op.execute(f"DROP TRIGGER note_quota_change ON {table}")
    op.execute("DROP FUNCTION note_quota_change()")
    op.drop_table("quota_changes")
