"""Discounts, and what else changes the amounts of a subscription's period. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any

from services.invoicer.periods import Cycle, Period, next_period, whole_at
from services.kit.money import format_decimal

# Twelve years of weeks. A discount for longer is one for ever.
PERIODS_MAX = 624


@dataclass(frozen=True, slots=True)
class Discount:
    """Either `percent` (above 0, at most 100) of each price, or `amount` off a period's sum.

    `periods`: for how many periods, None for ever. `name` is for people and may be empty.
    """

    name: str = ""
    percent: Decimal | None = None
    amount: Decimal | None = None
    periods: int | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionDiscount:
    """A subscription's own discount, for periods that begin in [start_time, end_time)."""

    id: str
    subscription_id: str
    discount: Discount
    start_time: datetime
    end_time: datetime | None
    create_time: datetime

    def applies_to(self, period: Period) -> bool:
        """Whether the period's amounts are discounted."""
        ended = self.end_time is not None and period.start >= self.end_time
        return self.start_time <= period.start and not ended


def discount_parameters(discount: Discount) -> dict[str, str | int]:
    """What a plan's version keeps of a discount; decimals are strings."""
    values: dict[str, str | int | None] = {
        "name": discount.name,
        "percent": None if discount.percent is None else format_decimal(discount.percent),
        "amount": None if discount.amount is None else format_decimal(discount.amount),
        "periods": discount.periods,
    }
    return {name: value for name, value in values.items() if value is not None}


def parse_discount(parameters: Mapping[str, Any]) -> Discount:
    """The discount that discount_parameters() told."""
    percent, amount = parameters.get("percent"), parameters.get("amount")
    return Discount(
        name=parameters["name"],
        percent=None if percent is None else Decimal(percent),
        amount=None if amount is None else Decimal(amount),
        periods=parameters.get("periods"),
    )


def end_of(cycle: Cycle, first: Period, periods: int | None) -> datetime | None:
    """When `periods` periods, of which `first` is the first, are over; None: never."""
    if periods is None:
        return None
    period = first
    for _ in range(periods - 1):
        period = next_period(cycle, period)
    return period.end


def discounts_of(
    plan: Sequence[Discount],
    own: Sequence[SubscriptionDiscount],
    cycle: Cycle,
    period: Period,
    since: datetime | None = None,
) -> tuple[Discount, ...]:
    """The discounts of one period: the plan's, which count a subscription's first periods on it
    (`since` then, None: from its start), then the subscription's own, oldest first. A part of a
    period counts with the period that it begins in.
    """
    since = since or cycle.start
    of_plan = [each for each in plan if _is_among_first(cycle, since, period, each.periods)]
    return (*of_plan, *(each.discount for each in own if each.applies_to(period)))


def percents_of(discounts: Sequence[Discount]) -> tuple[Decimal, ...]:
    """The rates of those in percent, in their order."""
    return tuple(each.percent for each in discounts if each.percent is not None)


def _is_among_first(cycle: Cycle, since: datetime, period: Period, periods: int | None) -> bool:
    if periods is None:
        return True
    reached = whole_at(cycle, since)
    for _ in islice(range(PERIODS_MAX), periods):
        if period.start < reached.end:
            return True
        reached = next_period(cycle, reached)
    return False
