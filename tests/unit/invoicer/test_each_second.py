"""Whatever is done to a subscription, at whatever seconds: what its invoices charge for time is
what its seconds cost.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.invoicer.adjustments import BilledPart, billed_part
from services.invoicer.base_prices import Prepaid, outstanding
from services.invoicer.changes import (
    Timing,
    begin_at,
    cancelled,
    changed,
    end_at,
    first_phases,
    paused,
    resumed,
    uncancelled,
)
from services.invoicer.closing import OpenPeriod, opens
from services.invoicer.discounts import Discount
from services.invoicer.domain import (
    BasePriceTiming,
    InvoiceLine,
    LineKind,
    MetricPrice,
    Plan,
    PlanContent,
    Subscription,
    SubscriptionStatus,
)
from services.invoicer.exact import ZERO, total
from services.invoicer.periods import BillingAnchor, BillingPeriod, Period, quarter_hour_of
from services.invoicer.phases import Phase, PhaseKind
from services.invoicer.pricing.charge import Limits
from services.invoicer.pricing.per_unit import PerUnit
from services.invoicer.pricing.usage import MetricUsage
from services.kit.database import TenantKey
from tests.unit.invoicer.naive_time import NaiveTime

QUARTER, SECOND, DAY = timedelta(minutes=15), timedelta(seconds=1), timedelta(days=1)
# A quarter of an hour before a day begins: changes then come to lie around midnights.
START = datetime(2026, 1, 10, 6, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 2, 1, tzinfo=UTC)
CENT = Fraction(1, 100)
# Hundreds of thousands a second: one second is never lost in what is rounded.
PRICE = Decimal(10) ** 13
MONTHLY, WEEKLY, YEARLY = BillingPeriod.MONTHLY, BillingPeriod.WEEKLY, BillingPeriod.YEARLY
ADVANCE = BasePriceTiming.IN_ADVANCE
CALLS = MetricPrice("API_CALL", ZERO, PerUnit(ZERO), Limits(PRICE * 5, None))


def plan(number: int, base: int = 1, length: BillingPeriod = MONTHLY, **more: object) -> Plan:
    metrics = more.pop("metrics", ())
    assert isinstance(metrics, tuple)
    content = PlanContent(f"P{number}", "USD", PRICE * base, length, metrics)
    return Plan(f"plan_{number}", 1, replace(content, **more), START)  # type: ignore[arg-type]


OFF = (Discount("Off", amount=PRICE / 10**5),)
PLANS = [
    plan(0),
    plan(1, 2),
    plan(2, 3, base_price_timing=ADVANCE),
    plan(3, 4, base_price_timing=ADVANCE, discounts=OFF),
    plan(4, 50, YEARLY),
    plan(5, 60, YEARLY, base_price_timing=ADVANCE),
    plan(6, 1, WEEKLY, base_price_timing=ADVANCE),
    plan(7, 0, limits=Limits(PRICE * 2, None)),
    plan(8, 0, metrics=(CALLS,)),
    plan(9, 1, discounts=OFF),
    plan(10, 1, limits=Limits(None, PRICE * 1000), base_price_timing=ADVANCE),
]
BY_ID = {each.id: each for each in PLANS}
TIME = (
    LineKind.BASE, LineKind.USAGE, LineKind.DISCOUNT, LineKind.MAXIMUM, LineKind.MINIMUM,
)  # fmt: skip


@dataclass
class World:
    """One subscription with what was invoiced of it, and the same by seconds."""

    found: Subscription
    naive: NaiveTime
    lines: list[InvoiceLine] = field(default_factory=list)
    prepaid: list[Prepaid] = field(default_factory=list)
    billed: list[BilledPart] = field(default_factory=list)
    exact: list[Period] = field(default_factory=list)

    def close(self, now: datetime, grace: timedelta) -> None:
        """Invoice what is over, as closing does."""
        while (period := self.found.period) is not None:
            wait = timedelta(0) if self.due(period).is_idle else grace
            if self.found.opening and period.start <= now:
                self._invoice(self.due(period))
                self.found = replace(self.found, opening=False)
            elif not self.found.opening and period.end + wait <= now:
                self._invoice(self.due(period))
            else:
                return

    def due(self, period: Period) -> OpenPeriod:
        """As it is loaded."""
        found, on = self.found, self.found.phase_at(period.start)
        following = found.part_from(period.end)
        due = OpenPeriod(found, BY_ID[on.plan_id], period)
        if following is not None:
            due = replace(due, next_plan=BY_ID[found.phase_at(following.start).plan_id])
        begin = found.exact_at(period.start)
        paid = [each for each in self.prepaid if each.period.start >= begin]
        return replace(
            due,
            time_plans=tuple(BY_ID[time.phase.plan_id] for time in due.times()[1:]),
            prepaid=tuple(outstanding(paid, self.lines)),
            billed_parts=tuple(self.billed),
        )

    def _invoice(self, due: OpenPeriod) -> None:
        period = due.period
        if not due.is_idle:
            none = MetricUsage(ZERO)
            self.exact += [self.found.exact(period)] if not self.found.opening else []
            draft = due.draft([dict.fromkeys(each.metrics, none) for each in due.selections()])
            for line in draft.lines:
                if line.kind not in TIME:
                    continue
                self.lines.append(line)
                self.billed.append(billed_part(line))
                if line.kind is LineKind.BASE and line.unit_price is not None:
                    paid = Prepaid(line.period, line.unit_price, line.quantity, line.amount)
                    self.prepaid.append(paid)
        if self.found.opening:
            return
        assert self.found.period is not None
        following = due.following()
        self.found = replace(
            self.found,
            period=following,
            opening=due.opens_next(),
            exact_period_start=self.found.exact_at(following.start) if following else None,
        )

    def act(self, now: datetime, action: str, timing: Timing, pick: int) -> None:
        """One of the things that a caller may do, to both."""
        found, naive = self.found, self.naive
        second = now.replace(microsecond=0)
        if action == "pause":
            border = end_at(found, timing, now)
            until = border.time + (pick % 300) * QUARTER if pick % 3 else None
            if until is not None and until <= border.time:
                return
            if found.phase_at(now).kind is PhaseKind.TRIAL:
                return
            if found.priced_until is not None and found.priced_until <= border.exact:
                return
            found = paused(resumed(found, border, now), border, until, now)
            naive.pause(second if timing is Timing.NOW else border.exact, until)
        elif action == "resume" and found.status is not SubscriptionStatus.CANCELLED:
            found = resumed(found, begin_at(found, Timing.NOW, now), now)
            naive.resume(second)
        elif action == "change":
            border = begin_at(found, timing, now)
            if found.priced_until is not None and found.priced_until <= border.exact:
                return
            chosen, quantity = PLANS[pick % len(PLANS)], 1 + pick % 3
            found = changed(found, border, chosen, quantity, now)
            naive.change(second if timing is Timing.NOW else border.exact, chosen, quantity)
        elif action == "cancel":
            border = end_at(found, timing, now)
            if found.priced_until is not None and found.priced_until <= border.exact:
                return
            found = cancelled(found, border)
            naive.cancel(second if timing is Timing.NOW else border.exact)
        elif found.cancel_time is not None:
            found = uncancelled(found, SubscriptionStatus.ACTIVE)
            naive.uncancel()
        self.found = found


def made(anchor: BillingAnchor, zone: str, trial: datetime | None, now: datetime) -> World:
    start = quarter_hour_of(now)
    first = PLANS[now.second % len(PLANS)]
    found = Subscription(
        tenant=TenantKey("org_" + "0" * 32, "test"),
        id="sub_1",
        customer_id="user_123",
        plan_id=first.id,
        plan_version=1,
        status=SubscriptionStatus.ACTIVE,
        billing_anchor=anchor,
        billing_period=first.content.billing_period,
        time_zone=zone,
        start_time=start,
        period=None,
        cancel_time=None,
        revision=1,
        create_time=now,
        phases=first_phases(first, start, trial, 1, now, now),
    )
    period = found.part_from(start)
    assert period is not None
    found = replace(
        found,
        period=period,
        exact_period_start=found.exact_at(start),
        opening=opens(found, first.content, period),
    )
    return World(found, NaiveTime(first, now if trial is None else start, trial, anchor, zone))


def check_phases(found: Subscription, before: Subscription) -> None:
    """What the database refuses otherwise."""
    assert found.period is not None
    invoiced, priced = found.period.start, found.exact_at(found.period.start)
    end, exact = found.start_time, found.phases[0].priced_from
    for phase in found.phases:
        assert (phase.start_time, phase.priced_from) == (end, exact)
        usage = phase.end_time is None or phase.start_time < phase.end_time
        until = phase.priced_until
        assert usage or (until is not None and phase.priced_from < until)
        early = QUARTER if phase.kind is PhaseKind.PAUSED else timedelta(0)
        assert phase.start_time - early <= phase.priced_from < phase.start_time + QUARTER
        if phase.exact_anchor_time is not None:
            assert phase.anchor_time < phase.exact_anchor_time < phase.anchor_time + QUARTER
        if phase.end_time is not None and until is not None:
            assert phase.end_time - QUARTER <= until < phase.end_time + QUARTER
            end, exact = phase.end_time, until
    assert found.phases[-1].end_time == found.cancel_time
    assert [kept(each) for each in found.phases if is_before(each, invoiced, priced)] == [
        kept(each) for each in before.phases if is_before(each, invoiced, priced)
    ]


def is_before(phase: Phase, invoiced: datetime, priced: datetime) -> bool:
    return phase.start_time < invoiced or phase.priced_from < priced


def kept(phase: Phase) -> Phase:
    return replace(phase, end_time=None, exact_end_time=None)


# Mostly within the same quarter of an hour; -1: to the first one of the period that follows.
WAITS = st.one_of(
    st.just(0), st.integers(0, 300), st.integers(0, 1_200), st.just(-1), st.integers(0, 20 * 86_400)
)
STEPS = st.lists(
    st.tuples(
        WAITS,
        st.sampled_from(["pause", "resume", "change", "change", "change", "cancel", "uncancel"]),
        st.sampled_from([Timing.NOW, Timing.NOW, Timing.NOW, Timing.PERIOD_END]),
        st.integers(1, 899),
    ),
    max_size=14,
)


@settings(max_examples=600, deadline=None)
@given(
    anchor=st.sampled_from(BillingAnchor),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/New_York"]),
    trial_quarters=st.one_of(st.none(), st.none(), st.integers(1, 3_000)),
    grace=st.sampled_from([timedelta(0), timedelta(minutes=2), timedelta(hours=1)]),
    begun=st.one_of(st.integers(0, 899), st.integers(0, 40 * 86_400)),
    steps=STEPS,
)
def test_what_time_is_charged_is_what_its_seconds_cost(
    anchor: BillingAnchor,
    zone: str,
    trial_quarters: int | None,
    grace: timedelta,
    begun: int,
    steps: list[tuple[int, str, Timing, int]],
) -> None:
    now = MIDNIGHT - 20 * DAY + begun * SECOND
    trial = quarter_hour_of(now) + trial_quarters * QUARTER if trial_quarters else None
    world = made(anchor, zone, trial, now)
    for wait, action, timing, pick in steps:
        if wait < 0 and world.found.period is not None:
            now = max(now, world.found.period.end + pick * SECOND)
        else:
            now += max(wait, 0) * SECOND
        # What was done in the second of a cancellation is not known when that is withdrawn.
        now += SECOND if action == "cancel" else timedelta(0)
        world.close(now, grace)
        if world.found.period is None:
            break
        ended = world.found.cancel_time is not None and world.found.cancel_time <= now
        if ended:
            continue
        before = world.found
        world.act(now, action, timing, pick)
        if world.found.period is not None:
            check_phases(world.found, before)
    world.close(now, grace)
    if world.found.period is not None:
        world.act(now, "cancel", Timing.NOW, 1)
    world.close(now + 800 * DAY, grace)
    assert world.found.period is None
    charged = Fraction(total(line.amount for line in world.lines))
    roundings = 2 * sum(len(line.steps) for line in world.lines)
    assert abs(charged - world.naive.cost()) <= CENT * roundings
    # No second is in two invoices.
    assert all(one.end <= other.start for one, other in pairwise(world.exact))
