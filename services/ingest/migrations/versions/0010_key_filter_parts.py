"""What each replica noted of a closed segment's keys: together they are its key filter, and nobody
has to read the keys.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """No part is left of a segment that has its filter, or is gone."""
    op.create_table(
        "key_filter_parts",
        sa.Column("segment", sa.Integer, nullable=False),
        sa.Column("replica", sa.UUID, nullable=False),
        sa.Column("event_count", sa.BigInteger, nullable=False),
        sa.Column("key_filter", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("segment", "replica", name="pk_key_filter_parts"),
        sa.ForeignKeyConstraint(
            ["segment"],
            ["event_segments.segment"],
            name="fk_key_filter_parts_segment_event_segments",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("event_count > 0", name="ck_key_filter_parts_event_count"),
    )
    # It would not become smaller.
    op.execute("ALTER TABLE key_filter_parts ALTER key_filter SET STORAGE EXTERNAL")
