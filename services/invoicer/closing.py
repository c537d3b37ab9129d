"""From a period that is over and its usage to what the invoice will say. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from services.invoicer.adjustments import BilledPart, Terms, adjustment_lines
from services.invoicer.base_prices import BasePart, Prepaid, base_lines
from services.invoicer.billing_settings import NO_SETTINGS, BillingSettings, LateUsage
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
    Share,
    carried_line,
    days,
    late_line,
    setup_line,
    usage_line,
)
from services.invoicer.periods import Period
from services.invoicer.phases import Phase, PhaseKind
from services.invoicer.pricing.charge import NO_LIMITS
from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.taxes import TaxRate, tax_lines, taxes_of
from services.invoicer.timed import PricedTime, priced_times

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
    """A period that was invoiced, the plan it was billed with, and what was billed, by metric.

    `exact`: the period by time; None: its invoice is from before that was kept.
    """

    invoice_id: str
    period: Period
    plan: PlanContent
    billed: Mapping[str, Billed] = field(default_factory=dict)
    exact: Period | None = None


@dataclass(frozen=True, slots=True)
class Decrease:
    """An invoiced period that costs less after all; `changes` sum to less than 0."""

    invoice_id: str
    changes: tuple[InvoiceLine, ...]
    # For people.
    reason: str


@dataclass(frozen=True, slots=True)
class OpenPeriod:
    """The period that a subscription is to be billed for next, and those that may have changed.

    `carried` is the credit that earlier invoices could not take off; `charges` are one-off charges
    that wait for an invoice. `time_plans` are those that time of the period is of besides `plan`.
    `discounts` are the subscription's own, oldest first, and
    `billed_parts` what its invoices have billed for these periods and the ones that follow.
    `prepaid` are base prices from the period on that earlier invoices charged, oldest first;
    `next_plan` is that of what follows, None when nothing does. Of a subscription that has ended,
    the period is the time in which late usage was waited for.
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
    prepaid: tuple[Prepaid, ...] = ()
    next_plan: Plan | None = None
    time_plans: tuple[Plan, ...] = ()
    settings: BillingSettings = NO_SETTINGS

    @property
    def kind(self) -> InvoiceKind:
        """What its invoice is."""
        if self.subscription.period is None:
            return InvoiceKind.LATE
        return InvoiceKind.OPENING if self.subscription.opening else InvoiceKind.PERIOD

    @property
    def is_idle(self) -> bool:
        """Whether the period is a trial's or a pause's: it has no invoice."""
        is_period = self.kind is InvoiceKind.PERIOD
        return is_period and not is_billed(self.subscription, self.period)

    @property
    def _asks(self) -> bool:
        return self.kind is not InvoiceKind.OPENING and not self.is_idle

    def selections(self) -> list[Selection]:
        """The usage that draft() needs, in its order; of periods without metrics none."""
        if not self._asks:
            return []
        plans = [] if self.kind is InvoiceKind.LATE else [(self.plan.content, self.period)]
        plans += [(earlier.plan, earlier.period) for earlier in self.earlier]
        return [
            Selection(self.subscription.customer_id, plan.metrics, period)
            for plan, period in plans
            if plan.metrics
        ]

    def decreases(self, usages: Sequence[Usage]) -> list[Decrease]:
        """What the organization wants credit notes for, where they can be made: earlier periods
        that cost less than was billed. `usages` answers selections(), one by one.
        """
        if self.settings.late_usage is not LateUsage.CREDIT_NOTE:
            return []
        remaining = iter(usages)
        if self.kind is not InvoiceKind.LATE and self.plan.content.metrics and self._asks:
            next(remaining)
        found = []
        for earlier, late in self._late_lines(remaining):
            if not late:
                continue
            words = days(earlier.period, self.subscription.time_zone)
            changes = (*late, *self._adjusted_later(earlier, late, words))
            if total(change.amount for change in changes) < 0:
                reason = f"Usage of {words} comes to less than was billed"
                found.append(Decrease(earlier.invoice_id, changes, reason))
        return found

    def draft(self, usages: Sequence[Usage], credited: Collection[str] = ()) -> InvoiceDraft:
        """What the invoice says: base price, metrics in the plan's order, changes of earlier ones,
        discounts and limits of their sums, one-off charges, taxes, and the credit (taxes included)
        that comes from or goes to other invoices, so that it is never below 0.

        `usages` answers selections(), one by one. `credited`: invoices whose periods' changes stand
        on credit notes. A late one may have no lines: there is nothing.
        """
        remaining = iter(usages)
        currency = self.plan.content.currency
        own = tuple(self._lines(remaining))
        changed = self._late_lines(remaining)
        late = (lines for earlier, lines in changed if earlier.invoice_id not in credited)
        prices = (*own, *(line for lines in late for line in lines))
        one_off = (charge_line(charge, self.period) for charge in self.charges)
        lines = (*prices, *self._adjustments(prices), *one_off)
        taxes = taxes_of(lines, self.tax_rates, currency)
        lines = (*lines, *tax_lines(taxes, self.period, currency))
        amount = total(line.amount for line in lines)
        carried = carried_line(amount, self.carried, currency, self.period)
        return InvoiceDraft(
            customer_id=self.subscription.customer_id,
            subscription_id=self.subscription.id,
            plan_id=self.plan.id,
            plan_version=self.plan.version,
            currency=currency,
            period=self.period,
            lines=lines if carried is None else (*lines, carried),
            kind=self.kind,
            taxes=taxes,
            exact=self._exact() if self.kind is InvoiceKind.PERIOD else None,
        )

    @property
    def may_change_sums(self) -> bool:
        """Whether `billed_parts` can matter."""
        plans = [self.plan.content, *(earlier.plan for earlier in self.earlier)]
        plans += [plan.content for plan in self.time_plans]
        if self.next_plan is not None:
            plans.append(self.next_plan.content)
        discounts = [each.discount for each in self.discounts]
        discounts += [discount for plan in plans for discount in plan.discounts]
        limited = any(plan.limits != NO_LIMITS for plan in plans)
        limited = limited or any(discount.amount is not None for discount in discounts)
        # What was paid ahead for a plan that it then was never on may have been limited.
        return limited or bool(self.prepaid and len(self.subscription.phases) > 1)

    @property
    def may_be_prepaid(self) -> bool:
        """Whether `prepaid` can matter: earlier invoices may have charged its base price."""
        subscription, plan = self.subscription, (self.plan.id, self.plan.version)
        made_with = (subscription.plan_id, subscription.plan_version)
        changed = len(subscription.phases) > 1 or made_with != plan
        in_advance = self.plan.content.base_price_timing is BasePriceTiming.IN_ADVANCE
        return self.kind is InvoiceKind.PERIOD and (in_advance or changed)

    def following(self) -> Period | None:
        """The period to be billed after this invoice; None when the subscription ends with it."""
        if self.subscription.opening:
            return self.period
        if self.subscription.period is None:
            return None
        return self.subscription.part_from(self.period.end)

    def times(self) -> list[PricedTime]:
        """The time of the period, of its plan and of others; of one that is not billed none."""
        if self.kind is InvoiceKind.LATE or self.is_idle:
            return []
        return priced_times(self.subscription, self.period)

    def opens_next(self) -> bool:
        """Whether what follows begins with an invoice of its own: nothing before it is billed."""
        following = self.following()
        if not self.is_idle or following is None or self.next_plan is None:
            return False
        return opens(self.subscription, self.next_plan.content, following)

    def _lines(self, usages: Iterator[Usage]) -> Iterator[InvoiceLine]:
        content = self.plan.content
        if self.is_idle or self.kind is InvoiceKind.LATE:
            return
        if self.subscription.opening:
            if content.setup_fee > 0 and is_first_billed(self.subscription, self.period):
                yield setup_line(content, self.period)
            if content.base_price_timing is BasePriceTiming.IN_ADVANCE:
                yield from base_lines(self._base_part(content, self.period))
            return
        yield from self._base_lines()
        following = self._charged_in_advance()
        if following is not None:
            yield from base_lines(self._base_part(*following))
        share = self._share(content, self.period)
        usage = next(usages) if content.metrics else {}
        discounts = self._discounts(content, self.period)
        for price in content.metrics:
            yield usage_line(
                price, usage[price.metric], content.currency, self.period, share, discounts
            )

    def _charged_in_advance(self) -> tuple[PlanContent, Period] | None:
        """The period whose base price this invoice charges before it begins."""
        following = self.following()
        if following is None or self.next_plan is None or self.subscription.opening:
            return None
        content = self.next_plan.content
        in_advance = content.base_price_timing is BasePriceTiming.IN_ADVANCE
        billed = is_billed(self.subscription, following)
        return (content, following) if in_advance and billed else None

    def _exact(self) -> Period:
        return self.subscription.exact(self.period)

    def _share(self, plan: PlanContent, part: Period, exact: Period | None = None) -> Share | None:
        """What of a period is priced by time; None: no price of usage is."""
        if all(price.limits.minimum is None for price in plan.metrics):
            return None
        time, *_ = priced_times(self.subscription, part, exact)
        return Share(time.periods, time.whole)

    def _base_lines(self) -> list[InvoiceLine]:
        """Base prices of the period, by time: of its plan, and of others that had some of it."""
        lines: list[InvoiceLine] = []
        end = self._exact().end
        for time in self.times():
            content = self._content_of(time)
            paid = [each for each in self.prepaid if time.claim.holds(each.billed)]
            if time.has_usage:
                paid += [each for each in self.prepaid if each.period.start >= end]
            if time.has_usage or content.base_price > 0 or paid:
                lines += base_lines(self._base_of(content, self.period, time), paid)
        return sorted(lines, key=lambda line: line.period.start)

    def _content_of(self, time: PricedTime) -> PlanContent:
        if time.has_usage:
            return self.plan.content
        wanted = (time.phase.plan_id, time.phase.plan_version)
        return next(p.content for p in self.time_plans if (p.id, p.version) == wanted)

    def _base_part(self, plan: PlanContent, part: Period) -> BasePart:
        time, *_ = priced_times(self.subscription, part)
        return self._base_of(plan, part, time)

    def _base_of(self, plan: PlanContent, part: Period, time: PricedTime) -> BasePart:
        return BasePart(
            plan=plan,
            whole=time.whole,
            segments=time.segments,
            discounts=self._discounts(plan, part, time.phase),
            time_zone=self.subscription.time_zone,
        )

    def _late_lines(
        self, usages: Iterator[Usage]
    ) -> Iterator[tuple[EarlierPeriod, list[InvoiceLine]]]:
        for earlier in self.earlier if self._asks else ():
            usage = next(usages) if earlier.plan.metrics else {}
            share = self._share(earlier.plan, earlier.period, earlier.exact)
            discounts = self._discounts(earlier.plan, earlier.period)
            lines = (
                late_line(
                    price,
                    usage[price.metric],
                    earlier.billed.get(price.metric, Billed()),
                    earlier.plan.currency,
                    earlier.period,
                    self.subscription.time_zone,
                    share,
                    discounts,
                )
                for price in earlier.plan.metrics
            )
            yield earlier, [line for line in lines if line is not None]

    def _discounts(
        self, plan: PlanContent, period: Period, phase: Phase | None = None
    ) -> tuple[Discount, ...]:
        """Those of a part, in the time of a phase; None: of the one that usage is of."""
        phase = phase or self.subscription.phase_at(period.start)
        cycle = self.subscription.cycle_of(phase)
        since = self.subscription.plan_since(period.start, phase)
        return discounts_of(plan.discounts, self.discounts, cycle, period, since)

    def _adjustments(self, prices: Sequence[InvoiceLine]) -> Iterator[InvoiceLine]:
        """Of this invoice's period, and of those that it has prices of."""
        opening = self.subscription.opening
        for time in self.times()[: 1 if opening else None]:
            content = self._content_of(time)
            yield from self._adjusted(content, self.period, prices, time, over=not opening)
        zone = self.subscription.time_zone
        for each in self.earlier:
            if any(each.period.start <= line.period.start < each.period.end for line in prices):
                yield from self._adjusted_later(each, prices, days(each.period, zone))
        following = self._charged_in_advance()
        if following is not None:
            plan, part = following
            time, *_ = priced_times(self.subscription, part)
            yield from self._adjusted(plan, part, prices, time, days(part, zone), over=False)

    def _adjusted_later(
        self, earlier: EarlierPeriod, prices: Sequence[InvoiceLine], words: str
    ) -> Iterator[InvoiceLine]:
        time, *_ = priced_times(self.subscription, earlier.period, earlier.exact)
        yield from self._adjusted(earlier.plan, earlier.period, prices, time, words)

    def _adjusted(
        self,
        plan: PlanContent,
        part: Period,
        prices: Sequence[InvoiceLine],
        time: PricedTime,
        words: str = "",
        *,
        over: bool = True,
    ) -> Iterator[InvoiceLine]:
        """What changes the sum of a time of a part, when `prices` are billed for it besides those
        that were.
        """
        period, minimums = part, tuple[tuple[str, Decimal], ...]()
        if not time.has_usage:
            period = Period(time.segments[0].period.start, time.segments[-1].period.end)
            least = ((price.metric, price.limits.minimum) for price in plan.metrics)
            minimums = tuple((metric, limit) for metric, limit in least if limit is not None)
        terms = Terms(
            period=period,
            whole=time.whole,
            discounts=self._discounts(plan, part, time.phase),
            limits=plan.limits,
            over=over,
            words=words,
            undivided=time.undivided,
            times=time.periods,
            claim=time.claim,
            minimums=minimums,
        )
        yield from adjustment_lines(terms, prices, self.billed_parts, plan.currency)


def is_billed(subscription: Subscription, part: Period) -> bool:
    """Whether it is neither a trial nor a pause."""
    return subscription.phase_at(part.start).kind is PhaseKind.BILLED


def is_first_billed(subscription: Subscription, part: Period) -> bool:
    """Whether nothing was billed before it."""
    billed = (phase for phase in subscription.phases if phase.kind is PhaseKind.BILLED)
    return next(billed).start_time == part.start


def opens(subscription: Subscription, plan: PlanContent, part: Period) -> bool:
    """Whether something is due when `part` begins, with nothing billed before it."""
    in_advance = plan.base_price_timing is BasePriceTiming.IN_ADVANCE and plan.base_price > 0
    fee = plan.setup_fee > 0 and is_first_billed(subscription, part)
    return is_billed(subscription, part) and (in_advance or fee)
