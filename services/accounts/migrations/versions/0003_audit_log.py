"""The audit log: what was done to an organization, and by whom. Rows are added, and that is all."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TIME = sa.DateTime(timezone=True)

KEEP_AUDIT_LOG = """
CREATE FUNCTION keep_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is only added to';
END
$$
"""


def upgrade() -> None:
    """Make the table and its triggers."""
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("record_time", TIME, nullable=False, server_default=sa.func.now()),
        sa.Column("details", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name="fk_audit_log_organization_id_organizations",
        ),
        sa.CheckConstraint("id ~ '^aud_[0-9a-f]{32}$'", name="ck_audit_log_id"),
        sa.CheckConstraint("mode IN ('live', 'test')", name="ck_audit_log_mode"),
        sa.CheckConstraint("action ~ '^[a-z_]{1,40}[.][a-z_]{1,40}$'", name="ck_audit_log_action"),
        sa.CheckConstraint(
            "greatest(char_length(target_id), char_length(key_id), char_length(request_id)) <= 255",
            name="ck_audit_log_ids",
        ),
        sa.CheckConstraint("json_typeof(details) = 'object'", name="ck_audit_log_details"),
    )
    op.create_index(
        "ix_audit_log_of_tenant", "audit_log", ["organization_id", "mode", "time", "id"]
    )
    op.create_index(
        "ix_audit_log_of_target",
        "audit_log",
        ["organization_id", "mode", "target_id", "time", "id"],
    )
    op.execute(KEEP_AUDIT_LOG)
    op.execute(
        "CREATE TRIGGER keep_audit_log BEFORE UPDATE OR DELETE ON audit_log "
        "FOR EACH ROW EXECUTE FUNCTION keep_audit_log()"
    )
    op.execute(
        "CREATE TRIGGER keep_audit_log_whole BEFORE TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_log()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION keep_audit_log()")
