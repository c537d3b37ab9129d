"""Tells the organization when usage reaches a threshold, exactly once a period.

The fold writes whose usage has grown into a queue, in its transaction. Here, in one transaction,
the queue's rows are taken, usage is read (theirs is in, as they were committed with it), what is
reached is recorded under a key that exists once, and messages of what is new go to the outbox.
Killed anywhere before the commit, the rows are still in the queue; of two replicas at once one
records and tells.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1 import events_pb2

from services.aggregator.figures import figures_of
from services.aggregator.quotas import repository, threshold_repository
from services.aggregator.quotas.domain import Customer, Quota, applicable, threshold_amount
from services.aggregator.quotas.repository import Limited
from services.aggregator.quotas.threshold_repository import Reached, Touched
from services.aggregator.tables import billing_outbox
from services.aggregator.usage_repository import Wanted
from services.aggregator.windows import TOTAL
from services.kit import clock
from services.kit.auth import MODE_NUMBERS
from services.kit.database import Database, TenantKey
from services.kit.errors import UnavailableError
from services.kit.ids import new_id
from services.kit.money import format_decimal
from services.kit.outbox import add_to_outbox
from services.kit.waiting import happens

log = structlog.get_logger()

SUBJECT = "usageflow.billing.event"
CONSUMER = "notifier"
EVENT_TYPE = "usage.threshold_reached"
TOUCHES_MAX = 1_000
POLL_S = 1.0
# Rounds follow one another no faster: what a busy customer does meanwhile is looked at once.
GATHER_S = 0.1

_REACHED = Counter("usageflow_thresholds_reached", "Thresholds that organizations were told of")


class Thresholds:
    """The loop. Any number of replicas may run it."""

    def __init__(self, database: Database, told: Callable[[], None]) -> None:
        """`told` is called after a commit that put messages into the outbox."""
        self._database = database
        self._told = told
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """A transaction that has added usage of metrics with quotas is committed."""
        self._wake.set()

    async def run(self) -> None:
        """Look at what has grown until cancelled."""
        while True:
            self._wake.clear()
            try:
                touches = await self.round()
            except UnavailableError as error:
                log.debug("thresholds_wait", error=error.message)
                touches = 0
            await asyncio.sleep(GATHER_S)
            if touches < TOUCHES_MAX:
                await happens(self._wake, POLL_S)

    async def round(self) -> int:
        """Look at up to TOUCHES_MAX rows of the queue; how many there were. UnavailableError."""
        async with self._database.transaction() as connection:
            touched = await threshold_repository.take_touches(connection, TOUCHES_MAX)
            told = await _tell(connection, touched) if touched else 0
        if told:
            _REACHED.inc(told)
            self._told()
        return sum(each.touches for each in touched)


# A customer's quota in one period: what of it is used.
_Use = tuple[Customer, Quota, Wanted]


async def _tell(connection: AsyncConnection, touched: Sequence[Touched]) -> int:
    """Record and tell what is reached; how many thresholds were new."""
    limited = await repository.find_limited(connection, [each.customer for each in touched])
    uses = list(_uses(touched, limited))
    wanted: dict[str, list[Wanted]] = {}
    for customer, _quota, entry in uses:
        wanted.setdefault(limited[customer].aggregation, []).append(entry)
    used = await figures_of(connection, wanted)
    reached = {
        Reached(quota.quota_id, customer.customer_id, entry.start, threshold, entry.end): (
            customer,
            quota,
            entry,
        )
        for customer, quota, entry in uses
        for threshold in _reached(quota, used[entry])
    }
    if not reached:
        return 0
    new = await threshold_repository.insert_reached(connection, reached)
    newest = {each.customer: max(each.instants) for each in touched}
    for row in sorted(new):
        customer, quota, entry = reached[row]
        data = _data(customer, quota, row, used[entry])
        await _add_event(connection, customer.tenant, data, _now(customer, newest[customer]))
    return len(new)


def _now(customer: Customer, newest: datetime) -> datetime:
    """The time of a customer whose usage has grown then: no less than that on a test clock, which
    may be ahead.
    """
    now = clock.now()
    return max(now, newest) if customer.tenant.mode == "test" else now


def _uses(touched: Sequence[Touched], limited: Mapping[Customer, Limited]) -> Iterator[_Use]:
    """Each quota that applies to a customer, in each period in which usage has grown."""
    for each in touched:
        found = limited.get(each.customer)
        if found is None:
            continue
        for quota in applicable(found.quotas):
            if not quota.settings.thresholds:
                continue
            periods = {quota.period_at(instant) for instant in each.instants}
            for start, end in sorted(period for period in periods if period is not None):
                entry = Wanted(found.counted_id, each.customer.customer_id, start, end)
                yield each.customer, quota, entry


def _reached(quota: Quota, used: Decimal) -> Iterator[str]:
    for threshold in quota.settings.thresholds:
        amount = threshold_amount(threshold, quota.settings.limit)
        if amount is not None and used > 0 and amount <= used:
            yield threshold


def _data(
    customer: Customer, quota: Quota, reached: Reached, used: Decimal
) -> dict[str, str | None]:
    """The webhook's data; decimals are strings."""
    limit = quota.settings.limit
    amount = threshold_amount(reached.threshold, limit)
    assert amount is not None
    for_ever = quota.settings.period == TOTAL
    return {
        "quotaId": quota.quota_id,
        "metric": customer.metric,
        "customerId": customer.customer_id,
        "threshold": reached.threshold,
        "thresholdAmount": format_decimal(amount),
        "used": format_decimal(used),
        "limit": None if limit is None else format_decimal(limit),
        "enforcement": quota.settings.enforcement,
        "period": quota.settings.period,
        "periodStart": _rfc3339(reached.period_start),
        "periodEnd": None if for_ever else _rfc3339(reached.period_end),
    }


async def _add_event(
    connection: AsyncConnection, tenant: TenantKey, data: dict[str, str | None], now: datetime
) -> None:
    event = events_pb2.BillingEvent(
        id=new_id("whevt"),
        organization_id=tenant.organization_id,
        mode=MODE_NUMBERS[tenant.mode],
        type=EVENT_TYPE,
        data_json=json.dumps(data, ensure_ascii=False, separators=(",", ":")),
    )
    event.create_time.FromDatetime(now)
    await add_to_outbox(
        connection,
        billing_outbox,
        message_id=event.id,
        subject=SUBJECT,
        payload=event.SerializeToString(),
    )


def _rfc3339(time: datetime) -> str:
    return f"{time.astimezone(clock.UTC):%Y-%m-%dT%H:%M:%SZ}"
