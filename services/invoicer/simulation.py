"""What months that have been cost with the plan that customers are on, and with another one. Pure.

A subscription is put on a plan as if it had been on it all the time, in the calendar's periods, and
its periods are drafted as those of invoices are. Its start, end, trials, pauses and quantities stay
what they were; one that began only after these months counts as if it had begun before them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from services.invoicer.closing import OpenPeriod, Selection, Usage
from services.invoicer.discounts import SubscriptionDiscount, discounts_of
from services.invoicer.domain import (
    BasePriceTiming,
    MetricPrice,
    Plan,
    PlanContent,
    Subscription,
    SubscriptionStatus,
)
from services.invoicer.exact import ZERO, add, subtract, total
from services.invoicer.periods import BillingAnchor, Period
from services.invoicer.phases import Border, Phase, PhaseKind, arranged
from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.percentage import Percentage
from services.invoicer.pricing.usage import MetricUsage
from services.kit.database import TenantKey

# The plan that is simulated is stored nowhere.
DRAFT_ID = "plan_draft"
_MONTHS_A_YEAR = 12


@dataclass(frozen=True, slots=True)
class Months:
    """Consecutive calendar months, each as year x 12 + month - 1; the last one is included."""

    first: int
    last: int

    def window(self, time_zone: str) -> Period:
        """Their time there."""
        return Period(_month_start(self.first, time_zone), _month_start(self.last + 1, time_zone))


def month_of(instant: datetime) -> int:
    """The month of an instant, in UTC."""
    there = instant.astimezone(UTC)
    return there.year * _MONTHS_A_YEAR + there.month - 1


def _month_start(month: int, time_zone: str) -> datetime:
    year, index = divmod(month, _MONTHS_A_YEAR)
    return datetime(year, index + 1, 1, tzinfo=ZoneInfo(time_zone)).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription with its own discounts, and the plan that it is on now."""

    subscription: Subscription
    plan: Plan
    discounts: tuple[SubscriptionDiscount, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One customer's periods in these months, with the present plans and with the other one."""

    customer_id: str
    subscriptions: int
    old: tuple[OpenPeriod, ...]
    new: tuple[OpenPeriod, ...]
    old_currencies: frozenset[str]


@dataclass(frozen=True, slots=True)
class CustomerCost:
    """What one customer's months cost; `difference` None: in another currency.

    `old_amount` None, `old_currency` "": the present plans are of several currencies.
    """

    customer_id: str
    subscriptions: int
    old_currency: str
    old_amount: Decimal | None
    new_amount: Decimal
    difference: Decimal | None


def case_of(
    customer_id: str, found: Sequence[Subscribed], draft: Plan, months: Months, now: datetime
) -> Case:
    """A customer's case; subscriptions that had ended before these months count nothing."""
    old: list[OpenPeriod] = []
    new: list[OpenPeriod] = []
    currencies = set()
    count = 0
    for each in found:
        window = months.window(each.subscription.time_zone)
        phases = phases_within(each.subscription.phases, window)
        if not phases:
            continue
        count += 1
        currencies.add(each.plan.content.currency)
        begun = _billed_from(phases).time
        old += _periods(each, phases, each.plan, min(each.subscription.plan_since(now), begun))
        new += _periods(each, phases, draft, begun)
    return Case(customer_id, count, tuple(old), tuple(new), frozenset(currencies))


def case_without_subscription(
    tenant: TenantKey, customer_id: str, time_zone: str, draft: Plan, months: Months
) -> Case:
    """Of a customer who had no subscription: as if there had been one of the plan."""
    window = months.window(time_zone)
    content = draft.content
    phase = Phase(
        start_time=window.start,
        end_time=window.end,
        kind=PhaseKind.BILLED,
        plan_id=draft.id,
        plan_version=draft.version,
        billing_period=content.billing_period,
        anchor_time=window.start,
        quantity=1,
        create_time=window.start,
    )
    subscription = Subscription(
        tenant=tenant,
        id="",
        customer_id=customer_id,
        plan_id=draft.id,
        plan_version=draft.version,
        status=SubscriptionStatus.ACTIVE,
        billing_anchor=BillingAnchor.CALENDAR,
        billing_period=content.billing_period,
        time_zone=time_zone,
        start_time=window.start,
        period=window,
        cancel_time=None,
        revision=0,
        create_time=window.start,
        phases=(phase,),
    )
    new = _periods(Subscribed(subscription, draft), (phase,), draft, window.start)
    return Case(customer_id, 0, (), tuple(new), frozenset({content.currency}))


def _billed_from(phases: Sequence[Phase]) -> Border:
    """When billing begins: as ever, periods and discounts count from there."""
    billed = (phase for phase in phases if phase.kind is PhaseKind.BILLED)
    first = next(billed, phases[0])
    return Border(first.start_time, max(first.start_time, first.priced_from))


def phases_within(phases: Sequence[Phase], window: Period) -> tuple[Phase, ...]:
    """What of the phases lies in the window, by usage or by time; of a subscription that begins
    after it, the first one that is billed, as if it had begun with the window.
    """
    if phases and phases[0].start_time >= window.end:
        billed = next((each for each in phases if each.kind is PhaseKind.BILLED), None)
        return () if billed is None else (_moved(billed, window, window),)
    inside = ((each, _usage_within(each, window), each.within(window)) for each in phases)
    return tuple(
        _moved(each, usage, time) for each, usage, time in inside if usage.seconds or time.seconds
    )


def _usage_within(phase: Phase, window: Period) -> Period:
    start = min(max(phase.start_time, window.start), window.end)
    end = min(phase.end_time or window.end, window.end)
    return Period(start, max(start, end))


def _moved(phase: Phase, usage: Period, time: Period) -> Phase:
    return replace(
        phase,
        start_time=usage.start,
        end_time=usage.end,
        exact_start_time=Border(usage.start, time.start).exact_time,
        exact_end_time=Border(usage.end, time.end).exact_time,
    )


def _periods(
    given: Subscribed, phases: Sequence[Phase], plan: Plan, since: datetime
) -> Iterator[OpenPeriod]:
    """The periods of the subscription on `plan`, each to be drafted as an invoice is.

    The plan's discounts count the subscription's first periods from `since` on.
    """
    begun = _billed_from(phases)
    moved = arranged(
        [
            replace(
                phase,
                plan_id=plan.id,
                plan_version=plan.version,
                billing_period=plan.content.billing_period,
                anchor_time=begun.time,
                exact_anchor_time=begun.exact_time,
            )
            for phase in phases
        ]
    )
    subscription = replace(
        given.subscription,
        billing_anchor=BillingAnchor.CALENDAR,
        billing_period=plan.content.billing_period,
        phases=moved,
        opening=False,
        period=None,
        exact_period_start=None,
    )
    start = moved[0].start_time
    while (part := subscription.part_from(start)) is not None:
        content = _content(plan.content, subscription, part, since)
        yield OpenPeriod(
            subscription=replace(subscription, period=part),
            plan=replace(plan, content=content),
            period=part,
            discounts=given.discounts,
        )
        start = part.end


def _content(
    plan: PlanContent, subscription: Subscription, part: Period, since: datetime
) -> PlanContent:
    """The plan with the discounts that this part has; in advance or not, it costs the same."""
    cycle = subscription.cycle_at(part.start)
    active = discounts_of(plan.discounts, (), cycle, part, since)
    return replace(
        plan,
        base_price_timing=BasePriceTiming.IN_ARREARS,
        discounts=tuple(replace(each, periods=None) for each in active),
    )


def cost_of(case: Case, usages: "Answers", currency: str) -> CustomerCost:
    """What the case comes to; `currency` is that of the other plan."""
    new = total(each.draft(usages.of(each)).amount for each in case.new)
    old, old_currency = None, ""
    if len(case.old_currencies) == 1:
        (old_currency,) = case.old_currencies
        old = total(each.draft(usages.of(each)).amount for each in case.old)
    return CustomerCost(
        customer_id=case.customer_id,
        subscriptions=case.subscriptions,
        old_currency=old_currency,
        old_amount=old,
        new_amount=new,
        difference=subtract(new, old) if old is not None and old_currency == currency else None,
    )


class Questions:
    """The usage that cases need, each figure asked for once: the old plan and the new one mostly
    need the same.
    """

    def __init__(self) -> None:
        self._asked: dict[tuple[str, Period], list[dict[str, MetricPrice]]] = {}

    def add(self, case: Case) -> None:
        """Ask for all that a case needs."""
        for due in (*case.old, *case.new):
            for selection in due.selections():
                for price in selection.prices:
                    self._add(selection, price)

    def _add(self, selection: Selection, price: MetricPrice) -> None:
        asked = self._asked.setdefault((selection.customer_id, selection.period), [])
        for prices in asked:
            known = prices.setdefault(price.metric, price)
            if known is price or _question(known) == _question(price):
                return
        asked.append({price.metric: price})

    def selections(self) -> list[Selection]:
        """What to ask for, in the order that answers() takes."""
        return [
            Selection(customer_id, tuple(prices.values()), period)
            for (customer_id, period), asked in self._asked.items()
            for prices in asked
        ]

    def answers(self, usages: Sequence[Usage]) -> "Answers":
        """The answers to selections(), one by one."""
        remaining = iter(usages)
        return Answers(
            {
                key: [(prices, next(remaining)) for prices in asked]
                for key, asked in self._asked.items()
            }
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """Usage by customer and period."""

    found: Mapping[tuple[str, Period], Sequence[tuple[Mapping[str, MetricPrice], Usage]]]

    def of(self, due: OpenPeriod) -> list[Usage]:
        """What `due.selections()` asks for, in its order."""
        return [
            {price.metric: self._of(selection, price) for price in selection.prices}
            for selection in due.selections()
        ]

    def _of(self, selection: Selection, price: MetricPrice) -> MetricUsage:
        for prices, usage in self.found[selection.customer_id, selection.period]:
            known = prices.get(price.metric)
            if known is not None and _question(known) == _question(price):
                return usage[price.metric]
        raise LookupError(f"nobody asked for {price.metric}")


def _question(price: MetricPrice) -> object:
    """What is asked of a metric: two prices with the same question have the same answer."""
    model = price.model
    if isinstance(model, Dimensional):
        return tuple(each.match for each in model.tried), tuple(each.label for each in model.tried)
    if isinstance(model, Percentage):
        return (model, price.included_units) if model.needs_events else Percentage.name
    return None


@dataclass(slots=True)
class Totals:
    """The sums of all customers whose present plans have the other plan's currency.

    `as_of`: everything accepted before it is in all figures; None: no usage was asked for.
    """

    currency: str
    customers: int = 0
    more: int = 0
    less: int = 0
    other_currency: int = 0
    old_amount: Decimal = ZERO
    new_amount: Decimal = ZERO
    as_of: datetime | None = None

    def add(self, cost: CustomerCost) -> None:
        """Count one customer."""
        if cost.difference is None or cost.old_amount is None:
            self.other_currency += 1
            return
        self.customers += 1
        self.more += cost.difference > 0
        self.less += cost.difference < 0
        self.old_amount = add(self.old_amount, cost.old_amount)
        self.new_amount = add(self.new_amount, cost.new_amount)

    def known_until(self, as_of: datetime) -> None:
        """Note how recent an answer is."""
        self.as_of = as_of if self.as_of is None else min(self.as_of, as_of)
