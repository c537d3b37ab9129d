"""Budgets, and what of them was reached. Each function works inside the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import ColumnElement, Row, and_, delete, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.budgets import Budget, Reached
from services.invoicer.domain import InvoiceDraft, Subscription
from services.invoicer.periods import Period
from services.invoicer.repository.subscriptions import with_phases
from services.invoicer.tables import budgets
from services.kit.database import TenantKey

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('budgets/' || :whose, 0))")

# Whoever claims also says when the next look is: a process that is killed has missed one.
_CLAIM = text("""
WITH due AS (
    SELECT organization_id, mode, subscription_id FROM budgets WHERE check_time <= now()
    ORDER BY check_time LIMIT :limit FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE budgets b SET check_time = CASE
        WHEN s.period_end IS NULL THEN 'infinity' ELSE now() + CAST(:pause AS interval)
    END
    FROM due JOIN subscriptions s ON (s.organization_id, s.mode, s.id)
        = (due.organization_id, due.mode, due.subscription_id)
    WHERE (b.organization_id, b.mode, b.subscription_id)
        = (due.organization_id, due.mode, due.subscription_id)
    RETURNING b.organization_id, b.mode, b.subscription_id
)
SELECT s.* FROM claimed c JOIN subscriptions s
    ON (s.organization_id, s.mode, s.id) = (c.organization_id, c.mode, c.subscription_id)
""")

_POSTPONE = text("""
UPDATE budgets SET check_time = greatest(check_time, now() + CAST(:pause AS interval))
WHERE (organization_id, mode) = (:organization_id, :mode)
    AND subscription_id = ANY (CAST(:subscription_ids AS text[])) AND check_time > '-infinity'
""")

# Parts of the period that another plan or a pause has cut off are invoiced already. A budget that
# is just being changed is waited for: what is told is of one that there is.
_RECORD = text("""
WITH given AS (
    SELECT * FROM unnest(
        CAST(:subscription_ids AS text[]), CAST(:period_starts AS timestamptz[]),
        CAST(:part_starts AS timestamptz[]), CAST(:amounts AS numeric[]),
        CAST(:times AS timestamptz[])
    ) AS given (subscription_id, period_start, part_start, amount, time)
), watched AS (
    SELECT b.*, given.period_start, given.time, given.amount + coalesce((
        SELECT sum(i.amount) FROM invoices i
        WHERE (i.subscription_id, i.organization_id, i.mode)
                = (b.subscription_id, b.organization_id, b.mode)
            AND i.period_start >= given.period_start AND i.period_start < given.part_start
            AND i.kind = 'PERIOD' AND i.status NOT IN ('DRAFT', 'VOID')
    ), 0) AS spent
    FROM given JOIN budgets b ON (b.organization_id, b.mode, b.subscription_id)
        = (:organization_id, :mode, given.subscription_id)
    FOR SHARE OF b
)
INSERT INTO budget_thresholds
    (organization_id, mode, subscription_id, period_start, amount, percent, spent, reach_time)
SELECT organization_id, mode, subscription_id, period_start, amount, percent, spent, time
FROM watched CROSS JOIN unnest(percents) AS percent
WHERE spent > 0 AND spent * 100 >= amount * percent
ORDER BY subscription_id COLLATE "C", period_start, amount, percent
ON CONFLICT DO NOTHING
RETURNING subscription_id, amount, percent, spent
""")


@dataclass(frozen=True, slots=True)
class Accrued:
    """What a part of a period comes to at a `time`, and the whole `period` that it is of."""

    draft: InvoiceDraft
    period: Period
    time: datetime


async def get_budget(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str, *, lock: bool = False
) -> Budget | None:
    """The subscription's; with `lock` nobody else sets or removes it until the transaction ends."""
    if lock:  # there need not be a row
        await connection.execute(_LOCK, {"whose": "/".join((*tenant, subscription_id))})
    query = select(budgets).where(_is(tenant, subscription_id))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _budget(row)


async def put_budget(connection: AsyncConnection, tenant: TenantKey, budget: Budget) -> None:
    """Store it, to be looked at at once."""
    changing: dict[str, object] = {
        "amount": budget.amount,
        "currency": budget.currency,
        "percents": list(budget.percents),
        "check_time": text("'-infinity'"),
        "update_time": budget.update_time,
    }
    statement = upsert(budgets).values(
        **tenant._asdict(),
        subscription_id=budget.subscription_id,
        create_time=budget.create_time,
        **changing,
    )
    statement = statement.on_conflict_do_update(constraint="pk_budgets", set_=changing)
    await connection.execute(statement)


async def delete_budget(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str
) -> None:
    """Forget it."""
    await connection.execute(delete(budgets).where(_is(tenant, subscription_id)))


async def claim(connection: AsyncConnection, *, limit: int, pause: timedelta) -> list[Subscription]:
    """Up to `limit` subscriptions whose budgets are to be looked at; again after `pause`, or never
    when they have ended.
    """
    rows = (await connection.execute(_CLAIM, {"limit": limit, "pause": pause})).all()
    return await with_phases(connection, rows)


async def postpone(
    connection: AsyncConnection,
    tenant: TenantKey,
    subscription_ids: Sequence[str],
    pause: timedelta,
) -> None:
    """Look at them no sooner than after `pause`, but for those that were set meanwhile."""
    given = {**tenant._asdict(), "subscription_ids": list(subscription_ids), "pause": pause}
    await connection.execute(_POSTPONE, given)


async def record_reached(
    connection: AsyncConnection, tenant: TenantKey, accrued: Sequence[Accrued]
) -> list[Reached]:
    """Record what is reached, and return what was not recorded before, the least percent first."""
    given = {each.draft.subscription_id: each for each in accrued}
    values = {
        **tenant._asdict(),
        "subscription_ids": list(given),
        "period_starts": [each.period.start for each in given.values()],
        "part_starts": [each.draft.period.start for each in given.values()],
        "amounts": [each.draft.amount for each in given.values()],
        "times": [each.time for each in given.values()],
    }
    rows = (await connection.execute(_RECORD, values)).all()
    return [
        _reached(given[row.subscription_id], row.amount, row.percent, row.spent)
        for row in sorted(rows, key=lambda row: (row.subscription_id, row.percent))
    ]


def _reached(accrued: Accrued, amount: Decimal, percent: int, spent: Decimal) -> Reached:
    draft = accrued.draft
    return Reached(
        subscription_id=draft.subscription_id,
        customer_id=draft.customer_id,
        period=accrued.period,
        time=accrued.time,
        amount=amount,
        currency=draft.currency,
        percent=percent,
        spent=spent,
    )


def _is(tenant: TenantKey, subscription_id: str) -> ColumnElement[bool]:
    return and_(
        budgets.c.organization_id == tenant.organization_id,
        budgets.c.mode == tenant.mode,
        budgets.c.subscription_id == subscription_id,
    )


def _budget(row: Row[tuple[object, ...]]) -> Budget:
    return Budget(
        subscription_id=row.subscription_id,
        amount=row.amount,
        currency=row.currency,
        percents=tuple(row.percents),
        create_time=row.create_time,
        update_time=row.update_time,
    )
