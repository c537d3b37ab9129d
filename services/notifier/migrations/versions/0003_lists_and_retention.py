"""Deliveries are listed by time, over all endpoints too; events and inbox are pruned by time."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add `take_time` and the indexes."""
    op.add_column(
        "webhook_events", sa.Column("take_time", TIME, nullable=False, server_default=sa.func.now())
    )
    op.create_index("ix_webhook_events_take_time", "webhook_events", ["take_time"])
    op.create_index("ix_inbox_receive_time", "inbox", ["receive_time"])
    op.drop_index("ix_deliveries_endpoint_id_id", "deliveries")
    op.create_index("ix_deliveries_of_endpoint", "deliveries", ["endpoint_id", "create_time", "id"])
    op.create_index(
        "ix_deliveries_of_tenant", "deliveries", ["organization_id", "mode", "create_time", "id"]
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_index("ix_deliveries_of_tenant", "deliveries")
    op.drop_index("ix_deliveries_of_endpoint", "deliveries")
    op.create_index("ix_deliveries_endpoint_id_id", "deliveries", ["endpoint_id", "id"])
    op.drop_index("ix_inbox_receive_time", "inbox")
    op.drop_index("ix_webhook_events_take_time", "webhook_events")
    op.drop_column("webhook_events", "take_time")
