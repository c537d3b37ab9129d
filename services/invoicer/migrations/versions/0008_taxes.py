"""Tax rates, whose they are, and the taxes of invoices.

A rate never changes. The row of tax_assignments without a customer is for all customers that have
none of their own. What a finalized invoice says of taxes is recomputed from its lines.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    """
    CREATE TABLE tax_rates (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        name text NOT NULL,
        percent numeric NOT NULL,
        inclusive boolean NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_tax_rates PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT ck_tax_rates_percent CHECK (percent >= 0 AND percent <= 100)
    )
    """,
    """
    CREATE TABLE tax_assignments (
        organization_id text NOT NULL,
        mode text NOT NULL,
        customer_id text,
        tax_rate_ids text[] NOT NULL,
        CONSTRAINT uq_tax_assignments_customer
            UNIQUE NULLS NOT DISTINCT (organization_id, mode, customer_id),
        CONSTRAINT fk_tax_assignments_customers
            FOREIGN KEY (organization_id, mode, customer_id) REFERENCES customers,
        CONSTRAINT ck_tax_assignments_tax_rate_ids CHECK (cardinality(tax_rate_ids) <= 5)
    )
    """,
    """
    CREATE TABLE invoice_taxes (
        organization_id text NOT NULL,
        mode text NOT NULL,
        invoice_id text NOT NULL,
        position integer NOT NULL,
        tax_rate_id text NOT NULL,
        name text NOT NULL,
        percent numeric NOT NULL,
        inclusive boolean NOT NULL,
        taxable numeric NOT NULL,
        amount numeric NOT NULL,
        CONSTRAINT pk_invoice_taxes PRIMARY KEY (organization_id, mode, invoice_id, position),
        CONSTRAINT uq_invoice_taxes_tax_rate_id
            UNIQUE (organization_id, mode, invoice_id, tax_rate_id),
        CONSTRAINT fk_invoice_taxes_invoices
            FOREIGN KEY (organization_id, mode, invoice_id) REFERENCES invoices,
        CONSTRAINT fk_invoice_taxes_tax_rates
            FOREIGN KEY (organization_id, mode, tax_rate_id) REFERENCES tax_rates
    )
    """,
    """
    ALTER TABLE invoice_lines
    DROP CONSTRAINT ck_invoice_lines_kind,
    ADD CONSTRAINT ck_invoice_lines_kind CHECK (kind IN (
        'SETUP_FEE', 'BASE', 'USAGE', 'LATE_USAGE', 'CREDIT_CARRIED',
        'DISCOUNT', 'MAXIMUM', 'MINIMUM', 'CHARGE', 'TAX'
    ))
    """,
)

KEEP_ASSIGNMENT = """
CREATE FUNCTION keep_tax_assignment() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found_count integer;
    kinds integer;
BEGIN
    SELECT count(*), count(DISTINCT inclusive) INTO found_count, kinds FROM tax_rates
    WHERE organization_id = NEW.organization_id AND mode = NEW.mode AND id = ANY (NEW.tax_rate_ids);
    IF found_count <> cardinality(NEW.tax_rate_ids) OR kinds > 1 THEN
        RAISE EXCEPTION 'tax rates of a customer are the tenant''s, each once, of one kind'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

# More digits than any quotient needs that is rounded to minor units next.
CHECK_TAXES = """
CREATE FUNCTION check_invoice_taxes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    whole numeric;
    of_lines numeric;
    in_hundred numeric;
    inside numeric;
    added numeric;
    digits integer;
    right_ones boolean;
BEGIN
    SELECT coalesce(sum(amount) FILTER (WHERE kind NOT IN ('TAX', 'CREDIT_CARRIED')), 0),
        coalesce(sum(amount) FILTER (WHERE kind = 'TAX'), 0)
    INTO whole, of_lines FROM invoice_lines
    WHERE (organization_id, mode, invoice_id) = (NEW.organization_id, NEW.mode, NEW.id);
    SELECT 100 + coalesce(sum(percent) FILTER (WHERE inclusive), 0),
        coalesce(sum(amount) FILTER (WHERE inclusive), 0),
        coalesce(sum(amount) FILTER (WHERE NOT inclusive), 0)
    INTO in_hundred, inside, added FROM invoice_taxes
    WHERE (organization_id, mode, invoice_id) = (NEW.organization_id, NEW.mode, NEW.id);
    IF added <> of_lines THEN
        RAISE EXCEPTION 'invoice % adds taxes of %, its lines say %', NEW.id, added, of_lines
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT minor_digits INTO digits FROM currencies WHERE code = NEW.currency;
    SELECT bool_and(
        taxable = whole - inside
        AND amount = round(
            whole * percent * 1.000000000000000000000000000000
                / CASE WHEN inclusive THEN in_hundred ELSE 100 END,
            digits
        )
    ) INTO right_ones FROM invoice_taxes
    WHERE (organization_id, mode, invoice_id) = (NEW.organization_id, NEW.mode, NEW.id);
    IF NOT right_ones THEN
        RAISE EXCEPTION 'invoice % has a tax that is not its rate of the lines', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER keep_tax_rate BEFORE UPDATE OR DELETE ON tax_rates "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_tax_assignment BEFORE INSERT OR UPDATE ON tax_assignments "
    "FOR EACH ROW EXECUTE FUNCTION keep_tax_assignment()",
    "CREATE TRIGGER keep_inserted_taxes AFTER INSERT ON invoice_taxes "
    "REFERENCING NEW TABLE AS changed_lines "
    "FOR EACH STATEMENT EXECUTE FUNCTION keep_invoice_lines()",
    "CREATE TRIGGER keep_deleted_taxes AFTER DELETE ON invoice_taxes "
    "REFERENCING OLD TABLE AS changed_lines "
    "FOR EACH STATEMENT EXECUTE FUNCTION keep_invoice_lines()",
    "CREATE TRIGGER keep_tax BEFORE UPDATE ON invoice_taxes "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE CONSTRAINT TRIGGER check_invoice_taxes AFTER UPDATE ON invoices "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
    "WHEN (OLD.status = 'DRAFT' AND NEW.status <> 'DRAFT') "
    "EXECUTE FUNCTION check_invoice_taxes()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON tax_rates "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON invoice_taxes "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)

UNDO = (
    "DROP FUNCTION check_invoice_taxes() CASCADE",
    "DROP FUNCTION keep_tax_assignment() CASCADE",
    "DROP TABLE invoice_taxes, tax_assignments, tax_rates",
    """
    ALTER TABLE invoice_lines
    DROP CONSTRAINT ck_invoice_lines_kind,
    ADD CONSTRAINT ck_invoice_lines_kind CHECK (kind IN (
        'SETUP_FEE', 'BASE', 'USAGE', 'LATE_USAGE', 'CREDIT_CARRIED',
        'DISCOUNT', 'MAXIMUM', 'MINIMUM', 'CHARGE'
    ))
    """,
)


def upgrade() -> None:
    """Add what taxes need."""
    for statement in (*STATEMENTS, KEEP_ASSIGNMENT, CHECK_TAXES, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the database refuses it while invoices have taxes."""
    for statement in UNDO:
        op.execute(statement)
