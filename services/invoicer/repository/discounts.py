"""Discounts of subscriptions."""

from datetime import datetime

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.discounts import Discount, SubscriptionDiscount
from services.invoicer.tables import discounts
from services.kit.database import TenantKey


async def insert_discount(
    connection: AsyncConnection, tenant: TenantKey, made: SubscriptionDiscount
) -> None:
    """Store a new discount."""
    discount = made.discount
    await connection.execute(
        insert(discounts).values(
            **tenant._asdict(),
            id=made.id,
            subscription_id=made.subscription_id,
            name=discount.name,
            percent=discount.percent,
            amount=discount.amount,
            periods=discount.periods,
            start_time=made.start_time,
            end_time=made.end_time,
            create_time=made.create_time,
        )
    )


async def get_discount(
    connection: AsyncConnection, tenant: TenantKey, discount_id: str
) -> SubscriptionDiscount | None:
    """The discount, or None."""
    query = select(discounts).where(
        discounts.c.organization_id == tenant.organization_id,
        discounts.c.mode == tenant.mode,
        discounts.c.id == discount_id,
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else discount_of(row)


async def list_discounts(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str
) -> list[SubscriptionDiscount]:
    """All of a subscription, ended ones included, oldest first."""
    query = select(discounts).where(
        discounts.c.subscription_id == subscription_id,
        discounts.c.organization_id == tenant.organization_id,
        discounts.c.mode == tenant.mode,
    )
    return [discount_of(row) for row in await connection.execute(query.order_by(discounts.c.id))]


async def end_discount(
    connection: AsyncConnection, tenant: TenantKey, discount_id: str, end_time: datetime
) -> None:
    """Let it end then; the database refuses what would change an invoiced period."""
    await connection.execute(
        update(discounts)
        .where(
            discounts.c.organization_id == tenant.organization_id,
            discounts.c.mode == tenant.mode,
            discounts.c.id == discount_id,
        )
        .values(end_time=end_time)
    )


def discount_of(row: Row[tuple[object, ...]]) -> SubscriptionDiscount:
    """The discount in a row of its table."""
    return SubscriptionDiscount(
        id=row.id,
        subscription_id=row.subscription_id,
        discount=Discount(row.name, row.percent, row.amount, row.periods),
        start_time=row.start_time,
        end_time=row.end_time,
        create_time=row.create_time,
    )
