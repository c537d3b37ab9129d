"""Thresholds of quotas: which there are, what may have reached them, and which were told of.

That a metric gets its first quota is a change of its definition for the fold, which then notes
whose usage grows: fold_state.definition_version counts it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

QUOTA_THRESHOLDS = (
    "ALTER TABLE quotas ADD COLUMN thresholds text[] NOT NULL DEFAULT '{50%,80%,100%}'",
    "ALTER TABLE quotas ALTER COLUMN thresholds DROP DEFAULT",
    "ALTER TABLE quotas ADD CONSTRAINT ck_quotas_thresholds CHECK (cardinality(thresholds) <= 10)",
)

TOUCHES = """
CREATE TABLE quota_touches (
    touch_id bigint GENERATED ALWAYS AS IDENTITY,
    metric_id bigint NOT NULL,
    customer_id text NOT NULL,
    bucket_start timestamptz NOT NULL,
    due_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_quota_touches PRIMARY KEY (touch_id)
)
"""

REACHED = """
CREATE TABLE quota_thresholds_reached (
    quota_id text NOT NULL,
    customer_id text NOT NULL,
    period_start timestamptz NOT NULL,
    threshold text NOT NULL,
    period_end timestamptz NOT NULL,
    CONSTRAINT pk_quota_thresholds_reached
        PRIMARY KEY (quota_id, customer_id, period_start, threshold)
)
"""

INDEX = (
    "CREATE INDEX ix_quota_thresholds_reached_period_end ON quota_thresholds_reached (period_end)"
)

BILLING_OUTBOX = """
CREATE TABLE billing_outbox (
    message_id text NOT NULL,
    subject text NOT NULL,
    payload bytea NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_billing_outbox PRIMARY KEY (message_id)
)
"""

COUNT_FIRST_QUOTA = """
CREATE FUNCTION count_first_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM quotas WHERE metric_id = NEW.metric_id AND quota_id <> NEW.quota_id
    ) THEN
        UPDATE fold_state SET definition_version = definition_version + 1;
    END IF;
    RETURN NULL;
END
$$
"""

TRIGGER = (
    "CREATE TRIGGER count_first_quota AFTER INSERT ON quotas "
    "FOR EACH ROW EXECUTE FUNCTION count_first_quota()"
)
# Folds that have remembered definitions know nothing of the quotas that there are.
FORGET = "UPDATE fold_state SET definition_version = definition_version + 1"


def upgrade() -> None:
    """Make the tables, the column and the trigger."""
    for statement in (*QUOTA_THRESHOLDS, TOUCHES, REACHED, INDEX, BILLING_OUTBOX):
        op.execute(statement)
    for statement in (COUNT_FIRST_QUOTA, TRIGGER, FORGET):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TRIGGER count_first_quota ON quotas")
    op.execute("DROP FUNCTION count_first_quota()")
    for table in ("billing_outbox", "quota_thresholds_reached", "quota_touches"):
        op.drop_table(table)
    op.drop_column("quotas", "thresholds")
