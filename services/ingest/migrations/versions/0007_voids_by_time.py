"""Voids are found by when their events happened: what was accepted is counted hour by hour."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the index."""
    op.execute("CREATE INDEX ix_event_voids_event_time ON event_voids (event_time)")


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP INDEX ix_event_voids_event_time")
