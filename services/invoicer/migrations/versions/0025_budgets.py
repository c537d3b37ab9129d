"""Budgets: what a period of a subscription is expected to cost, and what of it was reached."""

from alembic import op

revision = "0025"
down_revision = "0024"

STATEMENTS = (
    """
    CREATE TABLE budgets (
        organization_id text NOT NULL,
        mode text NOT NULL,
        subscription_id text NOT NULL,
        amount numeric NOT NULL,
        currency text NOT NULL,
        percents integer[] NOT NULL,
        check_time timestamptz NOT NULL DEFAULT '-infinity',
        create_time timestamptz NOT NULL,
        update_time timestamptz NOT NULL,
        CONSTRAINT pk_budgets PRIMARY KEY (organization_id, mode, subscription_id),
        CONSTRAINT fk_budgets_subscriptions
            FOREIGN KEY (organization_id, mode, subscription_id) REFERENCES subscriptions,
        CONSTRAINT fk_budgets_currencies FOREIGN KEY (currency) REFERENCES currencies,
        CONSTRAINT ck_budgets_amount CHECK (amount > 0),
        CONSTRAINT ck_budgets_percents CHECK (
            cardinality(percents) BETWEEN 1 AND 10 AND 1 <= ALL (percents)
            AND 1000 >= ALL (percents)
        )
    )
    """,
    "CREATE INDEX ix_budgets_check_time ON budgets (check_time)",
    # What was told stays told: a percentage of an amount once a period.
    """
    CREATE TABLE budget_thresholds (
        organization_id text NOT NULL,
        mode text NOT NULL,
        subscription_id text NOT NULL,
        period_start timestamptz NOT NULL,
        amount numeric NOT NULL,
        percent integer NOT NULL,
        spent numeric NOT NULL,
        reach_time timestamptz NOT NULL,
        CONSTRAINT pk_budget_thresholds PRIMARY KEY
            (organization_id, mode, subscription_id, period_start, amount, percent),
        CONSTRAINT fk_budget_thresholds_subscriptions
            FOREIGN KEY (organization_id, mode, subscription_id) REFERENCES subscriptions,
        CONSTRAINT ck_budget_thresholds_spent CHECK (
            amount > 0 AND percent BETWEEN 1 AND 1000 AND spent * 100 >= amount * percent
        )
    )
    """,
    "CREATE TRIGGER keep_budget_threshold BEFORE UPDATE OR DELETE ON budget_thresholds "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON budget_thresholds "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)

UNDO = (
    "DROP TABLE budget_thresholds",
    "DROP TABLE budgets",
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; budgets are forgotten."""
    for statement in UNDO:
        op.execute(statement)
