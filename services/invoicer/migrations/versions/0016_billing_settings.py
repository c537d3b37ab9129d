"""What organizations decide about their invoices; what was done, on its way to the audit log."""

from alembic import op

revision = "0016"
down_revision = "0015"

STATEMENTS = (
    """
    CREATE TABLE billing_settings (
        organization_id text NOT NULL,
        mode text NOT NULL,
        grace interval,
        update_time timestamptz NOT NULL,
        CONSTRAINT pk_billing_settings PRIMARY KEY (organization_id, mode),
        CONSTRAINT ck_billing_settings_organization_id
            CHECK (organization_id ~ '^org_[0-9a-f]{32}$'),
        CONSTRAINT ck_billing_settings_mode CHECK (mode IN ('live', 'test')),
        CONSTRAINT ck_billing_settings_grace
            CHECK (grace BETWEEN interval '0' AND interval '72 hours')
    )
    """,
    "CREATE INDEX ix_billing_settings_grace ON billing_settings (grace)",
    """
    CREATE TABLE audit_outbox (
        message_id text NOT NULL CONSTRAINT pk_audit_outbox PRIMARY KEY,
        subject text NOT NULL,
        payload bytea NOT NULL,
        create_time timestamptz NOT NULL DEFAULT now()
    )
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TABLE audit_outbox")
    op.execute("DROP TABLE billing_settings")
