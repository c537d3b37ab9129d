"""Periods that are over: claiming them, and what was billed for the ones before."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.closing import EarlierPeriod, OpenPeriod
from services.invoicer.domain import Subscription
from services.invoicer.lines import Billed
from services.invoicer.periods import Period
from services.invoicer.repository.plans import PlanKey, load_plans
from services.invoicer.repository.subscriptions import subscription_of
from services.kit.database import TenantKey

# A lease is by the database's clock, which all replicas share.
_CLAIM = text(
    """
    WITH due AS (
        SELECT organization_id, mode, id FROM subscriptions
        WHERE period_end <= :ended_before AND attempt_time <= now()
        ORDER BY period_end
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE subscriptions s SET attempt_time = now() + CAST(:lease AS interval)
    FROM due
    WHERE (s.organization_id, s.mode, s.id) = (due.organization_id, due.mode, due.id)
    RETURNING s.*
    """
)

# Only what nobody has changed since: whoever changed it has made it claimable anew.
_RELEASE = text(
    """
    UPDATE subscriptions s SET attempt_time = now() + CAST(:pause AS interval)
    FROM unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]),
        CAST(:revision AS bigint[])
    ) AS given (organization_id, mode, id, revision)
    WHERE (s.organization_id, s.mode, s.id, s.revision)
        = (given.organization_id, given.mode, given.id, given.revision)
    """
)

_COUNT_DUE = text("SELECT count(*) FROM subscriptions WHERE period_end <= :ended_before")

_GIVEN = """
    unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]),
        CAST(:period_start AS timestamptz[])
    ) AS given (organization_id, mode, id, period_start)
    JOIN invoices i ON (i.organization_id, i.mode, i.subscription_id)
            = (given.organization_id, given.mode, given.id)
        AND i.status <> 'VOID'
        AND i.period_start < given.period_start
        AND i.period_end > given.period_start - CAST(:late AS interval)
"""

_EARLIER = text(
    f"""
    SELECT i.organization_id, i.mode, i.subscription_id, i.period_start, i.period_end,
        i.plan_id, i.plan_version
    FROM {_GIVEN}
    ORDER BY i.organization_id, i.mode, i.subscription_id, i.period_start
    """  # noqa: S608 (no value is pasted in)
)

# A line about a period stands on the period's own invoice or on a later one.
_BILLED = text(
    f"""
    SELECT i.organization_id, i.mode, i.subscription_id, l.period_start, l.metric,
        sum(l.quantity) AS quantity, sum(l.amount) AS amount
    FROM {_GIVEN}
    JOIN invoice_lines l
        ON (l.organization_id, l.mode, l.invoice_id) = (i.organization_id, i.mode, i.id)
        AND l.metric IS NOT NULL
    GROUP BY i.organization_id, i.mode, i.subscription_id, l.period_start, l.metric
    """  # noqa: S608 (no value is pasted in)
)

_SubscriptionKey = tuple[str, str, str]


async def claim_due(
    connection: AsyncConnection, ended_before: datetime, *, limit: int, lease: timedelta
) -> list[Subscription]:
    """Up to `limit` subscriptions whose period ended by then, oldest first, not claimed by others.

    They stay claimed for `lease`, or until they are released or changed.
    """
    rows = await connection.execute(
        _CLAIM, {"ended_before": ended_before, "limit": limit, "lease": lease}
    )
    return [subscription_of(row) for row in rows]


async def release(
    connection: AsyncConnection, claimed: Sequence[Subscription], pause: timedelta
) -> None:
    """Let the subscriptions be claimed again after `pause`."""
    if not claimed:
        return
    await connection.execute(
        _RELEASE,
        {
            "organization_id": [s.tenant.organization_id for s in claimed],
            "mode": [s.tenant.mode for s in claimed],
            "id": [s.id for s in claimed],
            "revision": [s.revision for s in claimed],
            "pause": pause,
        },
    )


async def count_due(connection: AsyncConnection, ended_before: datetime) -> int:
    """How many subscriptions have a period that ended by then and is not invoiced."""
    count = await connection.execute(_COUNT_DUE, {"ended_before": ended_before})
    return int(count.scalar_one())


async def open_periods(
    connection: AsyncConnection, subscriptions: Sequence[Subscription], late: timedelta
) -> list[OpenPeriod]:
    """The next period of each that has one, with its plan and the earlier ones to look at again.

    Earlier periods are those invoiced that ended less than `late` before the next one begins;
    not the ones whose invoice is void: they are not billed at all.
    """
    live = [(s, s.period) for s in subscriptions if s.period is not None]
    if not live:
        return []
    given = {
        "organization_id": [s.tenant.organization_id for s, _ in live],
        "mode": [s.tenant.mode for s, _ in live],
        "id": [s.id for s, _ in live],
        "period_start": [period.start for _, period in live],
        "late": late,
    }
    earlier_rows = (await connection.execute(_EARLIER, given)).all()
    billed = await _billed(connection, given)
    keys = [_plan_key(s.tenant, s.plan_id, s.plan_version) for s, _ in live]
    keys += [PlanKey(r.organization_id, r.mode, r.plan_id, r.plan_version) for r in earlier_rows]
    plans = await load_plans(connection, keys)
    earlier: dict[_SubscriptionKey, list[EarlierPeriod]] = {}
    for row in earlier_rows:
        key = (row.organization_id, row.mode, row.subscription_id)
        plan = plans[PlanKey(row.organization_id, row.mode, row.plan_id, row.plan_version)]
        found = EarlierPeriod(
            Period(row.period_start, row.period_end),
            plan.content,
            billed.get((key, row.period_start), {}),
        )
        earlier.setdefault(key, []).append(found)
    return [
        OpenPeriod(
            subscription=s,
            plan=plans[_plan_key(s.tenant, s.plan_id, s.plan_version)],
            period=period,
            earlier=tuple(earlier.get((*s.tenant, s.id), ())),
        )
        for s, period in live
    ]


async def _billed(
    connection: AsyncConnection, given: dict[str, object]
) -> dict[tuple[_SubscriptionKey, datetime], dict[str, Billed]]:
    """What was billed, by subscription and start of the period, then by metric."""
    billed: dict[tuple[_SubscriptionKey, datetime], dict[str, Billed]] = {}
    for row in await connection.execute(_BILLED, given):
        key = ((row.organization_id, row.mode, row.subscription_id), row.period_start)
        billed.setdefault(key, {})[row.metric] = Billed(row.quantity, row.amount)
    return billed


def _plan_key(tenant: TenantKey, plan_id: str, version: int) -> PlanKey:
    return PlanKey(tenant.organization_id, tenant.mode, plan_id, version)
