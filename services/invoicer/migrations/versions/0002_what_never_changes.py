"""What never changes: plan versions, finalized invoices, their numbers.

The database refuses it, so that no later code can undo it by mistake. PostgreSQL runs deferred
constraint triggers at the commit: they see the transaction's result as a whole.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: it never changes', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$
"""

# A version comes with all its prices in one transaction: the count says how many, so that none
# can be added later. The count is compared at the commit.
CHECK_PLAN_VERSION = """
CREATE FUNCTION check_plan_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found_count integer;
    largest integer;
BEGIN
    SELECT count(*), coalesce(max(position), 0) INTO found_count, largest FROM plan_prices
    WHERE (organization_id, mode, plan_id, version)
        = (NEW.organization_id, NEW.mode, NEW.plan_id, NEW.version);
    IF found_count <> NEW.metrics_count OR largest <> NEW.metrics_count THEN
        RAISE EXCEPTION 'a plan version has exactly the prices it was made with'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

CHECK_PLAN_PRICE = """
CREATE FUNCTION check_plan_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.position > (
        SELECT metrics_count FROM plan_versions
        WHERE (organization_id, mode, plan_id, version)
            = (NEW.organization_id, NEW.mode, NEW.plan_id, NEW.version)
    ) THEN
        RAISE EXCEPTION 'a plan version has exactly the prices it was made with'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

# What a subscription's periods are computed from.
KEEP_SUBSCRIPTION = """
CREATE FUNCTION keep_subscription() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.organization_id, NEW.mode, NEW.id, NEW.customer_id, NEW.start_time, NEW.time_zone,
            NEW.create_time)
        IS DISTINCT FROM
        (OLD.organization_id, OLD.mode, OLD.id, OLD.customer_id, OLD.start_time, OLD.time_zone,
            OLD.create_time)
    THEN
        RAISE EXCEPTION 'customer, start and time zone of a subscription never change'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.period_start IS DISTINCT FROM OLD.period_start AND NEW.period_start IS NOT NULL
        AND NEW.period_start IS DISTINCT FROM OLD.period_end
    THEN
        RAISE EXCEPTION 'a period begins where the one before it ended'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

KEEP_INVOICE = """
CREATE FUNCTION keep_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change text[] := ARRAY['status', 'failed_payments', 'paid_time', 'void_time'];
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.status <> 'DRAFT' THEN
            RAISE EXCEPTION 'an invoice begins as a draft'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.status = 'DRAFT' THEN
        IF TG_OP = 'UPDATE' AND NEW.status NOT IN ('DRAFT', 'PENDING') THEN
            RAISE EXCEPTION 'a draft is finalized before anything else'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a finalized invoice is never deleted'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF to_jsonb(NEW) - may_change IS DISTINCT FROM to_jsonb(OLD) - may_change THEN
        RAISE EXCEPTION 'nothing in a finalized invoice changes but its status'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.status || '>' || NEW.status NOT IN (
        'PENDING>PAID', 'PENDING>FAILED', 'PENDING>VOID',
        'FAILED>PAID', 'FAILED>FAILED', 'FAILED>VOID'
    ) THEN
        RAISE EXCEPTION 'an invoice never goes from % to %', OLD.status, NEW.status
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.failed_payments <> OLD.failed_payments + CAST(NEW.status = 'FAILED' AS integer) THEN
        RAISE EXCEPTION 'failed payments are counted one by one'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

# FOR SHARE waits for a transaction that is just finalizing the invoice, and then sees that it did.
KEEP_INVOICE_LINES = """
CREATE FUNCTION keep_invoice_lines() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    all_drafts boolean;
BEGIN
    SELECT bool_and(status = 'DRAFT') INTO all_drafts FROM (
        SELECT status FROM invoices
        WHERE (organization_id, mode, id) IN (
            SELECT organization_id, mode, invoice_id FROM changed_lines
        )
        FOR SHARE
    ) AS locked;
    IF NOT all_drafts THEN
        RAISE EXCEPTION '% of a line of a finalized invoice is refused', TG_OP
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

CHECK_FINALIZED = """
CREATE FUNCTION check_finalized_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    line_total numeric;
    line_scale integer;
BEGIN
    SELECT coalesce(sum(amount), 0), coalesce(max(min_scale(amount)), 0)
    INTO line_total, line_scale FROM invoice_lines
    WHERE (organization_id, mode, invoice_id) = (NEW.organization_id, NEW.mode, NEW.id);
    IF line_total <> NEW.amount THEN
        RAISE EXCEPTION 'invoice % amounts to %, its lines to %', NEW.id, NEW.amount, line_total
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF line_scale > (SELECT minor_digits FROM currencies WHERE code = NEW.currency) THEN
        RAISE EXCEPTION 'a line of invoice % is not rounded to minor units', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.sequence IS DISTINCT FROM (
        SELECT least(NEW.sequence, newest_sequence) FROM invoice_counters
        WHERE (organization_id, mode, series) = (NEW.organization_id, NEW.mode, NEW.series)
    ) THEN
        RAISE EXCEPTION 'invoice % has a number that was not given out', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

