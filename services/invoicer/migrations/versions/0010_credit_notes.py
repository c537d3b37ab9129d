"""Credit notes: numbered in a series of their own, never changed, never more than the invoice.

All credit notes of an invoice together credit at most what it and each of its lines amount to. One
that has some is not declared void any more. Numbers are without a gap as those of invoices are.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

TABLES = (
    """
    CREATE TABLE credit_notes (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        invoice_id text NOT NULL,
        customer_id text NOT NULL,
        currency text NOT NULL,
        amount numeric NOT NULL,
        reason text NOT NULL,
        refund_reference text,
        lines_count integer NOT NULL,
        series text NOT NULL DEFAULT 'CN',
        sequence bigint NOT NULL,
        number text NOT NULL,
        idempotency_key text,
        content_digest bytea NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_credit_notes PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT uq_credit_notes_sequence UNIQUE (series, organization_id, mode, sequence),
        CONSTRAINT uq_credit_notes_idempotency_key
            UNIQUE (idempotency_key, organization_id, mode),
        CONSTRAINT uq_credit_notes_invoice_id UNIQUE (organization_id, mode, id, invoice_id),
        CONSTRAINT fk_credit_notes_invoices
            FOREIGN KEY (organization_id, mode, invoice_id) REFERENCES invoices,
        CONSTRAINT fk_credit_notes_customers
            FOREIGN KEY (organization_id, mode, customer_id) REFERENCES customers,
        CONSTRAINT fk_credit_notes_currencies FOREIGN KEY (currency) REFERENCES currencies,
        CONSTRAINT ck_credit_notes_amount CHECK (amount > 0),
        CONSTRAINT ck_credit_notes_series CHECK (series = 'CN'),
        CONSTRAINT ck_credit_notes_refund_reference CHECK (refund_reference <> ''),
        CONSTRAINT ck_credit_notes_idempotency_key CHECK (idempotency_key ~ '^[ -~]{1,255}$'),
        CONSTRAINT ck_credit_notes_content_digest CHECK (octet_length(content_digest) = 32),
        CONSTRAINT ck_credit_notes_number
            CHECK (number = series || '-' || CASE WHEN sequence < 1000000
                THEN lpad(sequence::text, 6, '0') ELSE sequence::text END)
    )
    """,
    """
    CREATE INDEX ix_credit_notes_invoice_id ON credit_notes (invoice_id, organization_id, mode, id)
    """,
    """
    CREATE INDEX ix_credit_notes_customer_id
    ON credit_notes (customer_id, organization_id, mode, id)
    """,
    """
    CREATE TABLE credit_note_lines (
        organization_id text NOT NULL,
        mode text NOT NULL,
        credit_note_id text NOT NULL,
        invoice_id text NOT NULL,
        position integer NOT NULL,
        description text NOT NULL,
        amount numeric NOT NULL,
        CONSTRAINT pk_credit_note_lines
            PRIMARY KEY (organization_id, mode, credit_note_id, position),
        CONSTRAINT fk_credit_note_lines_credit_notes
            FOREIGN KEY (organization_id, mode, credit_note_id, invoice_id)
            REFERENCES credit_notes (organization_id, mode, id, invoice_id),
        CONSTRAINT fk_credit_note_lines_invoice_lines
            FOREIGN KEY (organization_id, mode, invoice_id, position) REFERENCES invoice_lines
    )
    """,
    """
    CREATE INDEX ix_credit_note_lines_invoice_id
    ON credit_note_lines (invoice_id, organization_id, mode, position)
    """,
)

# Both are checked at the commit. Whoever writes a credit note has locked the invoice, so that no
# other one of it is written meanwhile.
CHECK_NOTE = """
CREATE FUNCTION check_credit_note() RETURNS trigger LANGUAGE plpgsql AS $$
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
        OR (of.status = 'PAID') <> (NEW.refund_reference IS NOT NULL)
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

CHECK_LINE = """
CREATE FUNCTION check_credit_note_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (
        SELECT count(*) FROM credit_note_lines WHERE (organization_id, mode, credit_note_id)
            = (NEW.organization_id, NEW.mode, NEW.credit_note_id)
    ) <> (
        SELECT lines_count FROM credit_notes
        WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.credit_note_id)
    ) THEN
        RAISE EXCEPTION 'a credit note has exactly the lines it was made with'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

KEEP_CREDITED = """
CREATE FUNCTION keep_credited_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM credit_notes WHERE (organization_id, mode, invoice_id)
            = (NEW.organization_id, NEW.mode, NEW.id)
    ) THEN
        RAISE EXCEPTION 'an invoice that has credit notes is never void'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

CHECK_COUNTER = """
CREATE OR REPLACE FUNCTION check_invoice_counter() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    previous bigint := 0;
    used bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        previous := OLD.newest_sequence;
    END IF;
    SELECT (
        SELECT count(*) FROM invoices
        WHERE (organization_id, mode, series) = (NEW.organization_id, NEW.mode, NEW.series)
            AND sequence > previous AND sequence <= NEW.newest_sequence
    ) + {credit_notes} INTO used;
    IF used <> NEW.newest_sequence - previous THEN
        RAISE EXCEPTION 'invoice numbers % to % were taken and not all used',
            previous + 1, NEW.newest_sequence
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""
WITH_CREDIT_NOTES = """(
        SELECT count(*) FROM credit_notes
        WHERE (organization_id, mode, series) = (NEW.organization_id, NEW.mode, NEW.series)
            AND sequence > previous AND sequence <= NEW.newest_sequence
    )"""

TRIGGERS = (
    "CREATE CONSTRAINT TRIGGER check_credit_note AFTER INSERT ON credit_notes "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit_note()",
    "CREATE CONSTRAINT TRIGGER check_credit_note_line AFTER INSERT ON credit_note_lines "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit_note_line()",
    "CREATE TRIGGER keep_credit_note BEFORE UPDATE OR DELETE ON credit_notes "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_credit_note_line BEFORE UPDATE OR DELETE ON credit_note_lines "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_credited_invoice BEFORE UPDATE ON invoices "
    "FOR EACH ROW WHEN (NEW.status = 'VOID') EXECUTE FUNCTION keep_credited_invoice()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON credit_notes "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON credit_note_lines "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)


def upgrade() -> None:
    """Add what credit notes need."""
    counter = CHECK_COUNTER.format(credit_notes=WITH_CREDIT_NOTES)
    for statement in (*TABLES, CHECK_NOTE, CHECK_LINE, KEEP_CREDITED, counter, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; credit notes are lost, their numbers stay taken."""
    op.execute(CHECK_COUNTER.format(credit_notes="0"))
    for name in ("check_credit_note", "check_credit_note_line", "keep_credited_invoice"):
        op.execute(f"DROP FUNCTION {name}() CASCADE")
    op.execute("DROP TABLE credit_note_lines, credit_notes")
