"""Plans and their versions."""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Row, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.discounts import discount_parameters, parse_discount
from services.invoicer.domain import BasePriceTiming, MetricPrice, Plan, PlanContent, UsageLimit
from services.invoicer.periods import BillingPeriod
from services.invoicer.pricing.charge import Limits
from services.invoicer.pricing.registry import PRICING_MODELS
from services.invoicer.tables import plan_prices, plan_versions, plans
from services.kit.database import TenantKey
from services.kit.errors import FieldChecks


class PlanKey(NamedTuple):
    """One version of a plan."""

    organization_id: str
    mode: str
    plan_id: str
    version: int


async def insert_plan(connection: AsyncConnection, tenant: TenantKey, plan: Plan) -> None:
    """Store a new plan: its first version."""
    await connection.execute(
        insert(plans).values(
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            id=plan.id,
            newest_version=plan.version,
        )
    )
    await insert_version(connection, tenant, plan)


async def take_next_version(
    connection: AsyncConnection, tenant: TenantKey, plan_id: str
) -> int | None:
    """The number of the plan's next version, which is to be inserted; None: no such plan."""
    statement = (
        update(plans)
        .where(
            plans.c.organization_id == tenant.organization_id,
            plans.c.mode == tenant.mode,
            plans.c.id == plan_id,
        )
        .values(newest_version=plans.c.newest_version + 1)
        .returning(plans.c.newest_version)
    )
    version: int | None = (await connection.execute(statement)).scalar_one_or_none()
    return version


async def insert_version(connection: AsyncConnection, tenant: TenantKey, plan: Plan) -> None:
    """Store a version with its prices."""
    key = PlanKey(tenant.organization_id, tenant.mode, plan.id, plan.version)
    content = plan.content
    await connection.execute(
        insert(plan_versions).values(
            **key._asdict(),
            name=content.name,
            currency=content.currency,
            base_price=content.base_price,
            billing_period=content.billing_period.value,
            base_price_timing=content.base_price_timing.value,
            setup_fee=content.setup_fee,
            minimum=content.limits.minimum,
            maximum=content.limits.maximum,
            discounts=[discount_parameters(each) for each in content.discounts],
            metrics_count=len(content.metrics),
            create_time=plan.create_time,
        )
    )
    prices = [
        {
            **key._asdict(),
            "position": position,
            "metric": price.metric,
            "included_units": price.included_units,
            "minimum": price.limits.minimum,
            "maximum": price.limits.maximum,
            "usage_limit": price.usage_limit and price.usage_limit.units,
            "usage_limit_enforcement": price.usage_limit and price.usage_limit.enforcement,
            "model": price.model.name,
            "parameters": price.model.parameters(),
        }
        for position, price in enumerate(content.metrics, start=1)
    ]
    if prices:
        await connection.execute(insert(plan_prices), prices)


async def get_plan(
    connection: AsyncConnection, tenant: TenantKey, plan_id: str, version: int = 0
) -> Plan | None:
    """A version of a plan, 0 the newest; None when there is none."""
    if version == 0:
        query = select(plans.c.newest_version).where(
            plans.c.organization_id == tenant.organization_id,
            plans.c.mode == tenant.mode,
            plans.c.id == plan_id,
        )
        version = (await connection.execute(query)).scalar_one_or_none() or 0
    key = PlanKey(tenant.organization_id, tenant.mode, plan_id, version)
    return (await load_plans(connection, [key])).get(key)


async def list_plans(
    connection: AsyncConnection, tenant: TenantKey, *, before_id: str | None, limit: int
) -> list[Plan]:
    """Up to `limit` plans in their newest version, newest plan first, older than `before_id`."""
    query = select(plans.c.organization_id, plans.c.mode, plans.c.id, plans.c.newest_version).where(
        plans.c.organization_id == tenant.organization_id, plans.c.mode == tenant.mode
    )
    if before_id is not None:
        query = query.where(plans.c.id < before_id)
    rows = await connection.execute(query.order_by(plans.c.id.desc()).limit(limit))
    keys = [PlanKey(*row) for row in rows]
    loaded = await load_plans(connection, keys)
    return [loaded[key] for key in keys]


async def load_plans(connection: AsyncConnection, keys: Iterable[PlanKey]) -> dict[PlanKey, Plan]:
    """The versions that exist of `keys`."""
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    prices: dict[PlanKey, list[MetricPrice]] = {}
    table = plan_prices.c
    price_key = tuple_(table.organization_id, table.mode, table.plan_id, table.version)
    query = select(plan_prices).where(price_key.in_(wanted)).order_by(table.position)
    for row in await connection.execute(query):
        prices.setdefault(_key(row), []).append(_metric_price(row))
    columns = plan_versions.c
    key = tuple_(columns.organization_id, columns.mode, columns.plan_id, columns.version)
    rows = await connection.execute(select(plan_versions).where(key.in_(wanted)))
    return {_key(row): _plan(row, prices.get(_key(row), [])) for row in rows}


def _key(row: Row[tuple[object, ...]]) -> PlanKey:
    return PlanKey(row.organization_id, row.mode, row.plan_id, row.version)


def _plan(row: Row[tuple[object, ...]], prices: list[MetricPrice]) -> Plan:
    content = PlanContent(
        name=row.name,
        currency=row.currency,
        base_price=row.base_price,
        billing_period=BillingPeriod(row.billing_period),
        metrics=tuple(prices),
        base_price_timing=BasePriceTiming(row.base_price_timing),
        setup_fee=row.setup_fee,
        discounts=tuple(parse_discount(each) for each in row.discounts),
        limits=Limits(row.minimum, row.maximum),
    )
    return Plan(row.plan_id, row.version, content, row.create_time)


def _metric_price(row: Row[tuple[object, ...]]) -> MetricPrice:
    checks = FieldChecks()
    model = PRICING_MODELS[row.model].parse(row.parameters, row.metric, checks)
    checks.done()
    limits = Limits(row.minimum, row.maximum)
    usage_limit = None
    if row.usage_limit is not None:
        usage_limit = UsageLimit(row.usage_limit, row.usage_limit_enforcement)
    return MetricPrice(row.metric, row.included_units, model, limits, usage_limit)
