"""Each finalized document holds the hash of its content and of its predecessor's hash.

The database works both out itself, in document_hashes, one row for each number of a series; nobody
can store another hash, and no document is finalized without. What is hashed is plain JSON
(docs/adr/0029-hash-chain.md): keys in alphabetical order, no white space, decimals and times as
strings of one form. Documents from before get theirs here.
"""

from alembic import op

revision = "0012"
down_revision = "0010"

TABLE = """
CREATE TABLE document_hashes (
    organization_id text NOT NULL,
    mode text NOT NULL,
    series text NOT NULL,
    sequence bigint NOT NULL,
    document_id text NOT NULL,
    format smallint NOT NULL,
    previous_hash bytea NOT NULL,
    content_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT pk_document_hashes PRIMARY KEY (organization_id, mode, series, sequence),
    CONSTRAINT ck_document_hashes_sequence CHECK (sequence >= 1),
    CONSTRAINT ck_document_hashes_format CHECK (format = 1),
    CONSTRAINT ck_document_hashes_first
        CHECK ((sequence = 1) = (previous_hash = decode(repeat('00', 32), 'hex'))),
    CONSTRAINT ck_document_hashes_lengths
        CHECK (octet_length(previous_hash) = 32 AND octet_length(content_hash) = 32),
    CONSTRAINT ck_document_hashes_hash CHECK (hash = sha256(previous_hash || content_hash))
)
"""

# Values as they stand in the JSON; NULL is null.
VALUES = (
    """
    CREATE FUNCTION canonical(value text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(to_json(value)::text, 'null')
    $$
    """,
    """
    CREATE FUNCTION canonical(value numeric) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce('"' || trim_scale(value)::text || '"', 'null')
    $$
    """,
    """
    CREATE FUNCTION canonical(value timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        '"' || to_char(value AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"') || '"', 'null'
    )
    $$
    """,
    """
    CREATE FUNCTION canonical(value json) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT '[' || coalesce(string_agg(canonical(item), ',' ORDER BY number), '') || ']'
    FROM json_array_elements_text(value) WITH ORDINALITY AS items (item, number)
    $$
    """,
)

INVOICE_CONTENT = """
CREATE FUNCTION invoice_content(of invoices) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    lines text;
    taxes text;
BEGIN
    SELECT coalesce(string_agg(
        '{"amount":' || canonical(amount)
        || ',"charge_id":' || canonical(charge_id)
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
        || '}', ',' ORDER BY position), '')
    INTO lines FROM invoice_lines
    WHERE (organization_id, mode, invoice_id) = (of.organization_id, of.mode, of.id);
    SELECT coalesce(string_agg(
        '{"amount":' || canonical(amount)
        || ',"inclusive":' || inclusive::text
        || ',"name":' || canonical(name)
        || ',"percent":' || canonical(percent)
        || ',"position":' || position::text
        || ',"tax_rate_id":' || canonical(tax_rate_id)
        || ',"taxable":' || canonical(taxable)
        || '}', ',' ORDER BY position), '')
    INTO taxes FROM invoice_taxes
    WHERE (organization_id, mode, invoice_id) = (of.organization_id, of.mode, of.id);
    RETURN '{"amount":' || canonical(of.amount)
        || ',"create_time":' || canonical(of.create_time)
        || ',"currency":' || canonical(of.currency)
        || ',"customer_id":' || canonical(of.customer_id)
        || ',"finalize_time":' || canonical(of.finalize_time)
        || ',"format"\\:1'
        || ',"id":' || canonical(of.id)
        || ',"kind":' || canonical(of.kind)
        || ',"lines":[' || lines || ']'
        || ',"mode":' || canonical(of.mode)
        || ',"number":' || canonical(of.number)
        || ',"organization_id":' || canonical(of.organization_id)
        || ',"period_end":' || canonical(of.period_end)
        || ',"period_start":' || canonical(of.period_start)
        || ',"plan_id":' || canonical(of.plan_id)
        || ',"plan_version":' || coalesce(of.plan_version::text, 'null')
        || ',"subscription_id":' || canonical(of.subscription_id)
        || ',"taxes":[' || taxes || ']'
        || ',"type":"invoice"}';
END
$$
"""

