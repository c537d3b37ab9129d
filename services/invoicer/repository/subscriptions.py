"""Subscriptions."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Row, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.clocks import Clock
from services.invoicer.domain import Subscription, SubscriptionStatus
from services.invoicer.periods import BillingAnchor, BillingPeriod, Period
from services.invoicer.phases import Phase, PhaseKind
from services.invoicer.repository import clocks, phases
from services.invoicer.tables import subscriptions
from services.kit.database import TenantKey

# Whoever looks for work may take the subscription.
_AT_ONCE = text("'-infinity'")

_LOCK_KEY = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")


# The primary key has a tenant's phases in the order of their subscriptions.
_ON_OTHER_VERSIONS = text(
    """
    SELECT DISTINCT p.subscription_id FROM subscription_phases p
    JOIN subscriptions s ON (s.organization_id, s.mode, s.id)
        = (p.organization_id, p.mode, p.subscription_id)
    WHERE (p.organization_id, p.mode) = (:organization_id, :mode)
        AND p.subscription_id > :after_id
        AND p.plan_id = :plan_id AND p.plan_version <> :to_version
        AND :from_version IN (0, p.plan_version)
        AND coalesce(p.end_time, 'infinity') > :now
        AND s.status <> 'CANCELLED'
    ORDER BY p.subscription_id
    LIMIT :limit
    """
)


class OnOtherVersions(NamedTuple):
    """Subscriptions to move to a version of a plan, from one (0: any other), after an id."""

    plan_id: str
    to_version: int
    from_version: int
    now: datetime
    after_id: str


class MadeUnder(NamedTuple):
    """An idempotency key, and the digest of what was asked for under it."""

    key: str
    digest: bytes


async def find_made_under(
    connection: AsyncConnection, tenant: TenantKey, key: str
) -> tuple[Subscription, bytes] | None:
    """The subscription that was made under the idempotency key, and the digest; None: none.

    Whoever else asks for the same key waits until the caller's transaction ends.
    """
    await connection.execute(_LOCK_KEY, {"key": "/".join((*tenant, key))})
    query = select(subscriptions).where(
        subscriptions.c.organization_id == tenant.organization_id,
        subscriptions.c.mode == tenant.mode,
        subscriptions.c.idempotency_key == key,
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    (found,) = await with_phases(connection, [row])
    return found, row.idempotency_digest


async def insert_subscription(
    connection: AsyncConnection, subscription: Subscription, made_under: MadeUnder | None = None
) -> None:
    """Store a new subscription."""
    await connection.execute(
        insert(subscriptions).values(
            organization_id=subscription.tenant.organization_id,
            mode=subscription.tenant.mode,
            id=subscription.id,
            customer_id=subscription.customer_id,
            plan_id=subscription.plan_id,
            plan_version=subscription.plan_version,
            billing_anchor=subscription.billing_anchor.value,
            billing_period=subscription.billing_period.value,
            time_zone=subscription.time_zone,
            start_time=subscription.start_time,
            revision=subscription.revision,
            create_time=subscription.create_time,
            idempotency_key=made_under.key if made_under else None,
            idempotency_digest=made_under.digest if made_under else None,
            **_state(subscription),
        )
    )
    await phases.insert_phases(connection, subscription, subscription.phases)


async def get_subscription(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str, *, lock: bool = False
) -> Subscription | None:
    """The subscription, or None; with `lock` nobody else changes it until the transaction ends.

    Whoever locks an invoice and its subscription locks the subscription first.
    """
    query = select(subscriptions).where(
        subscriptions.c.organization_id == tenant.organization_id,
        subscriptions.c.mode == tenant.mode,
        subscriptions.c.id == subscription_id,
    )
    if lock:
        query = query.with_for_update()
    found = await with_phases(connection, (await connection.execute(query)).all())
    return found[0] if found else None


async def list_subscriptions(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    customer_id: str,
    before_id: str | None,
    limit: int,
) -> list[Subscription]:
    """Up to `limit` subscriptions, newest first, older than `before_id`; "" for any customer."""
    query = select(subscriptions).where(
        subscriptions.c.organization_id == tenant.organization_id,
        subscriptions.c.mode == tenant.mode,
    )
    if customer_id:
        query = query.where(subscriptions.c.customer_id == customer_id)
    if before_id is not None:
        query = query.where(subscriptions.c.id < before_id)
    rows = await connection.execute(query.order_by(subscriptions.c.id.desc()).limit(limit))
    return await with_phases(connection, rows.all())


async def list_live(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str, *, limit: int
) -> list[str]:
    """The ids of up to `limit` of a customer's subscriptions that will have another invoice."""
    query = select(subscriptions.c.id).where(
        subscriptions.c.organization_id == tenant.organization_id,
        subscriptions.c.mode == tenant.mode,
        subscriptions.c.customer_id == customer_id,
        subscriptions.c.period_end.is_not(None),
    )
    return list((await connection.execute(query.limit(limit))).scalars())


