"""How much the plan of a subscription lets its customer use, and in which periods. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from services.invoicer.billing_periods import periods_between
from services.invoicer.domain import Plan, Subscription, UsageLimit
from services.invoicer.phases import run_at

# Told ahead, so that limits go on while invoicer is away: more than a year of months.
PERIODS_AHEAD_MAX = 16
AHEAD = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class ToldLimits:
    """The limits by metric, the boundaries of the periods that they hold in, and when there is
    something else to tell; None: never, as the subscription has ended.
    """

    limits: dict[str, UsageLimit]
    boundaries: tuple[datetime, ...]
    next_time: datetime | None


def limits_at(subscription: Subscription, plan: Plan | None, now: datetime) -> ToldLimits:
    """Those of the plan that the subscription is on, or begins with; `plan` None: it has ended.

    From the end of the running period on whatever comes is told again: another plan has other
    limits, and periods move on.
    """
    begin = max(now, subscription.start_time)
    run = run_at(subscription.phases, begin)
    if plan is None or not run:
        return ToldLimits({}, (), None)
    limits = {
        price.metric: price.usage_limit
        for price in plan.content.metrics
        if price.usage_limit is not None
    }
    end = begin + AHEAD if run[-1].end_time is None else min(begin + AHEAD, run[-1].end_time)
    periods = list(periods_between(subscription, begin, end))[:PERIODS_AHEAD_MAX]
    boundaries = (*(period.start for period in periods), periods[-1].end)
    return ToldLimits(limits, boundaries if limits else (), periods[0].end)
