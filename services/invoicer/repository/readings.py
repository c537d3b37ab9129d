"""What usage was read for invoices."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.domain import InvoiceLine
from services.invoicer.readings import Counted, UsageReading
from services.kit.database import TenantKey

# A replica's writers share readings: whoever comes second waits for the first and finds it there.
_INSERT_READINGS = text(
    """
    INSERT INTO usage_readings (organization_id, mode, id, counted_before, batch_ids)
    SELECT :organization_id, :mode, reading.* FROM unnest(
        CAST(:id AS text[]), CAST(:before AS timestamptz[]), CAST(:batch_ids AS bytea[])
    ) AS reading (id, counted_before, batch_ids) ORDER BY reading.id
    ON CONFLICT DO NOTHING
    """
)

_INSERT_INVOICE_READINGS = text(
    """
    INSERT INTO invoice_readings (organization_id, mode, invoice_id, reading_id)
    SELECT :organization_id, :mode, given.*
    FROM unnest(CAST(:invoice_id AS text[]), CAST(:reading_id AS text[])) AS given
    """
)

_READING = """
    LEFT JOIN invoice_readings ir ON (ir.organization_id, ir.mode, ir.invoice_id)
        = (i.organization_id, i.mode, i.id)
    LEFT JOIN usage_readings r ON (r.organization_id, r.mode, r.id)
        = (ir.organization_id, ir.mode, ir.reading_id)
"""

_OF_INVOICE = text(
    f"""
    SELECT i.finalize_time, r.counted_before, r.batch_ids FROM invoices i {_READING}
    WHERE (i.organization_id, i.mode, i.id) = (:organization_id, :mode, :invoice_id)
    """  # noqa: S608 (no value is pasted in)
)

# By invoices, void ones aside, unless they were not void yet when the later one was written; and by
# credit notes that changed what was billed, each at the place of the invoice written with it.
_LAST_BILLED = text(
    f"""
    WITH later AS (
        SELECT * FROM invoices
        WHERE (organization_id, mode, id) = (:organization_id, :mode, :invoice_id)
    ), earlier AS (
        SELECT i.* FROM later JOIN invoices i
            ON (i.organization_id, i.mode, i.subscription_id)
                = (later.organization_id, later.mode, later.subscription_id)
            AND i.sequence < later.sequence
    )
    SELECT * FROM (
        SELECT i.sequence, i.finalize_time, r.counted_before, r.batch_ids
        FROM earlier i CROSS JOIN later {_READING}
        WHERE (i.void_time IS NULL OR i.void_time > later.finalize_time)
            AND EXISTS (
                SELECT FROM invoice_lines l
                WHERE (l.organization_id, l.mode, l.invoice_id) = (i.organization_id, i.mode, i.id)
                    AND l.kind IN ('USAGE', 'LATE_USAGE') AND l.metric = :metric
                    AND (l.period_start, l.period_end) = (:period_start, :period_end)
            )
        UNION ALL
        SELECT i.sequence, n.create_time, r.counted_before, r.batch_ids
        FROM earlier i
        JOIN credit_notes n ON (n.next_invoice_id, n.organization_id, n.mode)
            = (i.id, i.organization_id, i.mode)
        JOIN usage_readings r ON (r.organization_id, r.mode, r.id)
            = (n.organization_id, n.mode, n.reading_id)
        WHERE EXISTS (
            SELECT FROM credit_note_changes c
            WHERE (c.organization_id, c.mode, c.credit_note_id) = (n.organization_id, n.mode, n.id)
                AND c.metric = :metric
                AND (c.period_start, c.period_end) = (:period_start, :period_end)
        )
    ) AS billed ORDER BY sequence DESC LIMIT 1
    """  # noqa: S608 (no value is pasted in)
)


@dataclass(frozen=True, slots=True)
class KnownReading:
    """What figures hold. `exact`: False where an invoice is older than readings; then it is what
    was accepted before the invoice was written.
    """

    counted: Counted
    exact: bool


async def insert_readings(
    connection: AsyncConnection, tenant: TenantKey, readings: Mapping[str, UsageReading]
) -> None:
    """Keep what was read for invoices, by invoice id, which are written in this transaction."""
    if not readings:
        return
    await keep_readings(connection, tenant, readings.values())
    await connection.execute(
        _INSERT_INVOICE_READINGS,
        {
            **tenant._asdict(),
            "invoice_id": list(readings),
            "reading_id": [reading.id for reading in readings.values()],
        },
    )


async def keep_readings(
    connection: AsyncConnection, tenant: TenantKey, readings: Iterable[UsageReading]
) -> None:
    """Keep readings, each once."""
    read = list({reading.id: reading for reading in readings}.values())
    await connection.execute(
        _INSERT_READINGS,
        {
            **tenant._asdict(),
            "id": [reading.id for reading in read],
            "before": [reading.counted.before for reading in read],
            "batch_ids": [reading.counted.batch_ids for reading in read],
        },
    )


async def reading_of(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str
) -> KnownReading:
    """What was read for an invoice, which exists and is final."""
    given = {**tenant._asdict(), "invoice_id": invoice_id}
    return _known((await connection.execute(_OF_INVOICE, given)).one())


async def last_billed(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str, line: InvoiceLine
) -> KnownReading | None:
    """What was read when the period of a line was billed before its invoice; None: it was not."""
    given = {
        **tenant._asdict(),
        "invoice_id": invoice_id,
        "metric": line.metric,
        "period_start": line.period.start,
        "period_end": line.period.end,
    }
    row = (await connection.execute(_LAST_BILLED, given)).one_or_none()
    return None if row is None else _known(row)


def _known(row: Row[Any]) -> KnownReading:
    if row.batch_ids is None:
        return KnownReading(Counted(row.finalize_time), exact=False)
    return KnownReading(Counted(row.counted_before, row.batch_ids), exact=True)
