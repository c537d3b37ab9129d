"""How much of their quotas customers have used and set aside, for many customers at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.figures import figures_of
from services.aggregator.quotas import repository
from services.aggregator.quotas.domain import (
    CLOCKS_APART_MAX,
    COUNT,
    Customer,
    Quota,
    QuotaState,
    applicable,
    tightest_first,
)
from services.aggregator.quotas.repository import Held, Holder, Limited
from services.aggregator.usage_repository import Wanted

_NOTHING_COUNTED = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class CustomerStates:
    """The metric's id and the quotas that apply, tightest first. Compared by identity.

    `until`: when a period of theirs ends, one of a plan that does not apply yet begins, or units
    set aside expire; when it was read, if nobody knows when these end.
    `counts_events`: used is their number, not the sum of their amounts.
    """

    metric_id: int
    states: Sequence[QuotaState]
    until: datetime | None = None
    counts_events: bool = False

    def grown_by(self, amounts: Sequence[Decimal]) -> "CustomerStates":
        """The same with so much more used of each."""
        grown = [
            state.with_used(amount) if amount else state
            for state, amount in zip(self.states, amounts, strict=True)
        ]
        return replace(self, states=tightest_first(grown))


async def load_states(
    connection: AsyncConnection,
    customers: Sequence[Customer],
    *,
    now: datetime,
    watermark: datetime | None,
    at: datetime | None = None,
) -> dict[Customer, CustomerStates]:
    """Those whose metric exists. The watermark was told before anything here is read.

    `at`: what a test clock of the customers shows. Periods go by it, reservations by `now`.
    """
    at = at or now
    limited = await repository.find_limited(connection, customers)
    applying = {customer: applicable(found.quotas) for customer, found in limited.items()}
    quotas = {
        customer: [quota for quota in each if quota.period_at(at)]
        for customer, each in applying.items()
    }
    held = await _held(connection, limited, quotas, now=now, watermark=watermark)
    used = await figures_of(connection, _wanted(limited, quotas, at))
    states: dict[Customer, CustomerStates] = {}
    for customer, found in limited.items():
        units = held.get(Holder(found.metric_id, customer.customer_id))
        reserved = units.amount if units else Decimal(0)
        each: list[QuotaState] = []
        for quota in quotas[customer]:
            entry = _one(found, customer, quota, at)
            each.append(QuotaState(quota, entry.start, entry.end, used[entry], reserved))
        until = [state.end for state in each]
        until += [
            quota.boundaries[0]
            for quota in applying[customer]
            if quota.boundaries and at < quota.boundaries[0]
        ]
        if units:
            until.append(units.until or now)
        states[customer] = CustomerStates(
            found.metric_id,
            tightest_first(each),
            min(until, default=None),
            counts_events=found.aggregation == COUNT,
        )
    return states


async def _held(
    connection: AsyncConnection,
    limited: Mapping[Customer, Limited],
    quotas: Mapping[Customer, Sequence[Quota]],
    *,
    now: datetime,
    watermark: datetime | None,
) -> dict[Holder, Held]:
    holders = [
        Holder(limited[customer].metric_id, customer.customer_id)
        for customer, each in quotas.items()
        if each
    ]
    if not holders:
        return {}
    counted_until = watermark - CLOCKS_APART_MAX if watermark else _NOTHING_COUNTED
    return await repository.find_held(
        connection, holders, now=now, counted_until=min(counted_until, now)
    )


def _wanted(
    limited: Mapping[Customer, Limited],
    quotas: Mapping[Customer, Sequence[Quota]],
    at: datetime,
) -> dict[str, list[Wanted]]:
    wanted: dict[str, list[Wanted]] = {}
    for customer, each in quotas.items():
        found = limited[customer]
        for quota in each:
            entry = _one(found, customer, quota, at)
            wanted.setdefault(found.aggregation, []).append(entry)
    return wanted


def _one(found: Limited, customer: Customer, quota: Quota, at: datetime) -> Wanted:
    period = quota.period_at(at)
    assert period is not None, "such a quota is none then"
    return Wanted(found.counted_id, customer.customer_id, *period)
