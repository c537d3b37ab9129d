"""When an API key was used last, and which key has taken its place."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("api_keys", sa.Column("use_time", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("successor_id", sa.Text))
    op.create_foreign_key(
        "fk_api_keys_successor_id_api_keys", "api_keys", "api_keys", ["successor_id"], ["id"]
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_constraint("fk_api_keys_successor_id_api_keys", "api_keys")
    op.drop_column("api_keys", "successor_id")
    op.drop_column("api_keys", "use_time")
