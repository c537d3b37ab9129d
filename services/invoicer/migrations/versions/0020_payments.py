"""Payments: how customers pay, what is being collected, and every attempt, which never changes."""

from alembic import op

revision = "0020"
down_revision = "0019"

STATEMENTS = (
    """
    ALTER TABLE billing_settings
    ADD COLUMN retry_days integer[],
    ADD COLUMN provider text NOT NULL DEFAULT 'MANUAL',
    ADD COLUMN sealed_provider_key bytea,
    ADD COLUMN provider_key_hint text NOT NULL DEFAULT '',
    ADD CONSTRAINT ck_billing_settings_retry_days CHECK (
        cardinality(retry_days) <= 10 AND 1 <= ALL (retry_days) AND 60 >= ALL (retry_days)
    ),
    ADD CONSTRAINT ck_billing_settings_provider CHECK (
        provider = 'MANUAL' OR (provider = 'STRIPE' AND sealed_provider_key IS NOT NULL)
    )
    """,
    """
    CREATE TABLE payment_methods (
        organization_id text NOT NULL,
        mode text NOT NULL,
        customer_id text NOT NULL,
        provider text NOT NULL,
        provider_customer text NOT NULL,
        provider_method text NOT NULL,
        update_time timestamptz NOT NULL,
        CONSTRAINT pk_payment_methods PRIMARY KEY (organization_id, mode, customer_id),
        CONSTRAINT fk_payment_methods_customers
            FOREIGN KEY (organization_id, mode, customer_id) REFERENCES customers,
        CONSTRAINT ck_payment_methods_provider CHECK (provider = 'STRIPE')
    )
    """,
    # Invoices to be collected by a provider; a row leaves when its invoice is open no more, or
    # nothing is tried any more.
    """
    CREATE TABLE collections (
        organization_id text NOT NULL,
        mode text NOT NULL,
        invoice_id text NOT NULL,
        next_attempt_time timestamptz NOT NULL,
        lease_time timestamptz NOT NULL DEFAULT '-infinity',
        unknown_count integer NOT NULL DEFAULT 0,
        CONSTRAINT pk_collections PRIMARY KEY (organization_id, mode, invoice_id),
        CONSTRAINT fk_collections_invoices
            FOREIGN KEY (organization_id, mode, invoice_id) REFERENCES invoices,
        CONSTRAINT ck_collections_unknown_count CHECK (unknown_count >= 0)
    )
    """,
    "CREATE INDEX ix_collections_next_attempt_time ON collections (next_attempt_time)",
    """
    CREATE TABLE payment_attempts (
        organization_id text NOT NULL,
        mode text NOT NULL,
        invoice_id text NOT NULL,
        number integer NOT NULL,
        provider text NOT NULL,
        provider_customer text,
        provider_method text,
        amount numeric NOT NULL,
        currency text NOT NULL,
        state text NOT NULL,
        reference text NOT NULL DEFAULT '',
        error_code text NOT NULL DEFAULT '',
        error_message text NOT NULL DEFAULT '',
        start_time timestamptz NOT NULL,
        end_time timestamptz,
        CONSTRAINT pk_payment_attempts PRIMARY KEY (organization_id, mode, invoice_id, number),
        CONSTRAINT fk_payment_attempts_invoices
            FOREIGN KEY (organization_id, mode, invoice_id) REFERENCES invoices,
        CONSTRAINT ck_payment_attempts_number CHECK (number >= 1),
        CONSTRAINT ck_payment_attempts_amount CHECK (amount >= 0),
        CONSTRAINT ck_payment_attempts_provider CHECK (
            (provider = 'MANUAL' AND state <> 'PENDING' AND provider_customer IS NULL
                AND provider_method IS NULL)
            OR (provider = 'STRIPE' AND provider_customer IS NOT NULL
                AND provider_method IS NOT NULL)
        ),
        CONSTRAINT ck_payment_attempts_state CHECK (
            (state = 'PENDING' AND end_time IS NULL)
            OR (state IN ('SUCCEEDED', 'FAILED') AND end_time IS NOT NULL)
        )
    )
    """,
    # One at a time, and an invoice is paid once.
    "CREATE UNIQUE INDEX uq_payment_attempts_pending ON payment_attempts "
    "(invoice_id, organization_id, mode) WHERE state = 'PENDING'",
    "CREATE UNIQUE INDEX uq_payment_attempts_succeeded ON payment_attempts "
    "(invoice_id, organization_id, mode) WHERE state = 'SUCCEEDED'",
    """
    CREATE FUNCTION keep_payment_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        comes_later text[]
            := ARRAY['state', 'reference', 'error_code', 'error_message', 'end_time'];
    BEGIN
        IF TG_OP = 'INSERT' THEN
            IF NEW.number <> 1 + (
                SELECT coalesce(max(number), 0) FROM payment_attempts
                WHERE (organization_id, mode, invoice_id)
                    = (NEW.organization_id, NEW.mode, NEW.invoice_id)
            ) THEN
                RAISE EXCEPTION 'attempts are numbered without gaps'
                    USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NEW;
        END IF;
        IF OLD.state <> 'PENDING'
            OR to_jsonb(NEW) - comes_later IS DISTINCT FROM to_jsonb(OLD) - comes_later
        THEN
            RAISE EXCEPTION 'of a payment attempt nothing changes but what came of it, once'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END
    $$
    """,
    "CREATE TRIGGER keep_payment_attempt BEFORE INSERT OR UPDATE ON payment_attempts "
    "FOR EACH ROW EXECUTE FUNCTION keep_payment_attempt()",
    "CREATE TRIGGER keep_payment_attempt_rows BEFORE DELETE ON payment_attempts "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON payment_attempts "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)

UNDO = (
    "DROP TABLE payment_attempts",
    "DROP FUNCTION keep_payment_attempt()",
    "DROP TABLE collections",
    "DROP TABLE payment_methods",
    """
    ALTER TABLE billing_settings
    DROP COLUMN retry_days,
    DROP COLUMN provider,
    DROP COLUMN sealed_provider_key,
    DROP COLUMN provider_key_hint
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; what was paid and how is forgotten."""
    for statement in UNDO:
        op.execute(statement)
