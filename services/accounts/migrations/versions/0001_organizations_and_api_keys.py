"""Organizations and API keys.

What identifies a key never changes and a revoked key stays revoked: the database sees to it, so
that no later code can undo it by mistake.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEEP_API_KEYS = """
CREATE FUNCTION keep_api_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'an API key is revoked, never deleted';
    END IF;
    IF (NEW.id, NEW.organization_id, NEW.mode, NEW.prefix, NEW.key_hash, NEW.create_time)
        IS DISTINCT FROM
        (OLD.id, OLD.organization_id, OLD.mode, OLD.prefix, OLD.key_hash, OLD.create_time)
    THEN
        RAISE EXCEPTION 'what identifies an API key never changes';
    END IF;
    IF OLD.revoke_time IS NOT NULL AND NEW.revoke_time IS DISTINCT FROM OLD.revoke_time THEN
        RAISE EXCEPTION 'a revoked API key stays revoked';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Make the tables and the trigger."""
    op.create_table(
        "organizations",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
        sa.CheckConstraint("id ~ '^org_[0-9a-f]{32}$'", name="ck_organizations_id"),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_organizations_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True)),
        sa.Column("revoke_time", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name="fk_api_keys_organization_id_organizations",
        ),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
        sa.CheckConstraint("id ~ '^key_[0-9a-f]{32}$'", name="ck_api_keys_id"),
        sa.CheckConstraint("mode IN ('live', 'test')", name="ck_api_keys_mode"),
        sa.CheckConstraint("char_length(name) <= 200", name="ck_api_keys_name"),
        sa.CheckConstraint("char_length(prefix) = 12", name="ck_api_keys_prefix"),
        sa.CheckConstraint("octet_length(key_hash) = 32", name="ck_api_keys_key_hash"),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ ARRAY['track', 'read', 'admin']",
            name="ck_api_keys_scopes",
        ),
    )
    op.create_index(
        "ix_api_keys_organization_id_mode_id", "api_keys", ["organization_id", "mode", "id"]
    )
    op.execute(KEEP_API_KEYS)
    op.execute(
        "CREATE TRIGGER keep_api_keys BEFORE UPDATE OR DELETE ON api_keys "
        "FOR EACH ROW EXECUTE FUNCTION keep_api_keys()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("api_keys")
    op.execute("DROP FUNCTION keep_api_keys()")
    op.drop_table("organizations")
