"""Events may be kept for a hundred years: for good."""

from alembic import op

revision = "0013"
down_revision = "0012"

NAME = "ck_organizations_event_retention_days"


def upgrade() -> None:
    """Let them."""
    op.drop_constraint(NAME, "organizations")
    op.create_check_constraint(NAME, "organizations", "event_retention_days BETWEEN 90 AND 36500")


def downgrade() -> None:
    """Undo upgrade; the database refuses it while an organization keeps events for longer."""
    op.drop_constraint(NAME, "organizations")
    op.create_check_constraint(NAME, "organizations", "event_retention_days BETWEEN 90 AND 3650")
