"""What open periods would be invoiced now."""

from collections.abc import Sequence
from datetime import datetime

from services.invoicer.closing import OpenPeriod, Usage
from services.invoicer.domain import InvoiceDraft
from services.invoicer.late_credits import credited_late
from services.invoicer.usage import UsageSource
from services.kit.database import Database, TenantKey


async def accrued_drafts(
    database: Database,
    usage: UsageSource,
    tenant: TenantKey,
    periods: Sequence[OpenPeriod],
    now: datetime,
) -> tuple[datetime, list[InvoiceDraft]]:
    """The invoice of each, in order; all that was accepted before the returned time is in.

    `periods`: as many as one call may ask for (closer.calls). UnavailableError.
    """
    selections = [selection for period in periods for selection in period.selections()]
    as_of, answered = now, list[Usage]()
    if selections:
        answer = await usage.billable(tenant, selections)
        as_of, answered = answer.as_of, answer.usages
    usages = iter(answered)
    drafts = []
    for period in periods:
        told = [next(usages) for _ in period.selections()]
        drafts.append(period.draft(told, await credited_late(database, period, told)))
    return as_of, drafts
