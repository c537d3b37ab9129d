"""Credit that does not fit on an invoice is carried to the next: no invoice is below 0.

A line of the kind CREDIT_CARRIED takes credit from an invoice (above 0) or brings it (below 0). An
invoice has at most one, and all of a subscription's together, void invoices aside, never bring more
credit than was carried. Invoices that were finalized before stay as they are.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

KINDS = """
ALTER TABLE invoice_lines
    DROP CONSTRAINT ck_invoice_lines_kind,
    DROP CONSTRAINT ck_invoice_lines_metric,
    ADD CONSTRAINT ck_invoice_lines_kind
        CHECK (kind IN ('BASE', 'USAGE', 'LATE_USAGE', 'CREDIT_CARRIED')),
    ADD CONSTRAINT ck_invoice_lines_metric
        CHECK ((kind IN ('BASE', 'CREDIT_CARRIED')) = (metric IS NULL))
"""

OLD_KINDS = """
ALTER TABLE invoice_lines
    DROP CONSTRAINT ck_invoice_lines_kind,
    DROP CONSTRAINT ck_invoice_lines_metric,
    ADD CONSTRAINT ck_invoice_lines_kind CHECK (kind IN ('BASE', 'USAGE', 'LATE_USAGE')),
    ADD CONSTRAINT ck_invoice_lines_metric CHECK ((kind = 'BASE') = (metric IS NULL))
"""

ONE_LINE = """
CREATE UNIQUE INDEX uq_invoice_lines_credit_carried
ON invoice_lines (invoice_id, organization_id, mode) WHERE kind = 'CREDIT_CARRIED'
"""

CHECK_CREDIT = """
CREATE FUNCTION check_carried_credit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.amount < 0 THEN
        RAISE EXCEPTION 'invoice % is below 0', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF EXISTS (
        SELECT FROM invoice_lines
        WHERE (organization_id, mode, invoice_id) = (NEW.organization_id, NEW.mode, NEW.id)
            AND kind = 'CREDIT_CARRIED'
    ) AND (
        SELECT sum(l.amount) FROM invoices i
        JOIN invoice_lines l
            ON (l.organization_id, l.mode, l.invoice_id) = (i.organization_id, i.mode, i.id)
            AND l.kind = 'CREDIT_CARRIED'
        WHERE (i.organization_id, i.mode, i.subscription_id)
            = (NEW.organization_id, NEW.mode, NEW.subscription_id) AND i.status <> 'VOID'
    ) < 0 THEN
        RAISE EXCEPTION 'invoice % brings more credit than was carried', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

TRIGGER = """
CREATE CONSTRAINT TRIGGER check_carried_credit AFTER UPDATE ON invoices
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (OLD.status = 'DRAFT' AND NEW.status <> 'DRAFT')
EXECUTE FUNCTION check_carried_credit()
"""


def upgrade() -> None:
    """Let lines carry credit, and refuse invoices below 0."""
    for statement in (KINDS, ONE_LINE, CHECK_CREDIT, TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the database refuses it while there are such lines."""
    op.execute("DROP FUNCTION check_carried_credit() CASCADE")
    op.execute("DROP INDEX uq_invoice_lines_credit_carried")
    op.execute(OLD_KINDS)
