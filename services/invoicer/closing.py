"""From a period that is over and its usage to what the invoice will say. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.invoicer.domain import InvoiceDraft, InvoiceLine, Plan, PlanContent, Subscription
from services.invoicer.lines import Billed, MetricUsage, base_line, late_line, usage_line
from services.invoicer.periods import Period, next_period, whole_of

# Metric to usage.
Usage = Mapping[str, MetricUsage]


@dataclass(frozen=True, slots=True)
class Selection:
    """Usage to ask for: one customer's metrics in one period."""

    customer_id: str
    metrics: tuple[str, ...]
    period: Period


@dataclass(frozen=True, slots=True)
class EarlierPeriod:
    """A period that was invoiced, the plan it was billed with, and what was billed, by metric."""

    period: Period
    plan: PlanContent
    billed: Mapping[str, Billed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenPeriod:
    """The period that a subscription is to be billed for next, and those that may have changed."""

    subscription: Subscription
    plan: Plan
    period: Period
    earlier: tuple[EarlierPeriod, ...] = ()

    def selections(self) -> list[Selection]:
        """The usage that draft() needs, in its order; of periods without metrics none."""
        plans = [(self.plan.content, self.period)]
        plans += [(earlier.plan, earlier.period) for earlier in self.earlier]
        return [
            Selection(
                self.subscription.customer_id,
                tuple(price.metric for price in plan.metrics),
                period,
            )
            for plan, period in plans
            if plan.metrics
        ]

    def draft(self, usages: Sequence[Usage]) -> InvoiceDraft:
        """What the invoice says: base price, metrics in the plan's order, changes of earlier ones.

        `usages` answers selections(), one by one.
        """
        remaining = iter(usages)
        return InvoiceDraft(
            customer_id=self.subscription.customer_id,
            subscription_id=self.subscription.id,
            plan_id=self.plan.id,
            plan_version=self.plan.version,
            currency=self.plan.content.currency,
            period=self.period,
            lines=(*self._lines(remaining), *self._late_lines(remaining)),
        )

    def _lines(self, usages: Iterator[Usage]) -> Iterator[InvoiceLine]:
        content = self.plan.content
        whole = whole_of(self.subscription.cycle, self.period)
        yield base_line(content, self.period, whole)
        usage = next(usages) if content.metrics else {}
        for price in content.metrics:
            yield usage_line(price, usage[price.metric], content.currency, self.period)

    def _late_lines(self, usages: Iterator[Usage]) -> Iterator[InvoiceLine]:
        for earlier in self.earlier:
            usage = next(usages) if earlier.plan.metrics else {}
            for price in earlier.plan.metrics:
                line = late_line(
                    price,
                    usage[price.metric],
                    earlier.billed.get(price.metric, Billed()),
                    earlier.plan.currency,
                    earlier.period,
                    self.subscription.time_zone,
                )
                if line is not None:
                    yield line


def following_period(subscription: Subscription, period: Period) -> Period | None:
    """The period after `period`; None when the subscription ends with it."""
    if subscription.cancel_time is not None and period.end >= subscription.cancel_time:
        return None
    return next_period(subscription.cycle, period)
