"""What a simulation reads. Each function works inside the caller's transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.domain import Plan
from services.invoicer.repository import terms
from services.invoicer.repository.plans import PlanKey, load_plans
from services.invoicer.repository.subscriptions import with_phases
from services.invoicer.simulation import Subscribed
from services.invoicer.tables import customers, subscriptions
from services.kit.database import TenantKey

_SUBSCRIBED = text(
    """
    SELECT DISTINCT customer_id FROM subscriptions
    WHERE (organization_id, mode) = (:organization_id, :mode)
    ORDER BY customer_id
    LIMIT :limit
    """
)

# Of one that is still to begin, the first phase is what it is on.
_ON_PLAN = text(
    """
    SELECT DISTINCT s.customer_id FROM subscription_phases p
    JOIN subscriptions s ON (s.organization_id, s.mode, s.id)
        = (p.organization_id, p.mode, p.subscription_id)
    WHERE (p.organization_id, p.mode) = (:organization_id, :mode) AND p.plan_id = :plan_id
        AND coalesce(p.end_time, 'infinity') > :now
        AND (p.start_time <= :now OR p.start_time = s.start_time)
    ORDER BY s.customer_id
    LIMIT :limit
    """
)

# Whether by a plan or a subscription, the tenant's part of the table is read once.
_PREFER_INDEXES = text("SET LOCAL enable_seqscan = off")


async def find_subscribed(
    connection: AsyncConnection, tenant: TenantKey, plan_id: str, now: datetime, limit: int
) -> list[str]:
    """The ids of up to `limit` customers, in order, who have a subscription; with `plan_id` one
    that is now on that plan.
    """
    given: dict[str, object] = {**tenant._asdict(), "limit": limit}
    if plan_id:
        rows = await connection.execute(_ON_PLAN, {**given, "plan_id": plan_id, "now": now})
    else:
        rows = await connection.execute(_SUBSCRIBED, given)
    return list(rows.scalars())


async def time_zones(
    connection: AsyncConnection, tenant: TenantKey, customer_ids: Sequence[str]
) -> dict[str, str]:
    """The time zones of those customers that there are."""
    query = select(customers.c.id, customers.c.time_zone).where(
        customers.c.organization_id == tenant.organization_id,
        customers.c.mode == tenant.mode,
        customers.c.id.in_(customer_ids),
    )
    return {row.id: row.time_zone for row in await connection.execute(query)}


async def subscribed_of(
    connection: AsyncConnection,
    tenant: TenantKey,
    customer_ids: Sequence[str],
    plan_id: str,
    now: datetime,
) -> Mapping[str, list[Subscribed]]:
    """The subscriptions of these customers, oldest first; with `plan_id` those now on that plan."""
    await connection.execute(_PREFER_INDEXES)
    query = (
        select(subscriptions)
        .where(
            subscriptions.c.organization_id == tenant.organization_id,
            subscriptions.c.mode == tenant.mode,
            subscriptions.c.customer_id.in_(customer_ids),
        )
        .order_by(subscriptions.c.id)
    )
    found = await with_phases(connection, (await connection.execute(query)).all())
    on = [(each, each.phase_at(now)) for each in found if each.phases]
    if plan_id:
        on = [(each, phase) for each, phase in on if phase.plan_id == plan_id]
        on = [(each, phase) for each, phase in on if phase.end_time is None or phase.end_time > now]
    keys = {each.id: PlanKey(*tenant, phase.plan_id, phase.plan_version) for each, phase in on}
    plans: dict[PlanKey, Plan] = await load_plans(connection, keys.values())
    discounts = await terms.discounts_of(connection, [(*tenant, each.id) for each, _ in on])
    result: dict[str, list[Subscribed]] = {}
    for each, _phase in on:
        own = discounts.get((*tenant, each.id), ())
        result.setdefault(each.customer_id, []).append(Subscribed(each, plans[keys[each.id]], own))
    return result
