"""Periods of a week, a quarter and a year beside those of a month."""

from alembic import op

revision = "0005"
down_revision = "0004"

ALL = "'WEEKLY', 'MONTHLY', 'QUARTERLY', 'YEARLY'"


def _allow(names: str) -> None:
    for table in ("plan_versions", "subscriptions"):
        constraint = f"ck_{table}_billing_period"
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {constraint}, "
            f"ADD CONSTRAINT {constraint} CHECK (billing_period IN ({names}))"
        )


def upgrade() -> None:
    """Allow them."""
    _allow(ALL)


def downgrade() -> None:
    """Undo upgrade."""
    _allow("'MONTHLY'")