async def list_on_other_versions(
    connection: AsyncConnection, tenant: TenantKey, wanted: OnOtherVersions, limit: int
) -> list[str]:
    """The ids of up to `limit` subscriptions that go on and are, or will be, on another version of
    the plan, by id.
    """
    given = {**tenant._asdict(), **wanted._asdict(), "limit": limit}
    return list((await connection.execute(_ON_OTHER_VERSIONS, given)).scalars())


async def store_change(
    connection: AsyncConnection, before: Subscription, after: Subscription
) -> None:
    """Store what has become of a subscription that the caller has locked, with its phases."""
    await phases.replace_phases(connection, before, after)
    stored = await update_subscription(connection, after)
    assert stored


async def update_subscription(connection: AsyncConnection, subscription: Subscription) -> bool:
    """Store the state of a subscription over the revision it was read in.

    False, and nothing is stored, when somebody else has changed it since. It can be claimed again.
    """
    statement = (
        update(subscriptions)
        .where(
            subscriptions.c.organization_id == subscription.tenant.organization_id,
            subscriptions.c.mode == subscription.tenant.mode,
            subscriptions.c.id == subscription.id,
            subscriptions.c.revision == subscription.revision,
        )
        .values(
            revision=subscription.revision + 1,
            attempt_time=_AT_ONCE,
            **_state(subscription),
        )
    )
    return (await connection.execute(statement)).rowcount == 1


def _state(subscription: Subscription) -> dict[str, object]:
    """What may change in a subscription."""
    period = subscription.period
    return {
        "status": subscription.status.value,
        "period_start": None if period is None else period.start,
        "period_end": None if period is None else period.end,
        "exact_period_start": period and subscription.exact_at(period.start),
        "cancel_time": subscription.cancel_time,
        "opening": subscription.opening,
        "idle": _is_idle(subscription),
        "late_check_time": subscription.late_check_time,
    }


def _is_idle(subscription: Subscription) -> bool:
    period = subscription.period
    billed = period is None or subscription.phase_at(period.start).kind is PhaseKind.BILLED
    return not billed


async def with_phases(
    connection: AsyncConnection, rows: Sequence[Row[tuple[object, ...]]]
) -> list[Subscription]:
    """The subscriptions in rows of their table, in their order."""
    keys = [(row.organization_id, row.mode, row.id) for row in rows]
    found = await phases.phases_of(connection, keys)
    clocked = {
        key: (*key[:2], row.clock_id) for key, row in zip(keys, rows, strict=True) if row.clock_id
    }
    on = await clocks.clocks_by_key(connection, list(clocked.values()))
    return [
        _subscription_of(row, found.get(key, ()), on[clocked[key]] if key in clocked else None)
        for row, key in zip(rows, keys, strict=True)
    ]


def _subscription_of(
    row: Row[tuple[object, ...]], found_phases: tuple[Phase, ...], clock: Clock | None
) -> Subscription:
    started = row.period_start is not None
    return Subscription(
        tenant=TenantKey(row.organization_id, row.mode),
        id=row.id,
        customer_id=row.customer_id,
        plan_id=row.plan_id,
        plan_version=row.plan_version,
        status=SubscriptionStatus(row.status),
        billing_anchor=BillingAnchor(row.billing_anchor),
        billing_period=BillingPeriod(row.billing_period),
        time_zone=row.time_zone,
        start_time=row.start_time,
        period=Period(row.period_start, row.period_end) if started else None,
        cancel_time=row.cancel_time,
        revision=row.revision,
        create_time=row.create_time,
        opening=row.opening,
        phases=found_phases,
        late_check_time=row.late_check_time,
        clock=clock,
        exact_period_start=row.exact_period_start,
    )
