"""The phases of subscriptions."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Row, delete, insert, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.domain import Subscription
from services.invoicer.periods import BillingPeriod
from services.invoicer.phases import Phase, PhaseKind
from services.invoicer.tables import subscription_phases

SubscriptionKey = tuple[str, str, str]

_PHASES = text(
    """
    SELECT p.* FROM unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[])
    ) AS given (organization_id, mode, id)
    JOIN subscription_phases p ON (p.organization_id, p.mode, p.subscription_id)
        = (given.organization_id, given.mode, given.id)
    ORDER BY p.start_time, p.priced_from
    """
)


async def phases_of(
    connection: AsyncConnection, keys: Sequence[SubscriptionKey]
) -> dict[SubscriptionKey, tuple[Phase, ...]]:
    """The phases of each subscription, by time; of one that never began there are none."""
    if not keys:
        return {}
    names = ("organization_id", "mode", "id")
    given = {name: [key[index] for key in keys] for index, name in enumerate(names)}
    found: dict[SubscriptionKey, list[Phase]] = {}
    for row in await connection.execute(_PHASES, given):
        key = (row.organization_id, row.mode, row.subscription_id)
        found.setdefault(key, []).append(_phase_of(row))
    return {key: tuple(phases) for key, phases in found.items()}


async def insert_phases(
    connection: AsyncConnection, subscription: Subscription, phases: Sequence[Phase]
) -> None:
    """Store phases of a subscription that is stored."""
    rows = [
        {
            **subscription.tenant._asdict(),
            "subscription_id": subscription.id,
            "start_time": phase.start_time,
            "end_time": phase.end_time,
            "kind": phase.kind.value,
            "plan_id": phase.plan_id,
            "plan_version": phase.plan_version,
            "billing_period": phase.billing_period.value,
            "anchor_time": phase.anchor_time,
            "quantity": phase.quantity,
            "create_time": phase.create_time,
            "exact_start_time": phase.exact_start_time,
            "exact_end_time": phase.exact_end_time,
            "exact_anchor_time": phase.exact_anchor_time,
        }
        for phase in phases
    ]
    if rows:
        await connection.execute(insert(subscription_phases), rows)


async def replace_phases(
    connection: AsyncConnection, before: Subscription, after: Subscription
) -> None:
    """Store the phases of `after` in place of those of `before`; the database refuses a change of
    what is invoiced.
    """
    columns = subscription_phases.c
    whose = (
        columns.organization_id == before.tenant.organization_id,
        columns.mode == before.tenant.mode,
        columns.subscription_id == before.id,
    )
    old, new = ({_begin(phase): phase for phase in each.phases} for each in (before, after))
    # One that goes on as it did, but for its end, is kept.
    kept = [
        begin
        for begin, phase in old.items()
        if begin in new and _but_end(phase) == _but_end(new[begin])
    ]
    gone = [begin for begin in old if begin not in kept]
    if gone:
        begins = tuple_(columns.start_time, columns.priced_from)
        await connection.execute(delete(subscription_phases).where(*whose, begins.in_(gone)))
    # Those that end earlier come first, so that no two ever overlap.
    for begin in sorted(kept):
        if _end(old[begin]) != _end(new[begin]):
            start, priced_from = begin
            await connection.execute(
                update(subscription_phases)
                .where(*whose, columns.start_time == start, columns.priced_from == priced_from)
                .values(**_end(new[begin]))
            )
    added = [phase for begin, phase in new.items() if begin not in kept]
    await insert_phases(connection, before, added)


def _begin(phase: Phase) -> tuple[datetime, datetime]:
    """For usage and for time: together only one phase of a subscription has both."""
    return phase.start_time, phase.priced_from


def _but_end(phase: Phase) -> Phase:
    never = phase.start_time
    return replace(phase, end_time=None, exact_end_time=None, create_time=never)


def _end(phase: Phase) -> dict[str, datetime | None]:
    return {"end_time": phase.end_time, "exact_end_time": phase.exact_end_time}


def _phase_of(row: Row[tuple[object, ...]]) -> Phase:
    return Phase(
        start_time=row.start_time,
        end_time=row.end_time,
        kind=PhaseKind(row.kind),
        plan_id=row.plan_id,
        plan_version=row.plan_version,
        billing_period=BillingPeriod(row.billing_period),
        anchor_time=row.anchor_time,
        quantity=row.quantity,
        create_time=row.create_time,
        exact_start_time=row.exact_start_time,
        exact_end_time=row.exact_end_time,
        exact_anchor_time=row.exact_anchor_time,
    )
