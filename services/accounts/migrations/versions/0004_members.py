"""Members, the links and sessions that they sign in with, and how often signing in failed.

A member belongs to one organization; whoever is in several is a member of each, with a password for
each. Members are removed, never deleted: the audit log names them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TIME = sa.DateTime(timezone=True)
ROLES = "'OWNER', 'ADMIN', 'DEVELOPER', 'VIEWER'"
EMAIL = (
    "email = lower(email) AND char_length(email) <= 254 "
    "AND email ~ '^[^[:space:]@]+@[^[:space:]@]+$'"
)
# Only one of two owners who leave at the same time may go: whoever comes second waits for the
# organization's row, and then sees that the other has left.
KEEP_MEMBERS = """
CREATE FUNCTION keep_members() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'a member is removed, never deleted';
    END IF;
    IF (NEW.id, NEW.organization_id, NEW.create_time)
        IS DISTINCT FROM (OLD.id, OLD.organization_id, OLD.create_time)
    THEN
        RAISE EXCEPTION 'what identifies a member never changes';
    END IF;
    IF OLD.remove_time IS NOT NULL AND NEW IS DISTINCT FROM OLD THEN
        RAISE EXCEPTION 'a removed member stays as they were';
    END IF;
    IF OLD.role = 'OWNER' AND (NEW.role <> 'OWNER' OR NEW.remove_time IS NOT NULL) THEN
        PERFORM 1 FROM organizations WHERE id = OLD.organization_id FOR NO KEY UPDATE;
        IF NOT EXISTS (
            SELECT 1 FROM members
            WHERE organization_id = OLD.organization_id AND role = 'OWNER'
                AND remove_time IS NULL AND id <> OLD.id
        ) THEN
            RAISE EXCEPTION 'the last owner of an organization stays';
        END IF;
    END IF;
    RETURN NEW;
END
$$
"""
KEEP_ENDED = """
CREATE FUNCTION keep_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.member_id, NEW.token_hash, NEW.create_time, NEW.expire_time)
        IS DISTINCT FROM
        (OLD.id, OLD.member_id, OLD.token_hash, OLD.create_time, OLD.expire_time)
    THEN
        RAISE EXCEPTION 'what identifies a session or a link never changes';
    END IF;
    IF OLD.end_time IS NOT NULL AND NEW.end_time IS DISTINCT FROM OLD.end_time THEN
        RAISE EXCEPTION 'what has ended stays ended';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Make the tables and their triggers."""
    op.create_table(
        "members",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("sign_in_time", TIME),
        sa.Column("remove_time", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_members"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name="fk_members_organization_id_organizations",
        ),
        sa.CheckConstraint("id ~ '^mem_[0-9a-f]{32}$'", name="ck_members_id"),
        sa.CheckConstraint(EMAIL, name="ck_members_email"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_members_name"),
        sa.CheckConstraint(f"role IN ({ROLES})", name="ck_members_role"),
        sa.CheckConstraint("password_hash LIKE '$argon2id$%'", name="ck_members_password_hash"),
    )
    op.create_index(
        "uq_members_email",
        "members",
        ["organization_id", "email"],
        unique=True,
        postgresql_where=sa.text("remove_time IS NULL"),
    )
    op.create_index(
        "ix_members_of_email", "members", ["email"], postgresql_where=sa.text("remove_time IS NULL")
    )
    _sign_in("sign_in_links", "lnk")
    _sign_in(
        "sessions",
        "ses",
        sa.Column("use_time", TIME, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("user_agent", sa.Text, nullable=False),
        sa.CheckConstraint(
            "char_length(address) <= 64 AND char_length(user_agent) <= 400", name="ck_sessions_seen"
        ),
    )
    op.create_table(
        "sign_in_failures",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("last_time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_sign_in_failures"),
        sa.CheckConstraint("char_length(subject) <= 100", name="ck_sign_in_failures_subject"),
        sa.CheckConstraint("failures > 0", name="ck_sign_in_failures_failures"),
    )
    op.create_index("ix_sign_in_failures_last_time", "sign_in_failures", ["last_time"])
    op.execute(KEEP_MEMBERS)
    op.execute(KEEP_ENDED)
    for table in ("sign_in_links", "sessions"):
        op.execute(
            f"CREATE TRIGGER keep_ended BEFORE UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION keep_ended()"
        )
    op.execute(
        "CREATE TRIGGER keep_members BEFORE UPDATE OR DELETE ON members "
        "FOR EACH ROW EXECUTE FUNCTION keep_members()"
    )
    op.execute(
        "CREATE TRIGGER keep_members_whole BEFORE TRUNCATE ON members "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_members()"
    )


def _sign_in(table: str, prefix: str, *more: sa.Column[object] | sa.CheckConstraint) -> None:
    """A table of what a member signs in with: it works from its start to its end, once ended never
    again.
    """
    op.create_table(
        table,
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("member_id", sa.Text, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("expire_time", TIME, nullable=False),
        sa.Column("end_time", TIME),
        *more,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["member_id"], ["members.id"], name=f"fk_{table}_member_id_members"
        ),
        sa.UniqueConstraint("token_hash", name=f"uq_{table}_token_hash"),
        sa.CheckConstraint(f"id ~ '^{prefix}_[0-9a-f]{{32}}$'", name=f"ck_{table}_id"),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=f"ck_{table}_token_hash"),
        sa.CheckConstraint("expire_time > create_time", name=f"ck_{table}_expire_time"),
    )
    op.create_index(f"ix_{table}_member_id_id", table, ["member_id", "id"])


def downgrade() -> None:
    """Undo upgrade."""
    for table in ("sign_in_failures", "sessions", "sign_in_links", "members"):
        op.drop_table(table)
    op.execute("DROP FUNCTION keep_ended()")
    op.execute("DROP FUNCTION keep_members()")
