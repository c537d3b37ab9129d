"""Whatever is done to a subscription, at whatever second, each second is billed once, and shares
sum to the whole.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.invoicer.base_prices import BasePart, Prepaid, Segment, base_lines
from services.invoicer.changes import (
    Timing,
    begin_at,
    cancelled,
    changed,
    end_at,
    first_phases,
    first_second,
    paused,
    resume_at,
    resumed,
)
from services.invoicer.closing import OpenPeriod, is_billed
from services.invoicer.domain import (
    BasePriceTiming,
    Plan,
    PlanContent,
    Subscription,
    SubscriptionStatus,
)
from services.invoicer.exact import total
from services.invoicer.periods import BillingAnchor, BillingPeriod, Cycle, Period
from services.invoicer.phases import PhaseKind
from services.invoicer.proration import prorate
from services.invoicer.simulation import phases_within
from services.kit.database import TenantKey
from services.kit.money import minor_digits, round_money
from tests.unit.invoicer.calculator import follow

QUARTER, SECOND = timedelta(minutes=15), timedelta(seconds=1)
START = datetime(2026, 1, 10, 6, 30, tzinfo=UTC)
STEPS_MAX = 12
PARTS_MAX = 400
_SECONDS_OF_YEAR = 366 * 86_400


def plan(number: int, length: BillingPeriod = BillingPeriod.MONTHLY) -> Plan:
    content = PlanContent(f"P{number}", "USD", Decimal(number), length, ())
    return Plan(f"plan_{number}", 1, content, START)


PLANS = [
    plan(10),
    plan(20),
    plan(100, BillingPeriod.YEARLY),
    plan(3, BillingPeriod.WEEKLY),
]


def subscription(
    anchor: BillingAnchor, zone: str, trial: datetime | None, now: datetime
) -> Subscription:
    cycle = Cycle(START, anchor, zone)
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
        phases=first_phases(PLANS[0], START, trial, 1, now, first_second(cycle, now)),
    )
    return replace(made, period=made.part_from(START))


def invoiced(
    found: Subscription, now: datetime, grace: timedelta, parts: list[tuple[Period, Period]]
) -> Subscription:
    """Moved on over all that has been over for the time of grace, as closing does; each part as
    usage is cut, and as time is priced.
    """
    while found.period is not None and found.period.end + grace <= now:
        parts.append((found.period, found.exact(found.period)))
        found = replace(found, period=found.part_from(found.period.end))
        assert len(parts) < PARTS_MAX
    return found


def acted(
    found: Subscription, now: datetime, action: str, timing: Timing, pick: int
) -> Subscription:
    """One of the things that a caller may do."""
    if action == "pause":
        start = end_at(found, timing, now)
        until = start.time + pick * QUARTER if pick % 3 else None
        trial = found.phase_at(max(now, found.start_time)).kind is PhaseKind.TRIAL
        return found if trial else paused(resumed(found, start, now), start, until, now)
    if action == "resume":
        return resumed(found, resume_at(found, now), now)
    if action == "change":
        start = begin_at(found, timing, now)
        return changed(found, start, PLANS[pick % len(PLANS)], 1 + pick % 5, now)
    end = end_at(found, timing, now)
    earlier = found.cancel_time is None or end.time < found.cancel_time
    return cancelled(found, end) if earlier else found


def priced(found: Subscription, part: Period) -> list[Period]:
    """What of the part the lines of its invoice charge a base price for."""
    phase = found.phase_at(part.start)
    on = next(each for each in PLANS if each.id == phase.plan_id)
    if not is_billed(found, part):
        return []
    due = OpenPeriod(replace(found, period=part, opening=False), on, part)
    return [line.period for line in due.draft([]).lines]


# Mostly within the same quarters of an hour; -1: to within the first one of what follows.
WAITS = st.one_of(st.integers(0, 1_200), st.just(-1), st.integers(0, 20 * 86_400))


@settings(max_examples=300)
@given(
    anchor=st.sampled_from(BillingAnchor),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/New_York"]),
    trial_quarters=st.one_of(st.none(), st.none(), st.integers(1, 3_000)),
    grace=st.sampled_from([timedelta(0), timedelta(minutes=2), timedelta(hours=1)]),
    begun=st.integers(0, 899),
    steps=st.lists(
        st.tuples(
            WAITS,
            st.sampled_from(["pause", "resume", "change", "change", "cancel"]),
            st.sampled_from([Timing.NOW, Timing.NOW, Timing.PERIOD_END]),
            st.integers(1, 500),
        ),
        max_size=STEPS_MAX,
    ),
)
def test_no_second_is_billed_twice_or_left_out(
    anchor: BillingAnchor,
    zone: str,
    trial_quarters: int | None,
    grace: timedelta,
    begun: int,
    steps: list[tuple[int, str, Timing, int]],
) -> None:
    trial = START + trial_quarters * QUARTER if trial_quarters else None
    now, parts = START + timedelta(seconds=begun), list[tuple[Period, Period]]()
    found = subscription(anchor, zone, trial, now)
    for wait, action, timing, pick in steps:
        if wait < 0 and found.period is not None:
            now = max(now, found.period.end + pick * SECOND)
        else:
            now += abs(wait) * SECOND
        found = invoiced(found, now, grace, parts)
        if found.period is None or (found.cancel_time and found.cancel_time <= now):
            continue
        before = found.phases
        found = acted(found, now, action, timing, pick)
        # What is invoiced keeps its phases.
        for part, _ in parts:
            instants = (part.start, part.end - QUARTER)
            old = [next(each for each in before if each.is_at(i)) for i in instants]
            kept = [found.phase_at(i) for i in instants]
            assert [(p.kind, p.plan_id, p.quantity) for p in kept] == [
                (p.kind, p.plan_id, p.quantity) for p in old
            ]
    now += timedelta(days=200)
    found = invoiced(found, now, grace, parts)
    # From the start to the end, or now, without a gap.
    assume(parts)
    for part, exact in parts:
        # As it was when it was invoiced; a pause may go on to the second when it ends.
        assert found.exact(part) == exact or not is_billed(found, part)
    parts = [(part, found.exact(part)) for part, _ in parts]
    (first, first_exact), (last, last_exact) = parts[0], parts[-1]
    assert first.start == START <= first_exact.start <= START + timedelta(seconds=begun)
    for (previous, previous_exact), (part, exact) in pairwise(parts):
        assert previous.end == part.start
        assert previous_exact.end == exact.start
    if found.cancel_time is not None and found.period is None:
        assert last.end == found.cancel_time
        assert last.end - QUARTER <= last_exact.end <= last.end
    for part, exact in parts:
        whole = found.whole_of(part)
        assert whole.start <= part.start < part.end <= whole.end
        # Usage and time are never cut further apart than a quarter of an hour.
        for aligned, second in ((part.start, exact.start), (part.end, exact.end)):
            assert abs(second - aligned) <= QUARTER
            assert second.microsecond == 0
        charged = priced(found, part)
        if is_billed(found, part):
            # No time of it is outside of its whole period, nor charged twice or not at all.
            assert whole.start <= exact.start <= exact.end <= whole.end
            assert sum(each.seconds for each in charged) == exact.seconds
        for line in charged:
            # By where it begins a line belongs to the sums of one part.
            assert part.start <= line.start < part.end
        borders = [exact.start, *(line.end for line in charged)]
        assert [line.start for line in charged] == borders[: len(charged)]
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
    seconds=st.integers(1, _SECONDS_OF_YEAR),
    cuts=st.sets(st.integers(1, _SECONDS_OF_YEAR), max_size=20),
)
def test_consecutive_parts_sum_to_the_whole_exactly(
    price: Decimal, currency: str, seconds: int, cuts: set[int]
) -> None:
    whole = Period(START, START + seconds * SECOND)
    borders = [0, *sorted(cut for cut in cuts if cut < seconds), seconds]
    shares = [
        prorate(
            price,
            f"{price:f}",
            currency,
            Period(START + first * SECOND, START + last * SECOND),
            whole,
        )
        for first, last in pairwise(borders)
    ]
    assert total(each.amount for each in shares) == round_money(price, currency)
    unit = Decimal(1).scaleb(-minor_digits(currency))
    for each, (first, last) in zip(shares, pairwise(borders), strict=True):
        exact = price * (last - first) / seconds
        assert abs(each.amount - exact) <= unit
        assert follow(each.steps) == each.amount


def part_of(segments: list[Segment], whole: Period, price: Decimal) -> BasePart:
    content = PlanContent("P", "USD", price, BillingPeriod.MONTHLY, (), BasePriceTiming.IN_ADVANCE)
    return BasePart(content, whole, tuple(segments), (), "UTC")


@given(
    price=st.decimals("0.01", 10**5, places=2, allow_nan=False),
    quantities=st.lists(st.integers(1, 50), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 31 * 86_400 - 1), min_size=5, max_size=5, unique=True),
)
def test_what_was_paid_in_advance_and_what_is_settled_after_changes_come_to_the_shares(
    price: Decimal, quantities: list[int], cuts: list[int]
) -> None:
    """The whole is paid for the first quantity; then it changes several times."""
    whole = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    inner = [whole.start + cut * SECOND for cut in sorted(cuts)[: len(quantities) - 1]]
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


A, B, C = PLANS[0], PLANS[1], PLANS[2]
D10 = "2026-01-10T"


def second(text: str) -> datetime:
    return datetime.fromisoformat(text if "T" in text else D10 + text).replace(tzinfo=UTC)


def borders(found: Subscription) -> list[tuple[str, str, str]]:
    """Kind or plan of each phase, and its start for usage and for what is priced by time."""
    return [
        (
            phase.plan_id if phase.kind is PhaseKind.BILLED else phase.kind.value,
            f"{phase.start_time:%H:%M:%S}",
            f"{phase.priced_from:%H:%M:%S}",
        )
        for phase in found.phases
    ]


def on(found: Subscription, text: str, chosen: Plan, quantity: int = 1) -> Subscription:
    now = second(text)
    return changed(found, begin_at(found, Timing.NOW, now), chosen, quantity, now)


def off(found: Subscription, text: str) -> Subscription:
    now = second(text)
    return paused(found, end_at(found, Timing.NOW, now), None, now)


def again(found: Subscription, text: str) -> Subscription:
    now = second(text)
    return resumed(found, resume_at(found, now), now)


def late(found: Subscription, text: str) -> Subscription:
    """Invoiced at once, without a time of grace."""
    return invoiced(found, second(text), timedelta(0), [])


def made(text: str = "06:30:00", anchor: BillingAnchor = BillingAnchor.CALENDAR) -> Subscription:
    return subscription(anchor, "UTC", None, second(text))


FIRST = ("plan_10", "06:30:00", "06:30:00")


def test_a_start_is_priced_from_its_second_on_unless_a_whole_period_begins() -> None:
    assert borders(made("06:37:31")) == [("plan_10", "06:30:00", "06:37:31")]
    assert borders(made("06:37:31", BillingAnchor.ANNIVERSARY)) == [FIRST]


def test_what_is_changed_again_in_its_quarter_counts_from_the_first_second_on() -> None:
    once = on(made(), "10:07:31", B)
    assert borders(once) == [FIRST, ("plan_20", "10:00:00", "10:07:31")]
    assert borders(on(once, "10:10:00", C)) == [FIRST, ("plan_100", "10:00:00", "10:07:31")]
    assert borders(on(once, "10:10:00", A)) == [FIRST]
    # The first one is what it began with.
    assert borders(on(made("06:31:02"), "06:40:00", B)) == [("plan_20", "06:30:00", "06:31:02")]


def test_once_it_is_invoiced_to_the_second_it_stays_so() -> None:
    once = late(on(made(), "10:07:31", B), "10:08:00")
    kept = [FIRST, ("plan_100", "10:00:00", "10:07:31")]
    assert borders(on(once, "10:10:00", C)) == kept
    same = on(once, "10:10:00", A)
    assert borders(same) == [FIRST, ("plan_10", "10:00:00", "10:07:31")]
    # It is a part of the same month.
    assert same.period is not None
    february = second("2026-02-01T00:00:00")
    assert same.exact(same.period) == Period(second("10:07:31"), february)
    assert same.whole_of(same.period) == Period(second("2026-01-01T00:00:00"), february)
    assert same.whole_of(Period(START, second("10:00:00"))).end == february


def test_where_a_whole_period_begins_it_begins_on_the_quarter() -> None:
    month = "2026-02-01T00:"
    assert borders(on(made(), f"{month}05:00", B))[1] == ("plan_20", "00:00:00", "00:00:00")
    # Periods of another length begin anew on an anniversary, and on the calendar they do not.
    yearly = on(made(anchor=BillingAnchor.ANNIVERSARY), "10:07:31", C)
    assert borders(yearly) == [FIRST, ("plan_100", "10:00:00", "10:00:00")]
    assert borders(on(made(), "10:07:31", C))[1] == ("plan_100", "10:00:00", "10:07:31")
    # Unless what was before is invoiced to the second.
    cut = late(on(made(anchor=BillingAnchor.ANNIVERSARY), "10:07:31", B), "10:08:00")
    assert borders(on(cut, "10:09:00", C))[1] == ("plan_100", "10:00:00", "10:07:31")


def test_a_pause_is_priced_from_its_second_to_that_of_its_end() -> None:
    once = off(made(), "10:07:31")
    assert borders(once) == [FIRST, ("PAUSED", "10:15:00", "10:07:31")]
    assert borders(off(once, "10:09:00"))[1] == ("PAUSED", "10:15:00", "10:07:31")
    # One that is over in its quarter never was.
    assert borders(again(once, "10:12:00")) == [FIRST]
    assert borders(again(once, "10:16:00")) == [FIRST]
    on_again = again(once, "11:20:05")
    assert borders(on_again)[2] == ("plan_10", "11:15:00", "11:20:05")
    # It may end in the first quarter of a period: it bills nothing of it.
    next_month = again(once, "2026-02-01T00:05:00")
    assert borders(next_month)[2] == ("plan_10", "00:00:00", "00:05:00")


def test_a_pause_that_is_invoiced_to_the_second_keeps_a_quarter_of_an_hour() -> None:
    assert borders(again(late(off(made(), "10:07:31"), "10:16:00"), "10:16:00")) == [
        FIRST,
        ("PAUSED", "10:15:00", "10:07:31"),
        ("plan_10", "10:30:00", "10:30:00"),
    ]


def test_what_follows_a_pause_that_is_called_off_begins_with_its_quarter() -> None:
    """Another plan was to begin where the pause began."""
    found = off(made(), "2026-01-31T23:50:00")
    now = second("2026-01-31T23:52:00")
    found = changed(found, begin_at(found, Timing.PERIOD_END, now), B, 1, now)
    assert borders(found)[1] == ("PAUSED", "00:00:00", "23:50:00")
    found = again(found, "2026-01-31T23:55:00")
    assert borders(found) == [FIRST, ("plan_20", "00:00:00", "00:00:00")]


def test_a_change_within_the_quarter_of_a_pause_has_no_second() -> None:
    found = on(off(made(), "10:07:31"), "10:10:00", B)
    assert borders(found)[1:] == [
        ("plan_20", "10:00:00", "10:07:31"),
        ("PAUSED", "10:15:00", "10:07:31"),
    ]


def test_an_end_is_priced_to_its_second() -> None:
    found, now = made(), second("10:07:31")
    over = cancelled(found, end_at(found, Timing.NOW, now))
    assert (over.cancel_time, over.phases[0].priced_until) == (second("10:15:00"), now)
    assert over.period is not None
    assert priced(over, over.period) == [Period(START, now)]
    before = cancelled(off(found, "10:01:00"), end_at(off(found, "10:01:00"), Timing.NOW, now))
    assert [phase.priced_until for phase in before.phases] == [second("10:01:00")]


def test_what_was_paid_for_a_time_of_no_second_is_credited() -> None:
    whole = Period(second("2026-01-01T00:00:00"), second("2026-02-01T00:00:00"))
    nothing = Segment(Period(whole.start, whole.start), 1)
    paid = Prepaid(whole, Decimal(31), Decimal(1), Decimal("31.00"))
    (line,) = base_lines(part_of([nothing], whole, Decimal(31)), [paid])
    assert line.amount == Decimal("-31.00")


def test_within_a_window_seconds_stay_and_none_of_them_lies_outside() -> None:
    """A month's figures are simulated from what of the phases lies in it."""
    found = on(on(made(), "10:07:31", A, 2), "2026-02-10T00:07:31", A, 3)
    january = Period(second("2026-01-01T00:00:00"), second("2026-02-01T00:00:00"))
    first, last = phases_within(found.phases, january)
    assert (first.priced_from, first.priced_until) == (START, second("10:07:31"))
    assert (last.priced_from, last.priced_until) == (second("10:07:31"), january.end)
    to_border = Period(january.start, second("10:00:00"))
    assert [each.priced_until for each in phases_within(found.phases, to_border)] == [to_border.end]
    (after,) = phases_within(found.phases, Period(second("11:00:00"), january.end))
    assert (after.start_time, after.exact_start_time) == (second("11:00:00"), None)
