"""Customers."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import Row, literal_column, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.checks import TIME_ZONE_DEFAULT
from services.invoicer.domain import Customer
from services.invoicer.tables import CUSTOMERS_TENANT, customers
from services.kit.database import TenantKey

_DEFAULTS = {
    "name": "",
    "email": "",
    "time_zone": TIME_ZONE_DEFAULT,
    "currency": None,
    "metadata_json": "",
}
_ENSURE = text(
    """
    INSERT INTO customers
        (organization_id, mode, id, name, email, time_zone, metadata_json, create_time)
    SELECT organization_id, mode, id, '', '', :time_zone, '', :now
    FROM unnest(CAST(:organizations AS text[]), CAST(:modes AS text[]), CAST(:ids AS text[]))
        AS given (organization_id, mode, id)
    ON CONFLICT DO NOTHING
    """
)
_COLUMNS = [customers.c[name] for name in ("id", *_DEFAULTS, "create_time")]


async def put_customer(
    connection: AsyncConnection,
    tenant: TenantKey,
    customer_id: str,
    values: Mapping[str, str],
    now: datetime,
) -> tuple[Customer, bool]:
    """Make the customer, or set `values` of the one there is; whether it was made."""
    fields = {**values}
    if "currency" in fields:
        fields["currency"] = fields["currency"] or None  # type: ignore[assignment]
    statement = insert(customers).values(
        organization_id=tenant.organization_id,
        mode=tenant.mode,
        id=customer_id,
        create_time=now,
        **{**_DEFAULTS, **fields},
    )
    upsert = statement.on_conflict_do_update(
        index_elements=["organization_id", "mode", "id"], set_=fields
    ).returning(*_COLUMNS, literal_column("xmax = 0").label("created"))
    row = (await connection.execute(upsert)).one()
    return _customer(row), bool(row.created)


async def ensure_customers(
    connection: AsyncConnection, keys: Iterable[tuple[TenantKey, str]], now: datetime
) -> None:
    """Let the customers that are unknown come into being."""
    # In one order everywhere: two replicas with the same customers must not deadlock.
    rows = sorted(set(keys))
    if not rows:
        return
    values = {
        "organizations": [tenant.organization_id for tenant, _ in rows],
        "modes": [tenant.mode for tenant, _ in rows],
        "ids": [customer_id for _, customer_id in rows],
        "time_zone": TIME_ZONE_DEFAULT,
        "now": now,
    }
    await connection.execute(_ENSURE, values)


async def get_customer(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str, *, lock: bool = False
) -> Customer | None:
    """The customer, or None; with `lock` nobody else changes it until the transaction ends."""
    query = select(*_COLUMNS).where(
        customers.c.organization_id == tenant.organization_id,
        customers.c.mode == tenant.mode,
        customers.c.id == customer_id,
    )
    if lock:
        # What refers to the customer goes on meanwhile: its key never changes.
        query = query.with_for_update(key_share=True)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _customer(row)


async def list_customers(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Customer]:
    """Up to `limit` customers, newest first, after the one made at `before` with that id."""
    position = tuple_(customers.c.create_time, customers.c.id)
    query = select(*_COLUMNS).where(text(f"{CUSTOMERS_TENANT} = :tenant"))
    if before is not None:
        query = query.where(position < before)
    query = query.order_by(customers.c.create_time.desc(), customers.c.id.desc()).limit(limit)
    rows = await connection.execute(query, {"tenant": "/".join(tenant)})
    return [_customer(row) for row in rows]


def _customer(row: Row[tuple[object, ...]]) -> Customer:
    return Customer(
        id=row.id,
        name=row.name,
        email=row.email,
        time_zone=row.time_zone,
        currency=row.currency or "",
        metadata_json=row.metadata_json,
        create_time=row.create_time,
    )
