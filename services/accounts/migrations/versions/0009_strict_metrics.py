"""Whether an organization's events must be of metrics that somebody has defined.

The column keeps its default in the database: an accounts of the version before, still running
beside this one, makes organizations without naming it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column; nobody is strict yet."""
    column = sa.Column(
        "strict_metrics", sa.Boolean, nullable=False, server_default=sa.text("false")
    )
    op.add_column("organizations", column)


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_column("organizations", "strict_metrics")
