"""Whatever is done to a subscription, each second is billed once, and shares sum to the whole."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from services.invoicer.base_prices import BasePart, Prepaid, Segment, base_lines
from services.invoicer.changes import (
    Timing,
    begin_at,
    cancelled,
    changed,
    end_at,
    first_phases,
    paused,
    resumed,
)
from services.invoicer.domain import (
    BasePriceTiming,
    Plan,
    PlanContent,
    Subscription,
    SubscriptionStatus,
)
from services.invoicer.exact import total
from services.invoicer.periods import BillingAnchor, BillingPeriod, Period
from services.invoicer.phases import PhaseKind
from services.invoicer.proration import prorate
from services.kit.database import TenantKey
from services.kit.money import minor_digits, round_money
from tests.unit.invoicer.calculator import follow

QUARTER = timedelta(minutes=15)
START = datetime(2026, 1, 10, 6, 30, tzinfo=UTC)
STEPS_MAX = 12
PARTS_MAX = 400
_QUARTERS_OF_YEAR = 4 * 24 * 366


def plan(number: int, length: BillingPeriod = BillingPeriod.MONTHLY) -> Plan:
    content = PlanContent(f"P{number}", "USD", Decimal(number), length, ())
    return Plan(f"plan_{number}", 1, content, START)


PLANS = [
    plan(10),
    plan(20),
    plan(100, BillingPeriod.YEARLY),
    plan(3, BillingPeriod.WEEKLY),
]


def subscription(anchor: BillingAnchor, zone: str, trial: datetime | None) -> Subscription:
    made = Subscription(
        tenant=TenantKey("org_" + "0" * 32, "test"),
        id="sub_1",
        customer_id="user_123",
        plan_id="plan_10",
        plan_version=1,
        status=SubscriptionStatus.ACTIVE,
        billing_anchor=anchor,
        billing_period=BillingPeriod.MONTHLY,
        time_zone=zone,
        start_time=START,
        period=None,
        cancel_time=None,
        revision=1,
        create_time=START,
        phases=first_phases(PLANS[0], START, trial, 1, START),
    )
    return replace(made, period=made.part_from(START))


def invoiced(found: Subscription, now: datetime, parts: list[Period]) -> Subscription:
    """Moved on over all that is over an hour after its end, as closing does."""
    while found.period is not None and found.period.end + timedelta(hours=1) <= now:
        parts.append(found.period)
        found = replace(found, period=found.part_from(found.period.end))
        assert len(parts) < PARTS_MAX
    return found


def acted(
    found: Subscription, now: datetime, action: str, timing: Timing, pick: int
) -> Subscription:
    """One of the things that a caller may do."""
    if action == "pause":
        start = end_at(found, timing, now)
        until = start + pick * QUARTER if pick % 3 else None
        trial = found.phase_at(max(now, found.start_time)).kind is PhaseKind.TRIAL
        return found if trial else paused(resumed(found, start, now), start, until, now)
    if action == "resume":
        return resumed(found, begin_at(found, Timing.NOW, now), now)
    if action == "change":
        start = begin_at(found, timing, now)
        return changed(found, start, PLANS[pick % len(PLANS)], 1 + pick % 5, now)
    end = end_at(found, timing, now)
    earlier = found.cancel_time is None or end < found.cancel_time
    return cancelled(found, end) if earlier else found


@given(
    anchor=st.sampled_from(BillingAnchor),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/New_York"]),
    trial_quarters=st.one_of(st.none(), st.integers(1, 3_000)),
    steps=st.lists(
        st.tuples(
            st.integers(0, 4_000),
            st.sampled_from(["pause", "resume", "change", "change", "cancel"]),
            st.sampled_from(Timing),
            st.integers(1, 500),
        ),
        max_size=STEPS_MAX,
    ),
)
def test_no_second_is_billed_twice_or_left_out(
    anchor: BillingAnchor,
    zone: str,
    trial_quarters: int | None,
    steps: list[tuple[int, str, Timing, int]],
) -> None:
    trial = START + trial_quarters * QUARTER if trial_quarters else None
    found, now, parts = subscription(anchor, zone, trial), START, list[Period]()
    for minutes, action, timing, pick in steps:
        now += timedelta(minutes=7 * minutes)
        found = invoiced(found, now, parts)
        if found.period is None or (found.cancel_time and found.cancel_time <= now):
            continue
        before = found.phases
        found = acted(found, now, action, timing, pick)
        # What is invoiced keeps its phases.
        for part in parts:
            instants = (part.start, part.end - QUARTER)
            old = [next(each for each in before if each.is_at(i)) for i in instants]
            kept = [found.phase_at(i) for i in instants]
            assert [(p.kind, p.plan_id, p.quantity) for p in kept] == [
                (p.kind, p.plan_id, p.quantity) for p in old
            ]
    now += timedelta(days=200)
    found = invoiced(found, now, parts)
    # From the start to the end, or now, without a gap.
    assume(parts)
    assert parts[0].start == START
    for previous, part in pairwise(parts):
        assert previous.end == part.start
    if found.cancel_time is not None and found.period is None:
        assert parts[-1].end == found.cancel_time
    for part in parts:
        whole = found.whole_of(part)
        assert whole.start <= part.start < part.end <= whole.end
        # One plan and kind a part, which is what it is billed as.
        inside = {
            (p.kind, p.plan_id, p.anchor_time)
            for p in found.phases
            if p.start_time < part.end and (p.end_time is None or p.end_time > part.start)
        }
        assert len(inside) == 1


MONEY = st.decimals(0, 10**7, places=6, allow_nan=False)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD"])


@given(
    price=MONEY,
    currency=CURRENCIES,
    quarters=st.integers(1, _QUARTERS_OF_YEAR),
    cuts=st.sets(st.integers(1, _QUARTERS_OF_YEAR), max_size=20),
)
def test_consecutive_parts_sum_to_the_whole_exactly(
    price: Decimal, currency: str, quarters: int, cuts: set[int]
) -> None:
    whole = Period(START, START + quarters * QUARTER)
    borders = [0, *sorted(cut for cut in cuts if cut < quarters), quarters]
    shares = [
        prorate(
            price,
            f"{price:f}",
            currency,
            Period(START + first * QUARTER, START + last * QUARTER),
            whole,
        )
        for first, last in pairwise(borders)
    ]
    assert total(each.amount for each in shares) == round_money(price, currency)
    unit = Decimal(1).scaleb(-minor_digits(currency))
    for each, (first, last) in zip(shares, pairwise(borders), strict=True):
        exact = price * (last - first) / quarters
        assert abs(each.amount - exact) <= unit
        assert follow(each.steps) == each.amount


def part_of(segments: list[Segment], whole: Period, price: Decimal) -> BasePart:
    content = PlanContent("P", "USD", price, BillingPeriod.MONTHLY, (), BasePriceTiming.IN_ADVANCE)
    return BasePart(content, whole, tuple(segments), (), "UTC")


@given(
    price=st.decimals("0.01", 10**5, places=2, allow_nan=False),
    quantities=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 2_975), min_size=5, max_size=5, unique=True),
)
def test_what_was_paid_in_advance_and_what_is_settled_after_changes_come_to_the_shares(
    price: Decimal, quantities: list[int], cuts: list[int]
) -> None:
    """The whole is paid for the first quantity; then it changes several times."""
    whole = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    inner = [whole.start + cut * QUARTER for cut in sorted(cuts)[: len(quantities) - 1]]
    borders = [whole.start, *inner, whole.end]
    segments = [
        Segment(Period(first, last), quantity)
        for (first, last), quantity in zip(pairwise(borders), quantities, strict=True)
    ]
    (paid,) = base_lines(part_of([Segment(whole, quantities[0])], whole, price))
    prepaid = [Prepaid(paid.period, price, paid.quantity, paid.amount)]
    settled = list(base_lines(part_of(segments, whole, price), prepaid))
    at_once = list(base_lines(part_of(segments, whole, price)))
    assert total(line.amount for line in [paid, *settled]) == total(line.amount for line in at_once)
    if len(quantities) == 1:
        assert settled == []
