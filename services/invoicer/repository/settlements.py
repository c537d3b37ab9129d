"""What invoices need not be paid with money for: what credits paid, and what was credited."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.exact import ZERO
from services.kit.database import TenantKey


@dataclass(frozen=True, slots=True)
class Settlement:
    """`applied`: by prepaid credits. `credited`: by credit notes from before it was paid."""

    applied: Decimal = ZERO
    credited: Decimal = ZERO


NOTHING = Settlement()

_SETTLED = text(
    """
    SELECT invoice_id, sum(applied) AS applied, sum(credited) AS credited FROM (
        SELECT invoice_id, -amount AS applied, 0 AS credited FROM credit_entries
        WHERE (organization_id, mode) = (:organization_id, :mode)
            AND invoice_id = ANY(CAST(:ids AS text[]))
        UNION ALL
        SELECT invoice_id, 0, amount FROM credit_notes
        WHERE (organization_id, mode) = (:organization_id, :mode)
            AND invoice_id = ANY(CAST(:ids AS text[])) AND refund_reference IS NULL
    ) AS settled GROUP BY invoice_id
    """
)


async def settlements_of(
    connection: AsyncConnection, tenant: TenantKey, invoice_ids: Sequence[str]
) -> dict[str, Settlement]:
    """By invoice id; those of which nothing was settled so are left out."""
    given = {**tenant._asdict(), "ids": list(invoice_ids)}
    rows = await connection.execute(_SETTLED, given)
    return {row.invoice_id: Settlement(row.applied, row.credited) for row in rows}
