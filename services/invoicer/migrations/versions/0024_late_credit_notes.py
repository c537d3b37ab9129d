"""Credit notes of periods that cost less after all, and who wants them.

What such a one changes of what was billed is kept like the lines of an invoice, and is hashed with
it; with it goes what usage was read, and which invoice was written at the same time.
"""

from alembic import op

revision = "0024"
down_revision = "0023"

TABLES = (
    """
    ALTER TABLE billing_settings
    ADD COLUMN late_usage text NOT NULL DEFAULT 'NEXT_INVOICE',
    ADD CONSTRAINT ck_billing_settings_late_usage
        CHECK (late_usage IN ('NEXT_INVOICE', 'CREDIT_NOTE'))
    """,
    """
    ALTER TABLE credit_notes
    ADD COLUMN changes_count integer NOT NULL DEFAULT 0,
    ADD COLUMN reading_id text,
    ADD COLUMN next_invoice_id text,
    ADD CONSTRAINT fk_credit_notes_usage_readings
        FOREIGN KEY (organization_id, mode, reading_id) REFERENCES usage_readings,
    ADD CONSTRAINT fk_credit_notes_next_invoices
        FOREIGN KEY (organization_id, mode, next_invoice_id) REFERENCES invoices
        DEFERRABLE INITIALLY DEFERRED,
    ADD CONSTRAINT ck_credit_notes_changes_count
        CHECK (changes_count >= 0 AND (changes_count > 0) = (reading_id IS NOT NULL)),
    ADD CONSTRAINT ck_credit_notes_next_invoice_id
        CHECK (next_invoice_id IS NULL OR reading_id IS NOT NULL)
    """,
    """
    CREATE INDEX ix_credit_notes_next_invoice_id
    ON credit_notes (next_invoice_id, organization_id, mode) WHERE next_invoice_id IS NOT NULL
    """,
    """
    CREATE TABLE credit_note_changes (
        organization_id text NOT NULL,
        mode text NOT NULL,
        credit_note_id text NOT NULL,
        invoice_id text NOT NULL,
        position integer NOT NULL,
        kind text NOT NULL,
        metric text,
        description text NOT NULL,
        quantity numeric NOT NULL,
        included_units numeric NOT NULL,
        unit_price numeric,
        amount numeric NOT NULL,
        period_start timestamptz NOT NULL,
        period_end timestamptz NOT NULL,
        steps json NOT NULL,
        CONSTRAINT pk_credit_note_changes
            PRIMARY KEY (organization_id, mode, credit_note_id, position),
        CONSTRAINT fk_credit_note_changes_credit_notes
            FOREIGN KEY (organization_id, mode, credit_note_id, invoice_id)
            REFERENCES credit_notes (organization_id, mode, id, invoice_id),
        CONSTRAINT ck_credit_note_changes_position CHECK (position >= 1),
        CONSTRAINT ck_credit_note_changes_kind
            CHECK (kind IN ('LATE_USAGE', 'DISCOUNT', 'MAXIMUM', 'MINIMUM')),
        CONSTRAINT ck_credit_note_changes_metric
            CHECK ((kind = 'LATE_USAGE') = (metric IS NOT NULL))
    )
    """,
    """
    CREATE INDEX ix_credit_note_changes_invoice_id
    ON credit_note_changes (invoice_id, organization_id, mode)
    """,
)

# Both are checked at the commit.
CHECK_CHANGES = """
CREATE FUNCTION check_credit_note_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of invoices;
    change_total numeric;
    change_count integer;
    credited numeric;
BEGIN
    SELECT * INTO of FROM invoices
    WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.invoice_id);
    SELECT coalesce(sum(amount), 0), count(*) INTO change_total, change_count
    FROM credit_note_changes
    WHERE (organization_id, mode, credit_note_id) = (NEW.organization_id, NEW.mode, NEW.id)
        AND (period_start, period_end) = (of.period_start, of.period_end);
    SELECT coalesce(sum(c.amount), 0) INTO credited FROM credit_note_lines c
    JOIN invoice_lines l ON (l.organization_id, l.mode, l.invoice_id, l.position)
        = (c.organization_id, c.mode, c.invoice_id, c.position) AND l.kind <> 'TAX'
    WHERE (c.organization_id, c.mode, c.credit_note_id)
        = (NEW.organization_id, NEW.mode, NEW.id);
    IF of.kind <> 'PERIOD' OR change_count <> NEW.changes_count OR change_total <> -credited THEN
        RAISE EXCEPTION 'credit note % credits %, its % changes come to %',
            NEW.id, credited, change_count, change_total
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

CHECK_CHANGE = """
CREATE FUNCTION check_credit_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (
        SELECT count(*) FROM credit_note_changes WHERE (organization_id, mode, credit_note_id)
            = (NEW.organization_id, NEW.mode, NEW.credit_note_id)
    ) <> (
        SELECT changes_count FROM credit_notes
        WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.credit_note_id)
    ) THEN
        RAISE EXCEPTION 'a credit note has exactly the changes it was made with'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

