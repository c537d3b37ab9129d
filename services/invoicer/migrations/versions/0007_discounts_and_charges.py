"""Discounts, limits of a subscription's period, and one-off charges.

A discount is for periods that begin in [start_time, end_time). Only its end changes, and neither
touches a period that is invoiced: what was billed stays explained. A one-off charge stands on at
most one invoice, void ones included; the invoice of a charge that did not wait for one of a
subscription belongs to none.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    """
    ALTER TABLE plan_versions
    ADD COLUMN minimum numeric,
    ADD COLUMN maximum numeric,
    ADD COLUMN discounts json NOT NULL DEFAULT '[]',
    ADD CONSTRAINT ck_plan_versions_minimum CHECK (minimum >= 0),
    ADD CONSTRAINT ck_plan_versions_maximum
        CHECK (maximum >= 0 AND (minimum IS NULL OR minimum <= maximum)),
    ADD CONSTRAINT ck_plan_versions_discounts CHECK (json_typeof(discounts) = 'array')
    """,
    """
    CREATE TABLE discounts (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        subscription_id text NOT NULL,
        name text NOT NULL,
        percent numeric,
        amount numeric,
        periods integer,
        start_time timestamptz NOT NULL,
        end_time timestamptz,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_discounts PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT fk_discounts_subscriptions
            FOREIGN KEY (organization_id, mode, subscription_id) REFERENCES subscriptions,
        CONSTRAINT ck_discounts_kind CHECK ((percent IS NULL) <> (amount IS NULL)),
        CONSTRAINT ck_discounts_percent CHECK (percent > 0 AND percent <= 100),
        CONSTRAINT ck_discounts_amount CHECK (amount > 0),
        CONSTRAINT ck_discounts_periods CHECK (periods > 0),
        CONSTRAINT ck_discounts_end_time CHECK (start_time <= end_time)
    )
    """,
    """
    CREATE INDEX ix_discounts_subscription_id
    ON discounts (subscription_id, organization_id, mode, id)
    """,
    """
    CREATE TABLE charges (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        customer_id text NOT NULL,
        subscription_id text,
        description text NOT NULL,
        quantity numeric NOT NULL,
        unit_price numeric NOT NULL,
        currency text NOT NULL,
        idempotency_key text,
        content_digest bytea NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_charges PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT uq_charges_idempotency_key UNIQUE (idempotency_key, organization_id, mode),
        CONSTRAINT fk_charges_customers
            FOREIGN KEY (organization_id, mode, customer_id) REFERENCES customers,
        CONSTRAINT fk_charges_subscriptions
            FOREIGN KEY (organization_id, mode, subscription_id) REFERENCES subscriptions,
        CONSTRAINT fk_charges_currencies FOREIGN KEY (currency) REFERENCES currencies,
        CONSTRAINT ck_charges_idempotency_key CHECK (idempotency_key ~ '^[ -~]{1,255}$'),
        CONSTRAINT ck_charges_content_digest CHECK (octet_length(content_digest) = 32),
        CONSTRAINT ck_charges_quantity CHECK (quantity > 0),
        CONSTRAINT ck_charges_unit_price CHECK (unit_price >= 0)
    )
    """,
    """
    CREATE INDEX ix_charges_customer_id ON charges (customer_id, organization_id, mode, id)
    """,
    """
    CREATE INDEX ix_charges_subscription_id ON charges (subscription_id, organization_id, mode, id)
    WHERE subscription_id IS NOT NULL
    """,
    """
    ALTER TABLE invoices
    ALTER COLUMN subscription_id DROP NOT NULL,
    ALTER COLUMN plan_id DROP NOT NULL,
    ALTER COLUMN plan_version DROP NOT NULL,
    DROP CONSTRAINT ck_invoices_kind,
    ADD CONSTRAINT ck_invoices_kind CHECK (kind IN ('PERIOD', 'OPENING', 'CHARGE')),
    ADD CONSTRAINT ck_invoices_subscription_id CHECK (
        (kind = 'CHARGE') = (subscription_id IS NULL)
        AND (kind = 'CHARGE') = (plan_id IS NULL)
        AND (kind = 'CHARGE') = (plan_version IS NULL)
    )
    """,
    """
    ALTER TABLE invoice_lines
    ADD COLUMN charge_id text,
    ADD CONSTRAINT fk_invoice_lines_charges
        FOREIGN KEY (organization_id, mode, charge_id) REFERENCES charges,
    ADD CONSTRAINT ck_invoice_lines_charge_id CHECK ((kind = 'CHARGE') = (charge_id IS NOT NULL)),
    DROP CONSTRAINT ck_invoice_lines_kind,
    ADD CONSTRAINT ck_invoice_lines_kind CHECK (kind IN (
        'SETUP_FEE', 'BASE', 'USAGE', 'LATE_USAGE', 'CREDIT_CARRIED',
        'DISCOUNT', 'MAXIMUM', 'MINIMUM', 'CHARGE'
    ))
    """,
    """
    CREATE UNIQUE INDEX uq_invoice_lines_charge_id
    ON invoice_lines (charge_id, organization_id, mode) WHERE charge_id IS NOT NULL
    """,
)

# A subscription's first period that is not invoiced begins at period_start; none is left: NULL.
KEEP_DISCOUNT = """
CREATE FUNCTION keep_discount() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    not_invoiced timestamptz;
BEGIN
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - 'end_time' IS DISTINCT FROM to_jsonb(OLD) - 'end_time'
    THEN
        RAISE EXCEPTION 'nothing of a discount changes but its end'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'UPDATE' AND (NEW.end_time IS NULL OR NEW.end_time > OLD.end_time) THEN
        RAISE EXCEPTION 'a discount only ends earlier'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT coalesce(period_start, 'infinity') INTO not_invoiced FROM subscriptions
    WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.subscription_id);
    IF (TG_OP = 'INSERT' AND NEW.start_time < not_invoiced)
        OR (TG_OP = 'UPDATE' AND NEW.end_time < not_invoiced)
    THEN
        RAISE EXCEPTION 'a discount never changes for periods that are invoiced'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

