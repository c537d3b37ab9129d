"""Tax rates, and whose they are."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Row, delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.tables import tax_assignments, tax_rates
from services.invoicer.taxes import TaxRate, TaxRates
from services.kit.database import TenantKey

CustomerKey = tuple[str, str, str]

# A customer's own rates, or those of the tenant's customers in general (the row without one).
_RATES = text(
    """
    SELECT given.organization_id, given.mode, given.customer_id, r.id, r.name, r.percent,
        r.inclusive, r.create_time
    FROM (
        SELECT DISTINCT * FROM unnest(
            CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:customer_id AS text[])
        ) AS distinct_customers (organization_id, mode, customer_id)
    ) AS given
    CROSS JOIN LATERAL (
        SELECT tax_rate_ids FROM tax_assignments
        WHERE (organization_id, mode) = (given.organization_id, given.mode)
            AND (customer_id = given.customer_id OR customer_id IS NULL)
        ORDER BY customer_id NULLS LAST LIMIT 1
    ) AS a
    CROSS JOIN LATERAL unnest(a.tax_rate_ids) WITH ORDINALITY AS of (tax_rate_id, position)
    JOIN tax_rates r ON (r.organization_id, r.mode, r.id)
        = (given.organization_id, given.mode, of.tax_rate_id)
    ORDER BY of.position
    """
)

_ASSIGN = text(
    """
    INSERT INTO tax_assignments (organization_id, mode, customer_id, tax_rate_ids)
    VALUES (:organization_id, :mode, :customer_id, CAST(:tax_rate_ids AS text[]))
    ON CONFLICT ON CONSTRAINT uq_tax_assignments_customer
        DO UPDATE SET tax_rate_ids = excluded.tax_rate_ids
    """
)

_LOCK_ASSIGNED = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")


async def insert_rate(connection: AsyncConnection, tenant: TenantKey, rate: TaxRate) -> None:
    """Store a new rate."""
    await connection.execute(
        insert(tax_rates).values(
            **tenant._asdict(),
            id=rate.id,
            name=rate.name,
            percent=rate.percent,
            inclusive=rate.inclusive,
            create_time=rate.create_time,
        )
    )


async def get_rates(
    connection: AsyncConnection, tenant: TenantKey, rate_ids: Sequence[str]
) -> list[TaxRate]:
    """Those that exist, in the order of the ids."""
    query = select(tax_rates).where(
        tax_rates.c.organization_id == tenant.organization_id,
        tax_rates.c.mode == tenant.mode,
        tax_rates.c.id.in_(rate_ids),
    )
    found = {row.id: _rate(row) for row in await connection.execute(query)}
    return [found[rate_id] for rate_id in rate_ids if rate_id in found]


async def list_rates(
    connection: AsyncConnection, tenant: TenantKey, *, before_id: str | None, limit: int
) -> list[TaxRate]:
    """Up to `limit` rates, newest first, older than `before_id`."""
    query = select(tax_rates).where(
        tax_rates.c.organization_id == tenant.organization_id, tax_rates.c.mode == tenant.mode
    )
    if before_id is not None:
        query = query.where(tax_rates.c.id < before_id)
    rows = await connection.execute(query.order_by(tax_rates.c.id.desc()).limit(limit))
    return [_rate(row) for row in rows]


async def lock_assigned(connection: AsyncConnection, tenant: TenantKey) -> None:
    """Nobody else assigns the tenant's rates until the transaction ends: some are inherited."""
    await connection.execute(_LOCK_ASSIGNED, {"key": "/".join(("tax", *tenant))})


async def assign(
    connection: AsyncConnection,
    tenant: TenantKey,
    customer_id: str,
    rate_ids: Sequence[str] | None,
) -> None:
    """Give a customer ("": all without rates of their own) these rates; None: none of his own."""
    if rate_ids is not None:
        given = {"customer_id": customer_id or None, "tax_rate_ids": list(rate_ids)}
        await connection.execute(_ASSIGN, {**tenant._asdict(), **given})
        return
    table = tax_assignments.c
    whose = table.customer_id == customer_id if customer_id else table.customer_id.is_(None)
    await connection.execute(
        delete(tax_assignments).where(
            table.organization_id == tenant.organization_id, table.mode == tenant.mode, whose
        )
    )


async def get_assigned(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str
) -> TaxRates:
    """The rates of a customer, or ("") of all without rates of their own."""
    table = tax_assignments.c
    query = select(table.tax_rate_ids).where(
        table.organization_id == tenant.organization_id, table.mode == tenant.mode
    )
    own = query.where(
        table.customer_id == customer_id if customer_id else table.customer_id.is_(None)
    )
    found = (await connection.execute(own)).scalar_one_or_none()
    inherited = found is None and bool(customer_id)
    if inherited:
        general = query.where(table.customer_id.is_(None))
        found = (await connection.execute(general)).scalar_one_or_none()
    rates = await get_rates(connection, tenant, found) if found else []
    return TaxRates(customer_id, tuple(rates), inherited)


async def rates_of(
    connection: AsyncConnection, customers: Iterable[CustomerKey]
) -> dict[CustomerKey, tuple[TaxRate, ...]]:
    """The rates that apply to customers; those without any are left out."""
    keys = sorted(set(customers))
    given = {
        name: [key[index] for key in keys]
        for index, name in enumerate(("organization_id", "mode", "customer_id"))
    }
    rates: dict[CustomerKey, list[TaxRate]] = {}
    for row in await connection.execute(_RATES, given):
        key = (row.organization_id, row.mode, row.customer_id)
        rates.setdefault(key, []).append(_rate(row))
    return {key: tuple(found) for key, found in rates.items()}


def _rate(row: Row[tuple[object, ...]]) -> TaxRate:
    return TaxRate(row.id, row.name, row.percent, row.inclusive, row.create_time)
