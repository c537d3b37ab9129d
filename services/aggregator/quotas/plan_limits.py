"""Limits that come from plans: invoicer tells all of a subscription whenever they change.

They limit the usage of a customer in each of the subscription's periods, between two of its
`boundaries`. A quota that the organization has set for the customer itself takes their place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.domain import is_customer_id, is_metric_key, is_quarter
from services.aggregator.quotas.checking import FOLD_MAX
from services.aggregator.quotas.domain import AGGREGATIONS, ENFORCEMENTS
from services.aggregator.quotas.threshold_repository import touch_after_setting
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks
from services.kit.ids import is_id, new_id

# A plan has at most 100 metrics; some years of weeks.
LIMITS_MAX = 100
BOUNDARIES_MAX = 100


@dataclass(frozen=True, slots=True)
class PlanLimit:
    """How much a plan allows of a metric in a period."""

    metric: str
    limit: Decimal
    enforcement: str


@dataclass(frozen=True, slots=True)
class SubscriptionLimits:
    """All that the plan of a subscription limits; none: nothing. `boundaries`: where its periods
    begin and end, ascending. `time`: what it is for the customer, who may be on a test clock.
    """

    tenant: TenantKey
    customer_id: str
    subscription_id: str
    boundaries: Sequence[datetime]
    limits: Sequence[PlanLimit]
    time: datetime


class PlanLimits:
    """Stores what invoicer tells. One transaction each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, told: SubscriptionLimits) -> list[str]:
        """Put these in the place of what was told before; the metrics that can't be limited, as
        nobody has defined them or they are no sums: tell these again later.

        InvalidArgumentError.
        """
        _check(told)
        async with self._database.transaction() as connection:
            found = await _find_metrics(connection, told)
            await _delete_others(connection, told, list(found.values()))
            for limit in told.limits:
                if limit.metric in found:
                    await _put(connection, told, limit, found[limit.metric])
        return [limit.metric for limit in told.limits if limit.metric not in found]


def _check(told: SubscriptionLimits) -> None:
    checks = FieldChecks()
    checks.require(is_id(told.subscription_id, "sub"), "subscriptionId", "must be an id")
    checks.require(is_customer_id(told.customer_id), "customerId", "must be a customer's id")
    metrics = [limit.metric for limit in told.limits]
    right = len(metrics) <= LIMITS_MAX and len(set(metrics)) == len(metrics)
    checks.require(right, "limits", f"must be at most {LIMITS_MAX}, one for a metric")
    checks.require(all(map(is_metric_key, metrics)), "limits", "each must name a metric")
    known = all(limit.enforcement in ENFORCEMENTS for limit in told.limits)
    checks.require(known, "limits", f"enforcement must be one of {', '.join(ENFORCEMENTS)}")
    least = 2 if told.limits else 0
    enough = least <= len(told.boundaries) <= BOUNDARIES_MAX
    checks.require(enough, "boundaries", f"must be from {least} to {BOUNDARIES_MAX}")
    ascending = list(told.boundaries) == sorted(set(told.boundaries))
    checks.require(ascending, "boundaries", "must ascend")
    right = all(map(is_quarter, told.boundaries))
    checks.require(right, "boundaries", "must lie on quarters of an hour")
    checks.done()


# Nobody changes what they count while they are limited.
_FIND_METRICS = text("""
SELECT key, metric_id FROM metrics
WHERE organization_id = :organization_id AND mode = :mode AND key = ANY(CAST(:keys AS text[]))
    AND aggregation = ANY(CAST(:aggregations AS text[]))
ORDER BY metric_id FOR KEY SHARE
""")


async def _find_metrics(connection: AsyncConnection, told: SubscriptionLimits) -> dict[str, int]:
    values = {
        **told.tenant._asdict(),
        "keys": [limit.metric for limit in told.limits],
        "aggregations": list(AGGREGATIONS),
    }
    rows = await connection.execute(_FIND_METRICS, values)
    return {row.key: row.metric_id for row in rows}


_DELETE_OTHERS = text("""
DELETE FROM plan_limits USING metrics
WHERE plan_limits.metric_id = metrics.metric_id AND subscription_id = :subscription_id
    AND organization_id = :organization_id AND mode = :mode
    AND plan_limits.metric_id <> ALL(CAST(:metric_ids AS bigint[]))
""")


async def _delete_others(
    connection: AsyncConnection, told: SubscriptionLimits, metric_ids: Sequence[int]
) -> None:
    values = {
        **told.tenant._asdict(),
        "subscription_id": told.subscription_id,
        "metric_ids": list(metric_ids),
    }
    await connection.execute(_DELETE_OTHERS, values)


# What is as it was is not written: its customer's checks go on being answered from memory.
_PUT = text("""
INSERT INTO plan_limits (quota_id, metric_id, customer_id, subscription_id, limit_amount,
    enforcement, boundaries, create_time, update_time)
VALUES (:quota_id, :metric_id, :customer_id, :subscription_id, :limit_amount, :enforcement,
    CAST(:boundaries AS timestamptz[]), :now, :now)
ON CONFLICT (subscription_id, metric_id) DO UPDATE
SET limit_amount = excluded.limit_amount, enforcement = excluded.enforcement,
    boundaries = excluded.boundaries, update_time = excluded.update_time
WHERE (plan_limits.limit_amount, plan_limits.enforcement, plan_limits.boundaries)
    IS DISTINCT FROM (excluded.limit_amount, excluded.enforcement, excluded.boundaries)
""")


async def _put(
    connection: AsyncConnection, told: SubscriptionLimits, limit: PlanLimit, metric_id: int
) -> None:
    now = clock.now()
    values = {
        "quota_id": new_id("quota"),
        "metric_id": metric_id,
        "customer_id": told.customer_id,
        "subscription_id": told.subscription_id,
        "limit_amount": limit.limit,
        "enforcement": limit.enforcement,
        "boundaries": list(told.boundaries),
        "now": now,
    }
    if (await connection.execute(_PUT, values)).rowcount:
        await touch_after_setting(connection, metric_id, told.customer_id, told.time, FOLD_MAX)
