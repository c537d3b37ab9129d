"""Tells which percentages of budgets are reached, each once a period."""

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import budget_event
from services.invoicer.budgets import watched_period
from services.invoicer.domain import InvoiceDraft, Subscription
from services.invoicer.repository import budgets
from services.invoicer.repository.budgets import Accrued
from services.invoicer.repository.events import add_events
from services.kit.database import TenantKey

_REACHED = Counter("usageflow_budget_thresholds", "Percentages of budgets that were told of")


async def tell_reached(
    connection: AsyncConnection,
    tenant: TenantKey,
    drafts: Sequence[tuple[Subscription, InvoiceDraft]],
    real: datetime,
) -> int:
    """Record and tell what invoices of periods, written or not, reach and was not told before; how
    many percentages. `real`: the time, of those that are on no test clock. It is a part of the
    caller's transaction.
    """
    if not drafts:
        return 0
    accrued = [
        Accrued(draft, watched_period(subscription, draft.period), subscription.now(real))
        for subscription, draft in drafts
    ]
    reached = await budgets.record_reached(connection, tenant, accrued)
    await add_events(connection, [budget_event(tenant, each) for each in reached])
    _REACHED.inc(len(reached))
    return len(reached)
