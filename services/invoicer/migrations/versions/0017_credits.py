"""Prepaid credits: grants, and a ledger of all that happens to them.

Balances follow from the ledger: a trigger adds each entry to the balances of its wallet and grant,
and nothing else changes them. Neither is ever below 0. Entries never change.
"""

from alembic import op

revision = "0017"
down_revision = "0016"

TABLES = (
    """
    CREATE TABLE credit_wallets (
        organization_id text NOT NULL,
        mode text NOT NULL,
        customer_id text NOT NULL,
        currency text NOT NULL,
        balance numeric NOT NULL DEFAULT 0,
        newest_sequence bigint NOT NULL DEFAULT 0,
        low_balance numeric,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_credit_wallets PRIMARY KEY (organization_id, mode, customer_id, currency),
        CONSTRAINT fk_credit_wallets_customers
            FOREIGN KEY (organization_id, mode, customer_id) REFERENCES customers,
        CONSTRAINT fk_credit_wallets_currencies FOREIGN KEY (currency) REFERENCES currencies,
        CONSTRAINT ck_credit_wallets_balance CHECK (balance >= 0),
        CONSTRAINT ck_credit_wallets_low_balance CHECK (low_balance >= 0)
    )
    """,
    """
    CREATE TABLE credit_grants (
        organization_id text NOT NULL,
        mode text NOT NULL,
        id text NOT NULL,
        customer_id text NOT NULL,
        currency text NOT NULL,
        amount numeric NOT NULL,
        balance numeric NOT NULL DEFAULT 0,
        kind text NOT NULL,
        priority integer NOT NULL,
        description text NOT NULL,
        metadata_json text NOT NULL,
        expire_time timestamptz,
        void_time timestamptz,
        credit_note_id text,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_credit_grants PRIMARY KEY (organization_id, mode, id),
        CONSTRAINT uq_credit_grants_wallet
            UNIQUE (organization_id, mode, id, customer_id, currency),
        CONSTRAINT fk_credit_grants_credit_wallets
            FOREIGN KEY (organization_id, mode, customer_id, currency) REFERENCES credit_wallets,
        CONSTRAINT fk_credit_grants_credit_notes
            FOREIGN KEY (organization_id, mode, credit_note_id) REFERENCES credit_notes,
        CONSTRAINT ck_credit_grants_amount CHECK (amount > 0),
        CONSTRAINT ck_credit_grants_balance CHECK (balance BETWEEN 0 AND amount),
        CONSTRAINT ck_credit_grants_kind CHECK (kind IN ('PAID', 'PROMOTIONAL')),
        CONSTRAINT ck_credit_grants_priority CHECK (priority BETWEEN 0 AND 100),
        CONSTRAINT ck_credit_grants_expire_time CHECK (expire_time > create_time)
    )
    """,
    """
    CREATE INDEX ix_credit_grants_customer_id
    ON credit_grants (customer_id, organization_id, mode, id)
    """,
    # Of a wallet's grants those that have something left, however many there were.
    """
    CREATE INDEX ix_credit_grants_open ON credit_grants (customer_id, organization_id, mode)
    WHERE balance > 0
    """,
    """
    CREATE INDEX ix_credit_grants_expire_time ON credit_grants (expire_time)
    WHERE balance > 0 AND expire_time IS NOT NULL
    """,
    """
    CREATE UNIQUE INDEX uq_credit_grants_credit_note_id
    ON credit_grants (credit_note_id, organization_id, mode) WHERE credit_note_id IS NOT NULL
    """,
    """
    CREATE TABLE credit_entries (
        organization_id text NOT NULL,
        mode text NOT NULL,
        customer_id text NOT NULL,
        currency text NOT NULL,
        sequence bigint NOT NULL,
        grant_id text NOT NULL,
        kind text NOT NULL,
        amount numeric NOT NULL,
        balance numeric NOT NULL,
        invoice_id text,
        reason text NOT NULL,
        create_time timestamptz NOT NULL,
        CONSTRAINT pk_credit_entries
            PRIMARY KEY (organization_id, mode, customer_id, currency, sequence),
        CONSTRAINT fk_credit_entries_credit_grants
            FOREIGN KEY (organization_id, mode, grant_id, customer_id, currency)
            REFERENCES credit_grants (organization_id, mode, id, customer_id, currency),
        CONSTRAINT fk_credit_entries_invoices
            FOREIGN KEY (organization_id, mode, invoice_id) REFERENCES invoices,
        CONSTRAINT ck_credit_entries_kind
            CHECK (kind IN ('GRANT', 'APPLY', 'RETURN', 'EXPIRE', 'VOID', 'DEBIT')),
        CONSTRAINT ck_credit_entries_amount
            CHECK (amount <> 0 AND (amount > 0) = (kind IN ('GRANT', 'RETURN'))),
        CONSTRAINT ck_credit_entries_invoice_id
            CHECK ((kind IN ('APPLY', 'RETURN')) = (invoice_id IS NOT NULL))
    )
    """,
    """
    CREATE UNIQUE INDEX uq_credit_entries_grant ON credit_entries (grant_id, organization_id, mode)
    WHERE kind = 'GRANT'
    """,
    """
    CREATE INDEX ix_credit_entries_invoice_id ON credit_entries (invoice_id, organization_id, mode)
    WHERE invoice_id IS NOT NULL
    """,
)

