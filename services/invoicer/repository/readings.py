"""What usage was read for invoices."""

from collections.abc import Mapping
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
    SELECT i.finalize_time, r.counted_before, r.batch_ids FROM invoices i
    LEFT JOIN invoice_readings ir ON (ir.organization_id, ir.mode, ir.invoice_id)
        = (i.organization_id, i.mode, i.id)
    LEFT JOIN usage_readings r ON (r.organization_id, r.mode, r.id)
        = (ir.organization_id, ir.mode, ir.reading_id)
"""

_OF_INVOICE = text(
    f"{_READING} WHERE (i.organization_id, i.mode, i.id) = (:organization_id, :mode, :invoice_id)"
)

# Void ones aside, unless they were not void yet when the later one was written.
_LAST_BILLED = text(
    f"""
    {_READING}
    JOIN invoices later ON (later.organization_id, later.mode, later.subscription_id)
        = (i.organization_id, i.mode, i.subscription_id) AND later.sequence > i.sequence
    WHERE (later.organization_id, later.mode, later.id) = (:organization_id, :mode, :invoice_id)
        AND (i.void_time IS NULL OR i.void_time > later.finalize_time)
        AND EXISTS (
            SELECT FROM invoice_lines l
            WHERE (l.organization_id, l.mode, l.invoice_id) = (i.organization_id, i.mode, i.id)
                AND l.kind IN ('USAGE', 'LATE_USAGE') AND l.metric = :metric
                AND (l.period_start, l.period_end) = (:period_start, :period_end)
        )
    ORDER BY i.sequence DESC LIMIT 1
    """
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
    read = list({reading.id: reading for reading in readings.values()}.values())
    await connection.execute(
        _INSERT_READINGS,
        {
            **tenant._asdict(),
            "id": [reading.id for reading in read],
            "before": [reading.counted.before for reading in read],
            "batch_ids": [reading.counted.batch_ids for reading in read],
        },
    )
    await connection.execute(
        _INSERT_INVOICE_READINGS,
        {
            **tenant._asdict(),
            "invoice_id": list(readings),
            "reading_id": [reading.id for reading in readings.values()],
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
