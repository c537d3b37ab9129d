"""Entries of the audit log are numbered and chained by hashes, which the database works out.

Each organization and mode has a chain: an entry's hash is SHA-256 of the hash before it and of the
entry's content, each part as a netstring (its length in bytes, ":", itself, ","). Whoever has noted
a hash can tell later that nothing before it was changed, left out or put in.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

AUDIT_HASH = r"""
CREATE FUNCTION audit_hash(entry audit_log) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(entry.previous_hash || convert_to(string_agg(
        octet_length(convert_to(part, 'UTF8')) || ':' || part || ',', '' ORDER BY place
    ), 'UTF8'))
    FROM unnest(ARRAY[
        entry.number::text, entry.id, entry.organization_id, entry.mode, entry.action,
        entry.target_id, entry.key_id, entry.request_id,
        trunc(extract(epoch FROM entry.time) * 1000000)::bigint::text, entry.details::text
    ]) WITH ORDINALITY AS parts (part, place)
$$
"""
# An entry that is there already is not an error and not a link: what other services tell may come
# twice. Whoever adds to a chain waits for those before.
CHAIN_AUDIT_LOG = """
CREATE FUNCTION chain_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    head audit_heads;
BEGIN
    INSERT INTO audit_heads (organization_id, mode, number, hash)
    VALUES (NEW.organization_id, NEW.mode, 0, decode(repeat('00', 32), 'hex'))
    ON CONFLICT DO NOTHING;
    SELECT * INTO head FROM audit_heads
    WHERE organization_id = NEW.organization_id AND mode = NEW.mode FOR UPDATE;
    IF EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id) THEN
        RETURN NULL;
    END IF;
    NEW.number = head.number + 1;
    NEW.previous_hash = head.hash;
    NEW.hash = audit_hash(NEW);
    UPDATE audit_heads SET number = NEW.number, hash = NEW.hash
    WHERE organization_id = NEW.organization_id AND mode = NEW.mode;
    RETURN NEW;
END
$$
"""
KEEP_AUDIT_HEADS = """
CREATE FUNCTION keep_audit_heads() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'a chain is never cut off';
    END IF;
    IF (NEW.organization_id, NEW.mode, NEW.number)
        IS DISTINCT FROM (OLD.organization_id, OLD.mode, OLD.number + 1)
    THEN
        RAISE EXCEPTION 'a chain grows by one entry after the other';
    END IF;
    RETURN NEW;
END
$$
"""
# Entries from before are chained in the order in which they were recorded.
CHAIN_WHAT_IS_THERE = """
DO $$
DECLARE
    entry audit_log;
    head audit_heads;
BEGIN
    FOR entry IN SELECT * FROM audit_log ORDER BY record_time, id LOOP
        INSERT INTO audit_heads (organization_id, mode, number, hash)
        VALUES (entry.organization_id, entry.mode, 0, decode(repeat('00', 32), 'hex'))
        ON CONFLICT DO NOTHING;
        SELECT * INTO head FROM audit_heads
        WHERE organization_id = entry.organization_id AND mode = entry.mode;
        entry.number = head.number + 1;
        entry.previous_hash = head.hash;
        entry.hash = audit_hash(entry);
        UPDATE audit_log SET number = entry.number, previous_hash = entry.previous_hash,
            hash = entry.hash
        WHERE id = entry.id;
        UPDATE audit_heads SET number = entry.number, hash = entry.hash
        WHERE organization_id = entry.organization_id AND mode = entry.mode;
    END LOOP;
END
$$
"""
COLUMNS = {"number": sa.BigInteger, "previous_hash": sa.LargeBinary, "hash": sa.LargeBinary}


def upgrade() -> None:
    """Add the columns, chain what is there, and chain what comes."""
    op.create_table(
        "audit_heads",
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "mode", name="pk_audit_heads"),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name="fk_audit_heads_organization_id_organizations",
        ),
    )
    for name, kind in COLUMNS.items():
        op.add_column("audit_log", sa.Column(name, kind))
    op.execute(AUDIT_HASH)
    op.execute("ALTER TABLE audit_log DISABLE TRIGGER keep_audit_log")
    op.execute(CHAIN_WHAT_IS_THERE)
    op.execute("ALTER TABLE audit_log ENABLE TRIGGER keep_audit_log")
    for name in COLUMNS:
        op.alter_column("audit_log", name, nullable=False)
    op.create_unique_constraint(
        "uq_audit_log_number", "audit_log", ["organization_id", "mode", "number"]
    )
    op.execute(CHAIN_AUDIT_LOG)
    op.execute(
        "CREATE TRIGGER chain_audit_log BEFORE INSERT ON audit_log "
        "FOR EACH ROW EXECUTE FUNCTION chain_audit_log()"
    )
    op.execute(KEEP_AUDIT_HEADS)
    op.execute(
        "CREATE TRIGGER keep_audit_heads BEFORE UPDATE OR DELETE ON audit_heads "
        "FOR EACH ROW EXECUTE FUNCTION keep_audit_heads()"
    )
    op.execute(
        "CREATE TRIGGER keep_audit_heads_whole BEFORE TRUNCATE ON audit_heads "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_heads()"
    )


def downgrade() -> None:
    """Undo upgrade."""
    op.execute("DROP TRIGGER chain_audit_log ON audit_log")
    op.execute("DROP FUNCTION chain_audit_log()")
    op.execute("DROP FUNCTION audit_hash(audit_log)")
    op.drop_constraint("uq_audit_log_number", "audit_log")
    for name in COLUMNS:
        op.drop_column("audit_log", name)
    op.drop_table("audit_heads")
    op.execute("DROP FUNCTION keep_audit_heads()")