# Whoever writes an entry has locked the wallet by it, so that entries of one are written one after
# the other. Whatever a statement gives as sequence and balance is written over.
ENTER = """
CREATE FUNCTION enter_credit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    granted credit_grants;
    of invoices;
    used numeric;
    used_of_grant numeric;
BEGIN
    IF min_scale(NEW.amount) > (SELECT minor_digits FROM currencies WHERE code = NEW.currency) THEN
        RAISE EXCEPTION 'credit is counted in minor units'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    UPDATE credit_wallets
    SET balance = balance + NEW.amount, newest_sequence = newest_sequence + 1
    WHERE (organization_id, mode, customer_id, currency)
        = (NEW.organization_id, NEW.mode, NEW.customer_id, NEW.currency)
    RETURNING balance, newest_sequence INTO NEW.balance, NEW.sequence;
    UPDATE credit_grants SET balance = balance + NEW.amount
    WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.grant_id)
    RETURNING * INTO granted;
    IF NEW.kind = 'GRANT' AND NEW.amount <> granted.amount THEN
        RAISE EXCEPTION 'grant % is entered with its amount', NEW.grant_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.invoice_id IS NULL THEN
        RETURN NEW;
    END IF;
    SELECT * INTO of FROM invoices
    WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.invoice_id);
    IF of.customer_id <> NEW.customer_id OR of.currency <> NEW.currency OR of.status = 'PAID'
        OR (of.status = 'DRAFT') <> (NEW.kind = 'APPLY')
    THEN
        RAISE EXCEPTION 'credit pays invoices of its wallet while they are finalized, and comes '
            'back of those that are not paid' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT coalesce(sum(amount), 0) + NEW.amount,
        coalesce(sum(amount) FILTER (WHERE grant_id = NEW.grant_id), 0) + NEW.amount
    INTO used, used_of_grant FROM credit_entries
    WHERE (organization_id, mode, invoice_id)
        = (NEW.organization_id, NEW.mode, NEW.invoice_id);
    IF -used NOT BETWEEN 0 AND of.amount OR used_of_grant > 0 THEN
        RAISE EXCEPTION 'invoice % takes no more credit than it amounts to, and gives back no '
            'more than it took', NEW.invoice_id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

KEEP_WALLET = """
CREATE FUNCTION keep_credit_wallet() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change text[] := ARRAY['low_balance'];
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.balance <> 0 OR NEW.newest_sequence <> 0 THEN
            RAISE EXCEPTION 'a wallet begins empty'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    -- Within the trigger that enters an entry.
    IF pg_trigger_depth() > 1 THEN
        may_change := ARRAY['balance', 'newest_sequence'];
    END IF;
    IF to_jsonb(NEW) - may_change IS DISTINCT FROM to_jsonb(OLD) - may_change THEN
        RAISE EXCEPTION 'a balance changes by entries of the ledger only'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

KEEP_GRANT = """
CREATE FUNCTION keep_credit_grant() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change text := 'void_time';
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.balance <> 0 OR NEW.void_time IS NOT NULL THEN
            RAISE EXCEPTION 'a grant begins empty'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF pg_trigger_depth() > 1 THEN
        may_change := 'balance';
    END IF;
    IF to_jsonb(NEW) - may_change IS DISTINCT FROM to_jsonb(OLD) - may_change
        OR OLD.void_time <> NEW.void_time OR (OLD.void_time IS NOT NULL AND NEW.void_time IS NULL)
    THEN
        RAISE EXCEPTION 'nothing of a grant changes but its balance, by entries, until it is void'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

# These are checked at the commit.
CHECK_GRANT = """
CREATE FUNCTION check_credit_grant() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    note credit_notes;
BEGIN
    IF NOT EXISTS (
        SELECT FROM credit_entries WHERE (organization_id, mode, grant_id, kind)
            = (NEW.organization_id, NEW.mode, NEW.id, 'GRANT')
    ) THEN
        RAISE EXCEPTION 'grant % is not entered', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.credit_note_id IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO note FROM credit_notes
    WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.credit_note_id);
    IF (note.customer_id, note.currency, note.amount, note.refund_reference)
        IS DISTINCT FROM (NEW.customer_id, NEW.currency, NEW.amount, NEW.id)
    THEN
        RAISE EXCEPTION 'grant % is not the refund of credit note %', NEW.id, NEW.credit_note_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

