"""Test clocks, as invoicer tells them: they are handed out with the keys of test mode."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "test_clocks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("organization_id", sa.Text, sa.ForeignKey("organizations.id"), nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("clock_time", sa.DateTime(timezone=True)),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id ~ '^clk_[0-9a-f]{32}$'", name="ck_test_clocks_id"),
        sa.CheckConstraint("char_length(customer_id) <= 255", name="ck_test_clocks_customer_id"),
    )
    op.create_index(
        "ix_test_clocks_running",
        "test_clocks",
        ["organization_id"],
        postgresql_where=sa.text("clock_time IS NOT NULL"),
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("test_clocks")
