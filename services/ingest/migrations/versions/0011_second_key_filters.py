"""A second filter of a closed segment's keys: what passes one by chance seldom passes both."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Segments that are closed already get theirs from whoever looks after segments."""
    op.add_column("event_segments", sa.Column("second_key_filter", sa.LargeBinary))
    op.create_check_constraint(
        "ck_event_segments_second_filter",
        "event_segments",
        "second_key_filter IS NULL OR key_filter IS NOT NULL",
    )
    # It would not become smaller.
    op.execute("ALTER TABLE event_segments ALTER second_key_filter SET STORAGE EXTERNAL")
