"""Limits of usage are told by customers' test clocks; leases and pauses are real.

So when a subscription is told of next stands apart from until when it is left alone.
"""

from alembic import op

revision = "0022"
down_revision = "0021"

_NOTE_USAGE_LIMITS = """
    CREATE OR REPLACE FUNCTION note_usage_limits() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        phase record := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    BEGIN
        UPDATE limit_tells SET {now}, revision = revision + 1
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
            DO UPDATE SET {now}, revision = limit_tells.revision + 1;
        END IF;
        RETURN NULL;
    END
    $$
    """


STATEMENTS = (
    "ALTER TABLE limit_tells ADD COLUMN pause_until timestamptz NOT NULL DEFAULT '-infinity'",
    # Live ones are found by the real time, those of test mode by their customers'.
    "DROP INDEX ix_limit_tells_due_time",
    "CREATE INDEX ix_limit_tells_due_time ON limit_tells (mode, due_time)",
    _NOTE_USAGE_LIMITS.format(now="due_time = '-infinity', pause_until = '-infinity'"),
)

UNDO = (
    _NOTE_USAGE_LIMITS.format(now="due_time = '-infinity'"),
    "DROP INDEX ix_limit_tells_due_time",
    "CREATE INDEX ix_limit_tells_due_time ON limit_tells (due_time)",
    "ALTER TABLE limit_tells DROP COLUMN pause_until",
)


def upgrade() -> None:
    """Make the column."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    for statement in UNDO:
        op.execute(statement)
