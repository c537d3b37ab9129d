"""Limits of usage that come from plans, and which subscriptions' aggregator has to be told.

Whatever changes the phases of a subscription, the trigger notes that its limits may have changed,
in the same transaction.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

STATEMENTS = (
    """
    ALTER TABLE plan_prices
    ADD COLUMN usage_limit numeric,
    ADD COLUMN usage_limit_enforcement text,
    ADD CONSTRAINT ck_plan_prices_usage_limit
        CHECK (usage_limit >= 0 AND usage_limit < 'Infinity'),
    ADD CONSTRAINT ck_plan_prices_usage_limit_enforcement
        CHECK (usage_limit_enforcement IN ('HARD', 'SOFT')
            AND (usage_limit IS NULL) = (usage_limit_enforcement IS NULL))
    """,
    """
    CREATE TABLE limit_tells (
        organization_id text NOT NULL,
        mode text NOT NULL,
        subscription_id text NOT NULL,
        due_time timestamptz NOT NULL,
        revision bigint NOT NULL,
        CONSTRAINT pk_limit_tells PRIMARY KEY (organization_id, mode, subscription_id),
        CONSTRAINT fk_limit_tells_subscriptions
            FOREIGN KEY (organization_id, mode, subscription_id) REFERENCES subscriptions
    )
    """,
    "CREATE INDEX ix_limit_tells_due_time ON limit_tells (due_time)",
    """
    CREATE FUNCTION note_usage_limits() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        phase record := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    BEGIN
        UPDATE limit_tells SET due_time = '-infinity', revision = revision + 1
        WHERE (organization_id, mode, subscription_id)
            = (phase.organization_id, phase.mode, phase.subscription_id);
        IF NOT FOUND AND EXISTS (
            SELECT FROM plan_prices
            WHERE (organization_id, mode, plan_id, version)
                = (phase.organization_id, phase.mode, phase.plan_id, phase.plan_version)
                AND usage_limit IS NOT NULL
        ) THEN
            INSERT INTO limit_tells (organization_id, mode, subscription_id, due_time, revision)
            VALUES (phase.organization_id, phase.mode, phase.subscription_id, '-infinity', 1)
            ON CONFLICT (organization_id, mode, subscription_id)
            DO UPDATE SET due_time = '-infinity', revision = limit_tells.revision + 1;
        END IF;
        RETURN NULL;
    END
    $$
    """,
    "CREATE TRIGGER note_usage_limits AFTER INSERT OR UPDATE OR DELETE ON subscription_phases "
    "FOR EACH ROW EXECUTE FUNCTION note_usage_limits()",
)


def upgrade() -> None:
    """Make columns, table and trigger."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TRIGGER note_usage_limits ON subscription_phases")
    op.execute("DROP FUNCTION note_usage_limits()")
    op.drop_table("limit_tells")
    op.execute(
        "ALTER TABLE plan_prices DROP COLUMN usage_limit, DROP COLUMN usage_limit_enforcement"
    )