CHECK_VOID_GRANT = """
CREATE FUNCTION check_void_credit_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM credit_grants
        WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, NEW.id)
            AND void_time IS NOT NULL AND balance > 0
    ) THEN
        RAISE EXCEPTION 'a void grant has nothing left'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

CHECK_SETTLED = """
CREATE FUNCTION check_credit_comes_back() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of_id text := CASE TG_TABLE_NAME WHEN 'invoices' THEN to_jsonb(NEW) ->> 'id'
        ELSE to_jsonb(NEW) ->> 'invoice_id' END;
    of invoices;
    used numeric;
    credited numeric;
BEGIN
    SELECT * INTO of FROM invoices
    WHERE (organization_id, mode, id) = (NEW.organization_id, NEW.mode, of_id);
    SELECT -coalesce(sum(amount), 0) INTO used FROM credit_entries
    WHERE (organization_id, mode, invoice_id) = (NEW.organization_id, NEW.mode, of_id);
    SELECT coalesce(sum(amount), 0) INTO credited FROM credit_notes
    WHERE (organization_id, mode, invoice_id) = (NEW.organization_id, NEW.mode, of_id)
        AND refund_reference IS NULL;
    IF used > (CASE of.status WHEN 'VOID' THEN 0 ELSE of.amount - credited END) THEN
        RAISE EXCEPTION 'credit that invoice % needs no longer goes back to its wallet', of_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

FUNCTIONS = (ENTER, KEEP_WALLET, KEEP_GRANT, CHECK_GRANT, CHECK_VOID_GRANT, CHECK_SETTLED)

TRIGGERS = (
    "CREATE TRIGGER enter_credit BEFORE INSERT ON credit_entries "
    "FOR EACH ROW EXECUTE FUNCTION enter_credit()",
    "CREATE TRIGGER keep_credit_entry BEFORE UPDATE OR DELETE ON credit_entries "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_credit_wallet BEFORE INSERT OR UPDATE ON credit_wallets "
    "FOR EACH ROW EXECUTE FUNCTION keep_credit_wallet()",
    "CREATE TRIGGER keep_credit_wallet_rows BEFORE DELETE ON credit_wallets "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_credit_grant BEFORE INSERT OR UPDATE ON credit_grants "
    "FOR EACH ROW EXECUTE FUNCTION keep_credit_grant()",
    "CREATE TRIGGER keep_credit_grant_rows BEFORE DELETE ON credit_grants "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE CONSTRAINT TRIGGER check_credit_grant AFTER INSERT ON credit_grants "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_credit_grant()",
    "CREATE CONSTRAINT TRIGGER check_void_credit_grant AFTER UPDATE ON credit_grants "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.void_time IS NOT NULL) "
    "EXECUTE FUNCTION check_void_credit_grant()",
    "CREATE CONSTRAINT TRIGGER check_credit_comes_back AFTER UPDATE ON invoices "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
    "WHEN (OLD.status <> 'VOID' AND NEW.status = 'VOID') "
    "EXECUTE FUNCTION check_credit_comes_back()",
    "CREATE CONSTRAINT TRIGGER check_credit_comes_back AFTER INSERT ON credit_notes "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.refund_reference IS NULL) "
    "EXECUTE FUNCTION check_credit_comes_back()",
    *(
        f"CREATE TRIGGER keep_all BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        for table in ("credit_wallets", "credit_grants", "credit_entries")
    ),
)


def upgrade() -> None:
    """Make the tables and what keeps them."""
    for statement in (*TABLES, *FUNCTIONS, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; credits are lost."""
    op.execute("DROP FUNCTION check_credit_comes_back() CASCADE")
    op.execute("DROP TABLE credit_entries, credit_grants, credit_wallets")
    for name in (
        "enter_credit",
        "keep_credit_wallet",
        "keep_credit_grant",
        "check_credit_grant",
        "check_void_credit_grant",
    ):
        op.execute(f"DROP FUNCTION {name}()")
