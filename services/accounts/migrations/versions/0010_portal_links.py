"""Links to the customer portal."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

TIME = sa.DateTime(timezone=True)
KEEP_PORTAL_LINKS = """
CREATE FUNCTION keep_portal_links() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.revoke_time IS NOT NULL THEN
        RAISE EXCEPTION 'a revoked link stays revoked';
    END IF;
    IF (to_jsonb(NEW) - 'revoke_time') IS DISTINCT FROM (to_jsonb(OLD) - 'revoke_time') THEN
        RAISE EXCEPTION 'a link is for whom and as long as it was made';
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Make the table and its trigger."""
    op.create_table(
        "portal_links",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("expire_time", TIME, nullable=False),
        sa.Column("revoke_time", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_portal_links"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name="fk_portal_links_organization_id_organizations",
        ),
        sa.UniqueConstraint("token_hash", name="uq_portal_links_token_hash"),
        sa.CheckConstraint("id ~ '^ptl_[0-9a-f]{32}$'", name="ck_portal_links_id"),
        sa.CheckConstraint("mode IN ('live', 'test')", name="ck_portal_links_mode"),
        sa.CheckConstraint(
            "char_length(customer_id) BETWEEN 1 AND 255", name="ck_portal_links_customer_id"
        ),
        sa.CheckConstraint("octet_length(token_hash) = 32", name="ck_portal_links_token_hash"),
        sa.CheckConstraint(
            "expire_time > create_time AND expire_time <= create_time + interval '720 hours'",
            name="ck_portal_links_expire_time",
        ),
    )
    op.create_index(
        "ix_portal_links_of_customer",
        "portal_links",
        ["organization_id", "mode", "customer_id", "id"],
    )
    op.create_index("ix_portal_links_of_tenant", "portal_links", ["organization_id", "mode", "id"])
    op.create_index(
        "ix_portal_links_by_end", "portal_links", ["organization_id", "mode", "expire_time"]
    )
    op.execute(KEEP_PORTAL_LINKS)
    op.execute(
        "CREATE TRIGGER keep_portal_links BEFORE UPDATE ON portal_links "
        "FOR EACH ROW EXECUTE FUNCTION keep_portal_links()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.drop_table("portal_links")
    op.execute("DROP FUNCTION keep_portal_links()")
