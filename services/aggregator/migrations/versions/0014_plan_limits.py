"""Limits that come from plans, as invoicer tells them for each subscription.

They have a table of their own: an aggregator of the version before, still running beside this one,
sets quotas by what is unique in `quotas`.
"""

from alembic import op

revision = "0014"
down_revision = "0013"

PLAN_LIMITS = """
CREATE TABLE plan_limits (
    quota_id text NOT NULL,
    metric_id bigint NOT NULL,
    customer_id text NOT NULL,
    subscription_id text NOT NULL,
    limit_amount numeric NOT NULL,
    enforcement text NOT NULL,
    boundaries timestamptz[] NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT pk_plan_limits PRIMARY KEY (quota_id),
    CONSTRAINT fk_plan_limits_metric_id_metrics FOREIGN KEY (metric_id) REFERENCES metrics,
    CONSTRAINT uq_plan_limits_subscription_id_metric_id UNIQUE (subscription_id, metric_id),
    CONSTRAINT ck_plan_limits_customer_id CHECK (char_length(customer_id) BETWEEN 1 AND 255),
    CONSTRAINT ck_plan_limits_limit_amount
        CHECK (limit_amount >= 0 AND limit_amount < 'Infinity'),
    CONSTRAINT ck_plan_limits_enforcement CHECK (enforcement IN ('HARD', 'SOFT')),
    CONSTRAINT ck_plan_limits_boundaries CHECK (cardinality(boundaries) BETWEEN 2 AND 100)
)
"""
INDEX = "CREATE INDEX ix_plan_limits_metric_id_customer_id ON plan_limits (metric_id, customer_id)"
NOTE_CHANGE = (
    "CREATE TRIGGER note_quota_change AFTER INSERT OR UPDATE OR DELETE ON plan_limits "
    "FOR EACH ROW EXECUTE FUNCTION note_quota_change()"
)
# From then on folds note whose usage of the metric they change.
COUNT_FIRST = """
CREATE FUNCTION count_first_plan_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM quotas WHERE metric_id = NEW.metric_id) AND NOT EXISTS (
        SELECT FROM plan_limits WHERE metric_id = NEW.metric_id AND quota_id <> NEW.quota_id
    ) THEN
        UPDATE fold_state SET definition_version = definition_version + 1;
    END IF;
    RETURN NULL;
END
$$
"""
TRIGGER = (
    "CREATE TRIGGER count_first_plan_limit AFTER INSERT ON plan_limits "
    "FOR EACH ROW EXECUTE FUNCTION count_first_plan_limit()"
)


def upgrade() -> None:
    """Make the table and its triggers."""
    for statement in (PLAN_LIMITS, INDEX, NOTE_CHANGE, COUNT_FIRST, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("plan_limits")
    op.execute("DROP FUNCTION count_first_plan_limit()")
