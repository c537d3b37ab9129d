"""Invitations: links that make somebody a member, once."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TIME = sa.DateTime(timezone=True)
KEEP_INVITATIONS = """
CREATE FUNCTION keep_invitations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.accept_time IS NOT NULL OR OLD.revoke_time IS NOT NULL THEN
        RAISE EXCEPTION 'what was accepted or revoked stays so';
    END IF;
    IF (NEW.id, NEW.organization_id, NEW.email, NEW.role, NEW.token_hash, NEW.create_time,
        NEW.expire_time)
        IS DISTINCT FROM
        (OLD.id, OLD.organization_id, OLD.email, OLD.role, OLD.token_hash, OLD.create_time,
        OLD.expire_time)
    THEN
        RAISE EXCEPTION 'an invitation is for whom it was made';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Make the table and its trigger."""
    op.create_table(
        "invitations",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("invited_by", sa.Text, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("expire_time", TIME, nullable=False),
        sa.Column("accept_time", TIME),
        sa.Column("revoke_time", TIME),
        sa.Column("member_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name="fk_invitations_organization_id_organizations",
        ),
        sa.ForeignKeyConstraint(
            ["member_id"], ["members.id"], name="fk_invitations_member_id_members"
        ),
        sa.UniqueConstraint("token_hash", name="uq_invitations_token_hash"),
        sa.CheckConstraint("id ~ '^ivt_[0-9a-f]{32}$'", name="ck_invitations_id"),
        sa.CheckConstraint(
            "email = lower(email) AND char_length(email) <= 254 "
            "AND email ~ '^[^[:space:]@]+@[^[:space:]@]+$'",
            name="ck_invitations_email",
        ),
        sa.CheckConstraint(
            "role IN ('OWNER', 'ADMIN', 'DEVELOPER', 'VIEWER')", name="ck_invitations_role"
        ),
        sa.CheckConstraint("octet_length(token_hash) = 32", name="ck_invitations_token_hash"),
        sa.CheckConstraint("expire_time > create_time", name="ck_invitations_expire_time"),
        sa.CheckConstraint(
            "(accept_time IS NULL) = (member_id IS NULL) "
            "AND (accept_time IS NULL OR revoke_time IS NULL)",
            name="ck_invitations_outcome",
        ),
    )
    op.create_index("ix_invitations_organization_id_id", "invitations", ["organization_id", "id"])
    # Of one address one invitation is open at a time: who revokes it has revoked all.
    op.create_index(
        "uq_invitations_open",
        "invitations",
        ["organization_id", "email"],
        unique=True,
        postgresql_where=sa.text("accept_time IS NULL AND revoke_time IS NULL"),
    )
    op.execute(KEEP_INVITATIONS)
    op.execute(
        "CREATE TRIGGER keep_invitations BEFORE UPDATE ON invitations "
        "FOR EACH ROW EXECUTE FUNCTION keep_invitations()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("invitations")
    op.execute("DROP FUNCTION keep_invitations()")
