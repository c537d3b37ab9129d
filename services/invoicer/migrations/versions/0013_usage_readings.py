"""What usage was read for an invoice: which batches of events its figures hold.

Several invoices are made from one reading. Invoices from before have none.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

STATEMENTS = (
    """
    CREATE TABLE usage_readings (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        counted_before timestamptz NOT NULL,
        batch_ids bytea NOT NULL,
        CONSTRAINT pk_usage_readings PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT ck_usage_readings_batch_ids CHECK (octet_length(batch_ids) % 16 = 0)
    )
    """,
    """
    CREATE TABLE invoice_readings (
        organization_id text NOT NULL,
        mode text NOT NULL,
        invoice_id text NOT NULL,
        reading_id text NOT NULL,
        CONSTRAINT pk_invoice_readings PRIMARY KEY (organization_id, mode, invoice_id),
        CONSTRAINT fk_invoice_readings_invoices
            FOREIGN KEY (organization_id, mode, invoice_id) REFERENCES invoices
            DEFERRABLE INITIALLY DEFERRED,
        CONSTRAINT fk_invoice_readings_usage_readings
            FOREIGN KEY (organization_id, mode, reading_id) REFERENCES usage_readings
    )
    """,
    *(
        statement
        for table in ("usage_readings", "invoice_readings")
        for statement in (
            f"CREATE TRIGGER keep_reading BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
            f"CREATE TRIGGER keep_all BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        )
    ),
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the events behind lines are then known by the time of their invoice only."""
    op.execute("DROP TABLE invoice_readings, usage_readings")
