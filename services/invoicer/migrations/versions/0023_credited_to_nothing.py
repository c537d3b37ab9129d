"""An invoice that credit notes leave nothing due of is paid, in the transaction that credits it."""

from alembic import op

revision = "0023"
down_revision = "0022"

# As it is since 0010, but for how the credit note goes with the invoice's state.
CHECK_NOTE = """
CREATE OR REPLACE FUNCTION check_credit_note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of invoices;
    line_total numeric;
    line_scale integer;
    line_count integer;
BEGIN
    SELECT * INTO of FROM invoices
    WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.invoice_id);
    IF of.status IN ('DRAFT', 'VOID') OR of.customer_id <> NEW.customer_id
        OR of.currency <> NEW.currency
        OR {unfit}
    THEN
        RAISE EXCEPTION 'credit note % does not fit its invoice', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT coalesce(sum(amount), 0), coalesce(max(min_scale(amount)), 0), count(*)
    INTO line_total, line_scale, line_count FROM credit_note_lines
    WHERE (organization_id, mode, credit_note_id) = (NEW.organization_id, NEW.mode, NEW.id);
    IF line_total <> NEW.amount OR line_count <> NEW.lines_count
        OR line_scale > (SELECT minor_digits FROM currencies WHERE code = NEW.currency)
    THEN
        RAISE EXCEPTION 'credit note % amounts to %, its lines to %', NEW.id, NEW.amount, line_total
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF of.amount < (
        SELECT sum(amount) FROM credit_notes
        WHERE (organization_id, mode, invoice_id)
            = (NEW.organization_id, NEW.mode, NEW.invoice_id)
    ) OR EXISTS (
        SELECT FROM (
            SELECT position, sum(amount) AS credited FROM credit_note_lines
            WHERE (organization_id, mode, invoice_id)
                = (NEW.organization_id, NEW.mode, NEW.invoice_id)
            GROUP BY position
        ) AS c
        JOIN invoice_lines l ON (l.organization_id, l.mode, l.invoice_id, l.position)
            = (NEW.organization_id, NEW.mode, NEW.invoice_id, c.position)
        WHERE c.credited NOT BETWEEN least(l.amount, 0) AND greatest(l.amount, 0)
    ) THEN
        RAISE EXCEPTION 'more of invoice % is credited than there is', NEW.invoice_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.sequence > (
        SELECT newest_sequence FROM invoice_counters
        WHERE (organization_id, mode, series) = (NEW.organization_id, NEW.mode, NEW.series)
    ) IS NOT FALSE THEN
        RAISE EXCEPTION 'credit note % has a number that was not given out', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""
BEFORE = "(of.status = 'PAID') <> (NEW.refund_reference IS NOT NULL)"
# At the commit: a refund is that of a paid invoice, and one that something is due of is open.
NOW = """(NEW.refund_reference IS NOT NULL AND of.status <> 'PAID')
        OR (NEW.refund_reference IS NULL
            AND (of.status = 'PAID') <> (amount_due(of) = 0))"""

AMOUNT_DUE = """
CREATE FUNCTION amount_due(of invoices) RETURNS numeric LANGUAGE sql STABLE AS $$
SELECT of.amount + (
    SELECT coalesce(sum(amount), 0) FROM credit_entries
    WHERE (organization_id, mode, invoice_id) = (of.organization_id, of.mode, of.id)
) - (
    SELECT coalesce(sum(amount), 0) FROM credit_notes
    WHERE (organization_id, mode, invoice_id) = (of.organization_id, of.mode, of.id)
        AND refund_reference IS NULL
)
$$
"""

# What an invoice is when it is credited, before the credit pays it.
CHECK_STATE = """
CREATE FUNCTION check_credited_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (
        SELECT status FROM invoices
        WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.invoice_id)
    ) = 'PAID' THEN
        RAISE EXCEPTION 'credit note % of a paid invoice tells no refund', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""
STATE_TRIGGER = (
    "CREATE TRIGGER check_credited_state BEFORE INSERT ON credit_notes "
    "FOR EACH ROW WHEN (NEW.refund_reference IS NULL) EXECUTE FUNCTION check_credited_state()"
)

# Of those that there are nobody is told; who listens has heard of the credit notes.
PAY = """
UPDATE invoices i SET status = 'PAID', paid_time = credited.newest_time
FROM (
    SELECT organization_id, mode, invoice_id, max(create_time) AS newest_time FROM credit_notes
    WHERE refund_reference IS NULL GROUP BY organization_id, mode, invoice_id
) AS credited
WHERE (i.organization_id, i.mode, i.id)
        = (credited.organization_id, credited.mode, credited.invoice_id)
    AND i.status IN ('PENDING', 'FAILED') AND amount_due(i) = 0
"""


def upgrade() -> None:
    """Pay what nothing is due of, and keep it so."""
    for statement in (AMOUNT_DUE, PAY, CHECK_NOTE.format(unfit=NOW), CHECK_STATE, STATE_TRIGGER):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; what was paid by credit stays so."""
    op.execute("DROP FUNCTION check_credited_state() CASCADE")
    op.execute(CHECK_NOTE.format(unfit=BEFORE))
    op.execute("DROP FUNCTION amount_due(invoices)")
