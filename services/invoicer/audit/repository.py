"""The SQL that reads rows as they are, for somebody else to make sense of."""

from collections.abc import AsyncGenerator, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import TenantKey

_TENANT = "(organization_id, mode) = (:organization_id, :mode)"

PLANS = f"""
    SELECT to_jsonb(v) || jsonb_build_object('prices', (
        SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.position), '[]') FROM plan_prices p
        WHERE (p.organization_id, p.mode, p.plan_id, p.version)
            = (v.organization_id, v.mode, v.plan_id, v.version)
    )) FROM plan_versions v WHERE {_TENANT} ORDER BY plan_id, version
"""  # noqa: S608 (no value is pasted in)

SUBSCRIPTIONS = f"""
    SELECT to_jsonb(s) || jsonb_build_object('discounts', (
        SELECT coalesce(jsonb_agg(to_jsonb(d) ORDER BY d.id), '[]') FROM discounts d
        WHERE (d.organization_id, d.mode, d.subscription_id) = (s.organization_id, s.mode, s.id)
    ), 'phases', (
        SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.start_time, p.priced_from), '[]')
        FROM subscription_phases p
        WHERE (p.organization_id, p.mode, p.subscription_id) = (s.organization_id, s.mode, s.id)
    )) FROM subscriptions s WHERE {_TENANT} ORDER BY id
"""  # noqa: S608 (no value is pasted in)

CHARGES = f"SELECT to_jsonb(c) FROM charges c WHERE {_TENANT} ORDER BY id"  # noqa: S608

COUNTERS = f"SELECT to_jsonb(c) FROM invoice_counters c WHERE {_TENANT} ORDER BY series"  # noqa: S608

CREDIT_WALLETS = f"""
    SELECT to_jsonb(w) || jsonb_build_object('grants', (
        SELECT coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'balance', g.balance)), '[]')
        FROM credit_grants g WHERE (g.organization_id, g.mode, g.customer_id, g.currency)
            = (w.organization_id, w.mode, w.customer_id, w.currency)
    )) FROM credit_wallets w WHERE {_TENANT} ORDER BY customer_id, currency
"""  # noqa: S608 (no value is pasted in)

CREDIT_ENTRIES = f"""
    SELECT to_jsonb(e) FROM credit_entries e WHERE {_TENANT}
    ORDER BY customer_id, currency, sequence
"""  # noqa: S608 (no value is pasted in)


def _parts(name: str, table: str, owner: str) -> str:
    """Rows of `table` that belong to the document `d`."""
    return f"""'{name}', (
        SELECT coalesce(jsonb_agg(to_jsonb(p) ORDER BY p.position), '[]') FROM {table} p
        WHERE (p.organization_id, p.mode, p.{owner}) = (d.organization_id, d.mode, d.id))"""  # noqa: S608 (no value is pasted in)


_INVOICES = f"""
    SELECT organization_id, mode, series, sequence, to_jsonb(d) || jsonb_build_object(
        'type', 'invoice',
        {_parts("lines", "invoice_lines", "invoice_id")},
        {_parts("taxes", "invoice_taxes", "invoice_id")},
        'reading', (
            SELECT to_jsonb(r) FROM invoice_readings ir
            JOIN usage_readings r ON (r.organization_id, r.mode, r.id)
                = (ir.organization_id, ir.mode, ir.reading_id)
            WHERE (ir.organization_id, ir.mode, ir.invoice_id)
                = (d.organization_id, d.mode, d.id)
        )) AS document
    FROM invoices d WHERE {_TENANT} AND sequence IS NOT NULL
"""  # noqa: S608 (no value is pasted in)

_CREDIT_NOTES = f"""
    SELECT organization_id, mode, series, sequence, to_jsonb(d) || jsonb_build_object(
        'type', 'credit_note',
        {_parts("lines", "credit_note_lines", "credit_note_id")},
        {_parts("changes", "credit_note_changes", "credit_note_id")},
        'subscription_id', (
            SELECT i.subscription_id FROM invoices i WHERE (i.organization_id, i.mode, i.id)
                = (d.organization_id, d.mode, d.invoice_id)
        ),
        'next_sequence', (
            SELECT i.sequence FROM invoices i WHERE (i.organization_id, i.mode, i.id)
                = (d.organization_id, d.mode, d.next_invoice_id)
        ),
        'reading', (
            SELECT to_jsonb(r) FROM usage_readings r WHERE (r.organization_id, r.mode, r.id)
                = (d.organization_id, d.mode, d.reading_id)
        )) AS document
    FROM credit_notes d WHERE {_TENANT}
"""  # noqa: S608 (no value is pasted in)

# A document that is gone leaves its hash, and the other way round.
DOCUMENTS = f"""
    SELECT jsonb_build_object('series', coalesce(d.series, h.series),
        'sequence', coalesce(d.sequence, h.sequence), 'document', d.document, 'hash', to_jsonb(h))
    FROM ({_INVOICES} UNION ALL {_CREDIT_NOTES}) AS d
    FULL JOIN (SELECT * FROM document_hashes WHERE {_TENANT}) AS h
        ON (h.series, h.sequence) = (d.series, d.sequence)
    ORDER BY coalesce(d.series, h.series), coalesce(d.sequence, h.sequence)
"""  # noqa: S608 (no value is pasted in)


async def begin_snapshot(connection: AsyncConnection) -> None:
    """All that this transaction reads is of one instant; has to be its first statement."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def stream_rows(
    connection: AsyncConnection, query: str, tenant: TenantKey, rows_at_a_time: int
) -> AsyncGenerator[Sequence[str]]:
    """The rows of one of the queries above, as JSON."""
    # As text, so that no digit of a number passes through anything else.
    statement = text(f"SELECT CAST(found.json AS text) FROM ({query}) AS found (json)")  # noqa: S608
    result = await connection.stream(
        statement, tenant._asdict(), execution_options={"yield_per": rows_at_a_time}
    )
    async for rows in result.scalars().partitions(rows_at_a_time):
        yield rows
