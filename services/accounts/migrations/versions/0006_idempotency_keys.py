"""Answers under idempotency keys, which are kept with what was done."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

KEEP_ANSWERS = """
CREATE FUNCTION keep_idempotency_answers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an answer under an idempotency key never changes';
END
$$
"""


def upgrade() -> None:
    """Make the table and its trigger."""
    op.create_table(
        "idempotency_keys",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("request_hash", sa.LargeBinary, nullable=False),
        sa.Column("actor_id", sa.Text, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "mode", "key_hash", name="pk_idempotency_keys"),
        sa.CheckConstraint("mode IN ('live', 'test')", name="ck_idempotency_keys_mode"),
        sa.CheckConstraint(
            "octet_length(key_hash) = 32 AND octet_length(request_hash) = 32",
            name="ck_idempotency_keys_hashes",
        ),
        sa.CheckConstraint(
            "octet_length(answer) BETWEEN 28 AND 16778240", name="ck_idempotency_keys_answer"
        ),
    )
    op.create_index("ix_idempotency_keys_create_time", "idempotency_keys", ["create_time"])
    op.execute(KEEP_ANSWERS)
    op.execute(
        "CREATE TRIGGER keep_idempotency_answers BEFORE UPDATE ON idempotency_keys "
        "FOR EACH ROW EXECUTE FUNCTION keep_idempotency_answers()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("idempotency_keys")
    op.execute("DROP FUNCTION keep_idempotency_answers()")