KEEP_COUNTER = """
CREATE FUNCTION keep_invoice_counter() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    previous bigint := 0;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        previous := OLD.newest_sequence;
        IF (NEW.organization_id, NEW.mode, NEW.series)
            IS DISTINCT FROM (OLD.organization_id, OLD.mode, OLD.series)
        THEN
            RAISE EXCEPTION 'an invoice counter stays whose it is'
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    IF NEW.newest_sequence <= previous THEN
        RAISE EXCEPTION 'invoice numbers count up'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$
"""

# No gap: whoever takes numbers uses all of them in the same transaction.
CHECK_COUNTER = """
CREATE FUNCTION check_invoice_counter() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    previous bigint := 0;
    used bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        previous := OLD.newest_sequence;
    END IF;
    SELECT count(*) INTO used FROM invoices
    WHERE (organization_id, mode, series) = (NEW.organization_id, NEW.mode, NEW.series)
        AND sequence > previous AND sequence <= NEW.newest_sequence;
    IF used <> NEW.newest_sequence - previous THEN
        RAISE EXCEPTION 'invoice numbers % to % were taken and not all used',
            previous + 1, NEW.newest_sequence
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

FUNCTIONS = (
    REFUSE,
    CHECK_PLAN_VERSION,
    CHECK_PLAN_PRICE,
    KEEP_SUBSCRIPTION,
    KEEP_INVOICE,
    KEEP_INVOICE_LINES,
    CHECK_FINALIZED,
    KEEP_COUNTER,
    CHECK_COUNTER,
)

TRIGGERS = (
    "CREATE TRIGGER keep_plan_version BEFORE UPDATE OR DELETE ON plan_versions "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE CONSTRAINT TRIGGER check_plan_version AFTER INSERT ON plan_versions "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_plan_version()",
    "CREATE TRIGGER keep_plan_price BEFORE UPDATE OR DELETE ON plan_prices "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER check_plan_price AFTER INSERT ON plan_prices "
    "FOR EACH ROW EXECUTE FUNCTION check_plan_price()",
    "CREATE TRIGGER keep_subscription BEFORE UPDATE ON subscriptions "
    "FOR EACH ROW EXECUTE FUNCTION keep_subscription()",
    "CREATE TRIGGER keep_subscription_rows BEFORE DELETE ON subscriptions "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_invoice BEFORE INSERT OR UPDATE OR DELETE ON invoices "
    "FOR EACH ROW EXECUTE FUNCTION keep_invoice()",
    "CREATE CONSTRAINT TRIGGER check_finalized_invoice AFTER UPDATE ON invoices "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
    "WHEN (OLD.status = 'DRAFT' AND NEW.status <> 'DRAFT') "
    "EXECUTE FUNCTION check_finalized_invoice()",
    "CREATE TRIGGER keep_inserted_lines AFTER INSERT ON invoice_lines "
    "REFERENCING NEW TABLE AS changed_lines "
    "FOR EACH STATEMENT EXECUTE FUNCTION keep_invoice_lines()",
    "CREATE TRIGGER keep_deleted_lines AFTER DELETE ON invoice_lines "
    "REFERENCING OLD TABLE AS changed_lines "
    "FOR EACH STATEMENT EXECUTE FUNCTION keep_invoice_lines()",
    # A draft's lines are written anew, never changed in place.
    "CREATE TRIGGER keep_line BEFORE UPDATE ON invoice_lines "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_invoice_counter BEFORE INSERT OR UPDATE ON invoice_counters "
    "FOR EACH ROW EXECUTE FUNCTION keep_invoice_counter()",
    "CREATE TRIGGER keep_invoice_counter_rows BEFORE DELETE ON invoice_counters "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE CONSTRAINT TRIGGER check_invoice_counter AFTER INSERT OR UPDATE ON invoice_counters "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_invoice_counter()",
)

KEPT_TABLES = (
    "customers",
    "plans",
    "plan_versions",
    "plan_prices",
    "subscriptions",
    "invoice_counters",
    "invoices",
    "invoice_lines",
)


def upgrade() -> None:
    """Make the functions and the triggers."""
    for statement in (*FUNCTIONS, *TRIGGERS):
        op.execute(statement)
    for table in KEPT_TABLES:
        op.execute(
            f"CREATE TRIGGER keep_all BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    """Undo upgrade; dropping a function with CASCADE drops its triggers."""
    for name in (
        "refuse_change",
        "check_plan_version",
        "check_plan_price",
        "keep_subscription",
        "keep_invoice",
        "keep_invoice_lines",
        "check_finalized_invoice",
        "keep_invoice_counter",
        "check_invoice_counter",
    ):
        op.execute(f"DROP FUNCTION {name}() CASCADE")