TRIGGERS = (
    "CREATE TRIGGER keep_discount BEFORE INSERT OR UPDATE ON discounts "
    "FOR EACH ROW EXECUTE FUNCTION keep_discount()",
    "CREATE TRIGGER keep_discount_rows BEFORE DELETE ON discounts "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_charge BEFORE UPDATE ON charges "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON discounts "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON charges "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)

UNDO = (
    "DROP FUNCTION keep_discount() CASCADE",
    """
    ALTER TABLE invoice_lines
    DROP COLUMN charge_id,
    DROP CONSTRAINT ck_invoice_lines_kind,
    ADD CONSTRAINT ck_invoice_lines_kind
        CHECK (kind IN ('SETUP_FEE', 'BASE', 'USAGE', 'LATE_USAGE', 'CREDIT_CARRIED'))
    """,
    """
    ALTER TABLE invoices
    DROP CONSTRAINT ck_invoices_subscription_id,
    DROP CONSTRAINT ck_invoices_kind,
    ADD CONSTRAINT ck_invoices_kind CHECK (kind IN ('PERIOD', 'OPENING')),
    ALTER COLUMN subscription_id SET NOT NULL,
    ALTER COLUMN plan_id SET NOT NULL,
    ALTER COLUMN plan_version SET NOT NULL
    """,
    "DROP TABLE charges, discounts",
    "ALTER TABLE plan_versions DROP COLUMN discounts, DROP COLUMN maximum, DROP COLUMN minimum",
)


def upgrade() -> None:
    """Add what discounts, limits and charges need."""
    for statement in (*STATEMENTS, KEEP_DISCOUNT, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; the database refuses it while invoices have such lines."""
    for statement in UNDO:
        op.execute(statement)
