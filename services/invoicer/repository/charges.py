"""One-off charges."""

from sqlalchemy import Row, Select, and_, delete, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.charges import ChargeTiming, OneOffCharge
from services.invoicer.tables import charges, invoice_lines
from services.kit.database import TenantKey

# A charge waits while no line bills it.
_COUNT_WAITING = text(
    """
    SELECT count(*) FROM charges c
    WHERE (c.organization_id, c.mode, c.subscription_id)
            = (:organization_id, :mode, :subscription_id)
        AND NOT EXISTS (
            SELECT FROM invoice_lines l WHERE (l.charge_id, l.organization_id, l.mode)
                = (c.id, c.organization_id, c.mode)
        )
    """
)


async def insert_charge(
    connection: AsyncConnection,
    tenant: TenantKey,
    charge: OneOffCharge,
    idempotency_key: str,
    content_digest: bytes,
) -> bool:
    """Store a new charge; False, and nothing is stored, when its key ("": none) is used.

    Another transaction that is just using the key is waited for.
    """
    statement = (
        upsert(charges)
        .values(
            **tenant._asdict(),
            id=charge.id,
            customer_id=charge.customer_id,
            subscription_id=charge.subscription_id or None,
            description=charge.description,
            quantity=charge.quantity,
            unit_price=charge.unit_price,
            currency=charge.currency,
            idempotency_key=idempotency_key or None,
            content_digest=content_digest,
            create_time=charge.create_time,
        )
        .on_conflict_do_nothing(constraint="uq_charges_idempotency_key")
    )
    return (await connection.execute(statement)).rowcount == 1


async def find_by_key(
    connection: AsyncConnection, tenant: TenantKey, idempotency_key: str
) -> tuple[OneOffCharge, bytes] | None:
    """The charge that was sent with a key, and the digest of what was sent; None: no such key."""
    query = _of_tenant(tenant).where(charges.c.idempotency_key == idempotency_key)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else (_charge(row), row.content_digest)


async def get_charge(
    connection: AsyncConnection, tenant: TenantKey, charge_id: str
) -> OneOffCharge | None:
    """The charge, or None."""
    query = _of_tenant(tenant).where(charges.c.id == charge_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _charge(row)


async def list_charges(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    customer_id: str,
    before_id: str | None,
    limit: int,
) -> list[OneOffCharge]:
    """Up to `limit` charges, newest first, older than `before_id`; "" for any customer."""
    query = _of_tenant(tenant)
    if customer_id:
        query = query.where(charges.c.customer_id == customer_id)
    if before_id is not None:
        query = query.where(charges.c.id < before_id)
    rows = await connection.execute(query.order_by(charges.c.id.desc()).limit(limit))
    return [_charge(row) for row in rows]


async def count_waiting(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str
) -> int:
    """How many charges wait for the subscription's next invoice."""
    given = {**tenant._asdict(), "subscription_id": subscription_id}
    return int((await connection.execute(_COUNT_WAITING, given)).scalar_one())


async def delete_charge(connection: AsyncConnection, tenant: TenantKey, charge_id: str) -> None:
    """Forget a charge that waits; the database refuses it for one that was invoiced."""
    await connection.execute(
        delete(charges).where(
            charges.c.organization_id == tenant.organization_id,
            charges.c.mode == tenant.mode,
            charges.c.id == charge_id,
        )
    )


def _of_tenant(tenant: TenantKey) -> Select[tuple[object, ...]]:
    lines = invoice_lines.c
    billed = and_(
        lines.charge_id == charges.c.id,
        lines.organization_id == charges.c.organization_id,
        lines.mode == charges.c.mode,
    )
    return (
        select(charges, lines.invoice_id)
        .select_from(charges.outerjoin(invoice_lines, billed))
        .where(charges.c.organization_id == tenant.organization_id, charges.c.mode == tenant.mode)
    )


def _charge(row: Row[tuple[object, ...]]) -> OneOffCharge:
    return charge_of(row, row.invoice_id or "")


def charge_of(row: Row[tuple[object, ...]], invoice_id: str) -> OneOffCharge:
    """The charge in a row of its table."""
    waits = row.subscription_id is not None
    return OneOffCharge(
        id=row.id,
        customer_id=row.customer_id,
        subscription_id=row.subscription_id or "",
        description=row.description,
        quantity=row.quantity,
        unit_price=row.unit_price,
        currency=row.currency,
        timing=ChargeTiming.NEXT_INVOICE if waits else ChargeTiming.NOW,
        create_time=row.create_time,
        invoice_id=invoice_id,
    )
