"""Who issues invoices: versions that never change, so that an invoice keeps the one of its time."""

from alembic import op

revision = "0014"
down_revision = "0011"

STATEMENTS = (
    """
    CREATE TABLE issuers (
        organization_id text NOT NULL,
        mode text NOT NULL,
        version integer NOT NULL,
        name text NOT NULL,
        address text NOT NULL,
        tax_id text NOT NULL,
        email text NOT NULL,
        footer text NOT NULL,
        logo bytea NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_issuers PRIMARY KEY (organization_id, mode, version),
        CONSTRAINT ck_issuers_organization_id CHECK (organization_id ~ '^org_[0-9a-f]{32}$'),
        CONSTRAINT ck_issuers_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_issuers_version CHECK (version >= 1)
    )
    """,
    "CREATE TRIGGER keep_issuer BEFORE UPDATE OR DELETE ON issuers "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON issuers "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)


def upgrade() -> None:
    """Make the table."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TABLE issuers")
