"""Payments go by customers' test clocks; pauses, which are for the provider, do not.

What nobody could tell is asked for again by the real time, so when that is stands in a column of
its own, beside what is due by the customer's time. An attempt also notes when it really began: a
provider is asked for what was made since then.
"""

from alembic import op

revision = "0021"
down_revision = "0020"

STATEMENTS = (
    "ALTER TABLE collections ADD COLUMN pause_until timestamptz NOT NULL DEFAULT '-infinity'",
    # Live ones are found by the real time, those of test mode by their customers'.
    "DROP INDEX ix_collections_next_attempt_time",
    "CREATE INDEX ix_collections_next_attempt_time ON collections (mode, next_attempt_time)",
    # NULL: an attempt from before there were two times.
    "ALTER TABLE payment_attempts ADD COLUMN real_start_time timestamptz",
)

UNDO = (
    "ALTER TABLE payment_attempts DROP COLUMN real_start_time",
    "DROP INDEX ix_collections_next_attempt_time",
    "CREATE INDEX ix_collections_next_attempt_time ON collections (next_attempt_time)",
    "ALTER TABLE collections DROP COLUMN pause_until",
)


def upgrade() -> None:
    """Make the columns."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    for statement in UNDO:
        op.execute(statement)
