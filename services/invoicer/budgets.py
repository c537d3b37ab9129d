"""Budgets: what a period of a subscription is expected to cost, and whom to tell. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.invoicer.credit_checks import check_credit
from services.invoicer.domain import Subscription
from services.invoicer.exact import percent as percent_of
from services.invoicer.periods import Period
from services.kit.errors import FieldChecks

PERCENTS_DEFAULT = (50, 80, 100)
PERCENTS_MAX = 10
PERCENT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of money, and the percentages of it to tell of, ascending."""

    subscription_id: str
    amount: Decimal
    currency: str
    percents: tuple[int, ...]
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class BudgetInput:
    """A budget as asked for; no percentages: the usual ones."""

    amount: str
    percents: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Reached:
    """A percentage of an amount that what a period comes to, `spent`, has reached at a `time`."""

    subscription_id: str
    customer_id: str
    period: Period
    time: datetime
    amount: Decimal
    currency: str
    percent: int
    spent: Decimal

    @property
    def threshold(self) -> Decimal:
        """The percentage of the amount, all digits."""
        return percent_of(self.amount, Decimal(self.percent))


def check_budget(
    checks: FieldChecks, given: BudgetInput, currency: str
) -> tuple[Decimal, tuple[int, ...]]:
    """Amount and percentages, noting what is wrong."""
    amount = check_credit(checks, given.amount, "amount", currency)
    percents = tuple(sorted(given.percents)) or PERCENTS_DEFAULT
    right = len(percents) <= PERCENTS_MAX and len(set(percents)) == len(percents)
    right = right and all(1 <= each <= PERCENT_MAX for each in percents)
    message = f"must be up to {PERCENTS_MAX} different percentages from 1 to {PERCENT_MAX}"
    checks.require(right, "percents", message)
    return amount, percents


def watched_period(subscription: Subscription, part: Period) -> Period:
    """The period that `part` is of: parts that another plan or a pause has cut are one."""
    whole = subscription.whole_of(part)
    return Period(max(whole.start, subscription.cycle_at(part.start).start), whole.end)
