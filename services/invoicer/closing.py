"""From a period that is over and its usage to what the invoice will say. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from services.invoicer.adjustments import BilledPart, Terms, adjustment_lines, prices_of
from services.invoicer.charges import OneOffCharge, charge_line
from services.invoicer.discounts import Discount, SubscriptionDiscount, discounts_of
from services.invoicer.domain import (
    BasePriceTiming,
    InvoiceDraft,
    InvoiceKind,
    InvoiceLine,
    MetricPrice,
    Plan,
    PlanContent,
    Subscription,
)
from services.invoicer.exact import ZERO, total
from services.invoicer.lines import (
    Billed,
    base_line,
    carried_line,
    days,
    late_line,
    setup_line,
    usage_line,
)
from services.invoicer.periods import Period, next_period, whole_of
from services.invoicer.pricing.charge import NO_LIMITS
from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.taxes import TaxRate, tax_lines, taxes_of

# Metric to usage.
Usage = Mapping[str, MetricUsage]


@dataclass(frozen=True, slots=True)
class Selection:
    """Usage to ask for: one customer's metrics in one period, and how each is priced."""

    customer_id: str
    prices: tuple[MetricPrice, ...]
    period: Period

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics' keys."""
        return tuple(price.metric for price in self.prices)

    @property
    def match_bytes(self) -> int:
        """About how long a question is made by prices that depend on dimensions."""
        models = (price.model for price in self.prices)
        return sum(model.match_bytes for model in models if isinstance(model, Dimensional))


