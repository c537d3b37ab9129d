"""What an organization decides for itself: how late events may come, how long they are kept.

The columns keep their defaults in the database: an accounts of the version before, still running
beside this one, makes organizations without naming them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

CHECKS = {
    "event_past_days": "event_past_days BETWEEN 35 AND 400",
    "event_retention_days": "event_retention_days BETWEEN 90 AND 3650",
    "event_kept_days": "event_retention_days >= event_past_days",
}


def upgrade() -> None:
    """Add the columns; an organization that is there already gets the defaults."""
    for name, days in (("event_past_days", "35"), ("event_retention_days", "400")):
        column = sa.Column(name, sa.Integer, nullable=False, server_default=days)
        op.add_column("organizations", column)
    for name, condition in CHECKS.items():
        op.create_check_constraint(f"ck_organizations_{name}", "organizations", condition)


def downgrade() -> None:
    """Undo upgrade."""
    for name in CHECKS:
        op.drop_constraint(f"ck_organizations_{name}", "organizations")
    op.drop_column("organizations", "event_retention_days")
    op.drop_column("organizations", "event_past_days")
