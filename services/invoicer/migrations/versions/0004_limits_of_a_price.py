"""What a plan's price for a metric costs at least and at most."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; prices that exist have no limits."""
    op.execute(
        """
        ALTER TABLE plan_prices
        ADD COLUMN minimum numeric,
        ADD COLUMN maximum numeric,
        ADD CONSTRAINT ck_plan_prices_minimum CHECK (minimum >= 0),
        ADD CONSTRAINT ck_plan_prices_maximum
            CHECK (maximum >= 0 AND (minimum IS NULL OR minimum <= maximum))
        """
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("ALTER TABLE plan_prices DROP COLUMN minimum, DROP COLUMN maximum")