@dataclass(frozen=True, slots=True)
class EarlierPeriod:
    """A period that was invoiced, the plan it was billed with, and what was billed, by metric."""

    period: Period
    plan: PlanContent
    billed: Mapping[str, Billed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenPeriod:
    """The period that a subscription is to be billed for next, and those that may have changed.

    `carried` is the credit that earlier invoices could not take off; `charges` are one-off charges
    that wait for an invoice. `discounts` are the subscription's own, oldest first, and
    `billed_parts` what its invoices have billed for these periods and the ones that follow.
    """

    subscription: Subscription
    plan: Plan
    period: Period
    earlier: tuple[EarlierPeriod, ...] = ()
    carried: Decimal = ZERO
    charges: tuple[OneOffCharge, ...] = ()
    discounts: tuple[SubscriptionDiscount, ...] = ()
    billed_parts: tuple[BilledPart, ...] = ()
    tax_rates: tuple[TaxRate, ...] = ()

    def selections(self) -> list[Selection]:
        """The usage that draft() needs, in its order; of periods without metrics none."""
        if self.subscription.opening:
            return []
        plans = [(self.plan.content, self.period)]
        plans += [(earlier.plan, earlier.period) for earlier in self.earlier]
        return [
            Selection(self.subscription.customer_id, plan.metrics, period)
            for plan, period in plans
            if plan.metrics
        ]

    def draft(self, usages: Sequence[Usage]) -> InvoiceDraft:
        """What the invoice says: base price, metrics in the plan's order, changes of earlier ones,
        discounts and limits of their sums, one-off charges, taxes, and the credit (taxes included)
        that comes from or goes to other invoices, so that it is never below 0.

        `usages` answers selections(), one by one.
        """
        remaining = iter(usages)
        currency = self.plan.content.currency
        prices = (*self._lines(remaining), *self._late_lines(remaining))
        one_off = (charge_line(charge, self.period) for charge in self.charges)
        lines = (*prices, *self._adjustments(prices), *one_off)
        taxes = taxes_of(lines, self.tax_rates, currency)
        lines = (*lines, *tax_lines(taxes, self.period, currency))
        amount = total(line.amount for line in lines)
        carried = carried_line(amount, self.carried, currency, self.period)
        kind = InvoiceKind.OPENING if self.subscription.opening else InvoiceKind.PERIOD
        return InvoiceDraft(
            customer_id=self.subscription.customer_id,
            subscription_id=self.subscription.id,
            plan_id=self.plan.id,
            plan_version=self.plan.version,
            currency=currency,
            period=self.period,
            lines=lines if carried is None else (*lines, carried),
            kind=kind,
            taxes=taxes,
        )

    @property
    def may_change_sums(self) -> bool:
        """Whether `billed_parts` can matter."""
        plans = [self.plan.content, *(earlier.plan for earlier in self.earlier)]
        discounts = [each.discount for each in self.discounts]
        discounts += [discount for plan in plans for discount in plan.discounts]
        limited = any(plan.limits != NO_LIMITS for plan in plans)
        return limited or any(discount.amount is not None for discount in discounts)

    def following(self) -> Period | None:
        """The period to be billed after this invoice; None when the subscription ends with it."""
        if self.subscription.opening:
            return self.period
        return following_period(self.subscription, self.period)

    def _lines(self, usages: Iterator[Usage]) -> Iterator[InvoiceLine]:
        content, subscription = self.plan.content, self.subscription
        if subscription.opening and content.setup_fee > 0:
            yield setup_line(content, self.period)
        based = self._base_period()
        if based is not None:
            whole = whole_of(subscription.cycle, based)
            discounts = self._discounts(content, based)
            yield base_line(content, based, whole, subscription.time_zone, discounts)
        if subscription.opening:
            return
        whole = whole_of(subscription.cycle, self.period)
        usage = next(usages) if content.metrics else {}
        discounts = self._discounts(content, self.period)
        for price in content.metrics:
            yield usage_line(
                price, usage[price.metric], content.currency, self.period, whole, discounts
            )

    def _base_period(self) -> Period | None:
        """The period whose base price this invoice charges."""
        if self.plan.content.base_price_timing is BasePriceTiming.IN_ADVANCE:
            return self.following()
        return None if self.subscription.opening else self.period

    def _late_lines(self, usages: Iterator[Usage]) -> Iterator[InvoiceLine]:
        for earlier in self.earlier:
            usage = next(usages) if earlier.plan.metrics else {}
            whole = whole_of(self.subscription.cycle, earlier.period)
            discounts = self._discounts(earlier.plan, earlier.period)
            for price in earlier.plan.metrics:
                line = late_line(
                    price,
                    usage[price.metric],
                    earlier.billed.get(price.metric, Billed()),
                    earlier.plan.currency,
                    earlier.period,
                    self.subscription.time_zone,
                    whole,
                    discounts,
                )
                if line is not None:
                    yield line

    def _discounts(self, plan: PlanContent, period: Period) -> tuple[Discount, ...]:
        return discounts_of(plan.discounts, self.discounts, self.subscription.cycle, period)

    def _adjustments(self, prices: Sequence[InvoiceLine]) -> Iterator[InvoiceLine]:
        """Of this invoice's period, and of those that it has prices of."""
        content, following = self.plan.content, self.following()
        opening = self.subscription.opening
        asked = [(content, self.period, not opening, "")]
        others = [(each.plan, each.period, True) for each in self.earlier]
        if following is not None and not opening:
            others.append((content, following, False))
        asked += [
            (plan, period, over, days(period, self.subscription.time_zone))
            for plan, period, over in others
            if prices_of(prices, period)
        ]
        for plan, period, over, words in asked:
            whole = whole_of(self.subscription.cycle, period)
            discounts = self._discounts(plan, period)
            terms = Terms(period, whole, discounts, plan.limits, over, words)
            if terms.change_sums:
                yield from adjustment_lines(terms, prices, self.billed_parts, plan.currency)


def following_period(subscription: Subscription, period: Period) -> Period | None:
    """The period after `period`; None when the subscription ends with it."""
    if subscription.cancel_time is not None and period.end >= subscription.cancel_time:
        return None
    return next_period(subscription.cycle, period)
