"""Events are written to the open segment by its name: a statement that names `events` would reach a
closed segment without its trigger.
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Refuse INSERT into the partitioned table itself."""
    op.execute(
        "CREATE TRIGGER refuse_event BEFORE INSERT ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_event()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TRIGGER refuse_event ON events")
