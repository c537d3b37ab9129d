"""The hashes of finalized documents: invoices and credit notes."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Table, and_, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.tables import document_hashes
from services.kit.database import TenantKey

# In the order of the numbers: each holds the hash of the one before.
_CHAIN = text(
    """
    INSERT INTO document_hashes (organization_id, mode, series, sequence)
    SELECT :organization_id, :mode, :series, given.sequence
    FROM unnest(CAST(:sequence AS bigint[])) AS given (sequence) ORDER BY given.sequence
    RETURNING hash
    """
)


async def chain(
    connection: AsyncConnection, tenant: TenantKey, series: str, sequences: Sequence[int]
) -> list[bytes]:
    """Hash documents that are complete; the hashes, in the order of the numbers."""
    given = {**tenant._asdict(), "series": series, "sequence": list(sequences)}
    return list((await connection.execute(_CHAIN, given)).scalars())


def hash_of(documents: Table) -> ColumnElement[bool]:
    """What joins invoices or credit notes to their hashes."""
    columns, hashed = documents.c, document_hashes.c
    return and_(
        hashed.organization_id == columns.organization_id,
        hashed.mode == columns.mode,
        hashed.series == columns.series,
        hashed.sequence == columns.sequence,
    )