CREDIT_NOTE_CONTENT = """
CREATE FUNCTION credit_note_content(of credit_notes) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    lines text;
    line_count integer;
BEGIN
    SELECT coalesce(string_agg(
        '{"amount":' || canonical(amount)
        || ',"description":' || canonical(description)
        || ',"position":' || position::text
        || '}', ',' ORDER BY position), ''), count(*)
    INTO lines, line_count FROM credit_note_lines
    WHERE (organization_id, mode, credit_note_id) = (of.organization_id, of.mode, of.id);
    IF line_count <> of.lines_count THEN
        RAISE EXCEPTION 'credit note % is hashed when all of its lines are there', of.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN '{"amount":' || canonical(of.amount)
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

# Whatever a statement gives besides organization, mode, series and number is written over.
CHAIN = """
CREATE FUNCTION chain_document() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    invoice invoices;
    note credit_notes;
    content text;
BEGIN
    SELECT * INTO invoice FROM invoices WHERE (series, organization_id, mode, sequence)
        = (NEW.series, NEW.organization_id, NEW.mode, NEW.sequence);
    IF FOUND THEN
        NEW.document_id := invoice.id;
        content := invoice_content(invoice);
    ELSE
        SELECT * INTO note FROM credit_notes WHERE (series, organization_id, mode, sequence)
            = (NEW.series, NEW.organization_id, NEW.mode, NEW.sequence);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no document % of series %', NEW.sequence, NEW.series
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        NEW.document_id := note.id;
        content := credit_note_content(note);
    END IF;
    IF NEW.sequence = 1 THEN
        NEW.previous_hash := decode(repeat('00', 32), 'hex');
    ELSE
        SELECT hash INTO NEW.previous_hash FROM document_hashes
        WHERE (organization_id, mode, series, sequence)
            = (NEW.organization_id, NEW.mode, NEW.series, NEW.sequence - 1);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'document % of series % has no predecessor', NEW.sequence, NEW.series
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    NEW.format := 1;
    NEW.content_hash := sha256(convert_to(content, 'UTF8'));
    NEW.hash := sha256(NEW.previous_hash || NEW.content_hash);
    RETURN NEW;
END
$$
"""

CHECK_HASHED = """
CREATE FUNCTION check_hashed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM document_hashes WHERE (organization_id, mode, series, sequence)
            = (NEW.organization_id, NEW.mode, NEW.series, NEW.sequence)
    ) THEN
        RAISE EXCEPTION 'document % is finalized without its hash', NEW.number
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$
"""

CHAIN_TRIGGER = (
    "CREATE TRIGGER chain_document BEFORE INSERT ON document_hashes "
    "FOR EACH ROW EXECUTE FUNCTION chain_document()"
)

# In the order of numbers, so that each finds its predecessor.
FILL = """
INSERT INTO document_hashes (organization_id, mode, series, sequence)
SELECT organization_id, mode, series, sequence FROM (
    SELECT organization_id, mode, series, sequence FROM invoices WHERE sequence IS NOT NULL
    UNION ALL SELECT organization_id, mode, series, sequence FROM credit_notes
) AS documents ORDER BY organization_id, mode, series, sequence
"""

TRIGGERS = (
    "CREATE CONSTRAINT TRIGGER check_hashed AFTER UPDATE ON invoices "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
    "WHEN (OLD.status = 'DRAFT' AND NEW.status <> 'DRAFT') EXECUTE FUNCTION check_hashed()",
    "CREATE CONSTRAINT TRIGGER check_hashed AFTER INSERT ON credit_notes "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_hashed()",
    "CREATE TRIGGER keep_document_hash BEFORE UPDATE OR DELETE ON document_hashes "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "CREATE TRIGGER keep_all BEFORE TRUNCATE ON document_hashes "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
)


def upgrade() -> None:
    """Make the chain, and hash what there is."""
    contents = (INVOICE_CONTENT, CREDIT_NOTE_CONTENT, CHAIN, CHECK_HASHED)
    for statement in (TABLE, *VALUES, *contents, CHAIN_TRIGGER, FILL, *TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Undo upgrade; made again, the chain is the same: it follows from the documents."""
    op.execute("DROP FUNCTION check_hashed() CASCADE")
    op.execute("DROP TABLE document_hashes")
    op.execute("DROP FUNCTION chain_document()")
    op.execute("DROP FUNCTION invoice_content(invoices), credit_note_content(credit_notes)")
    for kind in ("json", "timestamptz", "numeric", "text"):
        op.execute(f"DROP FUNCTION canonical({kind})")