# As it is since 0012 but for the changes, where there are some: what was hashed before stays as it
# is.
CONTENT = """
CREATE OR REPLACE FUNCTION credit_note_content(of credit_notes) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    lines text;
    line_count integer;
    changes text := '';
    change_count integer := 0;
BEGIN
    SELECT coalesce(string_agg(
        '{"amount":' || canonical(amount)
        || ',"description":' || canonical(description)
        || ',"position":' || position::text
        || '}', ',' ORDER BY position), ''), count(*)
    INTO lines, line_count FROM credit_note_lines
    WHERE (organization_id, mode, credit_note_id) = (of.organization_id, of.mode, of.id);
    <read changes>
    IF line_count <> of.lines_count<changes missing> THEN
        RAISE EXCEPTION 'credit note % is hashed when all of its lines are there', of.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN '{"amount":' || canonical(of.amount)
        || coalesce(changes, '')
        || ',"create_time":' || canonical(of.create_time)
        || ',"currency":' || canonical(of.currency)
        || ',"customer_id":' || canonical(of.customer_id)
        || ',"format"\\:1'
        || ',"id":' || canonical(of.id)
        || ',"invoice_id":' || canonical(of.invoice_id)
        || ',"lines":[' || lines || ']'
        || ',"mode":' || canonical(of.mode)
        || ',"number":' || canonical(of.number)
        || ',"organization_id":' || canonical(of.organization_id)
        || ',"reason":' || canonical(of.reason)
        || ',"refund_reference":' || canonical(of.refund_reference)
        || ',"type":"credit_note"}';
END
$$
"""

READ_CHANGES = """SELECT ',"changes":[' || string_agg(
        '{"amount":' || canonical(amount)
        || ',"description":' || canonical(description)
        || ',"included_units":' || canonical(included_units)
        || ',"kind":' || canonical(kind)
        || ',"metric":' || canonical(metric)
        || ',"period_end":' || canonical(period_end)
        || ',"period_start":' || canonical(period_start)
        || ',"position":' || position::text
        || ',"quantity":' || canonical(quantity)
        || ',"steps":' || canonical(steps)
        || ',"unit_price":' || canonical(unit_price)
        || '}', ',' ORDER BY position) || ']', count(*)
    INTO changes, change_count FROM credit_note_changes
    WHERE (organization_id, mode, credit_note_id) = (of.organization_id, of.mode, of.id);"""
WITH_CHANGES = CONTENT.replace("<read changes>", READ_CHANGES).replace(
    "<changes missing>", " OR change_count <> of.changes_count"
)
WITHOUT = CONTENT.replace("<read changes>", "").replace("<changes missing>", "")

TRIGGERS = (
    "CREATE CONSTRAINT TRIGGER check_credit_note_changes AFTER INSERT ON credit_notes "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.changes_count > 0) "
    "EXECUTE FUNCTION check_credit_note_changes()",
    "CREATE CONSTRAINT TRIGGER check_credit_note_change AFTER INSERT ON credit_note_changes "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit_note_change()",
    "CREATE TRIGGER keep_credit_note_change BEFORE UPDATE OR DELETE ON credit_note_changes "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON credit_note_changes "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)


def upgrade() -> None:
    """Add what they need."""
    for statement in (*TABLES, CHECK_CHANGES, CHECK_CHANGE, WITH_CHANGES, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade. What such credit notes changed is lost: it would be billed anew, so there may
    be none.
    """
    op.execute(
        """
        DO $$ BEGIN
            IF EXISTS (SELECT FROM credit_note_changes) THEN
                RAISE EXCEPTION 'there are credit notes of late usage';
            END IF;
        END $$
        """
    )
    op.execute("DROP TABLE credit_note_changes")
    op.execute("DROP FUNCTION check_credit_note_change()")
    op.execute("DROP FUNCTION check_credit_note_changes() CASCADE")
    op.execute(WITHOUT)
    op.execute(
        "ALTER TABLE credit_notes DROP COLUMN changes_count, DROP COLUMN reading_id, "
        "DROP COLUMN next_invoice_id"
    )
    op.execute("ALTER TABLE billing_settings DROP COLUMN late_usage")
