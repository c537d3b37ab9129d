"""Where phases begin and end for usage and for time, which seconds lines are for, and that shares
sum to the whole. tests/unit/invoicer/test_each_second.py does what comes to its mind.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.invoicer.base_prices import BasePart, Prepaid, Segment, base_lines, outstanding
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
from services.invoicer.closing import OpenPeriod
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
from services.invoicer.simulation import phases_within
from services.invoicer.timed import priced_times
from services.kit.database import TenantKey
from services.kit.money import minor_digits, round_money
from tests.unit.invoicer.calculator import follow

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
START = datetime(2026, 1, 10, 6, 30, tzinfo=UTC)
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


def subscription(anchor: BillingAnchor, now: datetime) -> Subscription:
    made = Subscription(
        tenant=TenantKey("org_" + "0" * 32, "test"),
        id="sub_1",
        customer_id="user_123",
        plan_id="plan_10",
        plan_version=1,
        status=SubscriptionStatus.ACTIVE,
        billing_anchor=anchor,
        billing_period=BillingPeriod.MONTHLY,
        time_zone="UTC",
        start_time=START,
        period=None,
        cancel_time=None,
        revision=1,
        create_time=START,
        phases=first_phases(PLANS[0], START, None, 1, now, now),
    )
    return replace(made, period=made.part_from(START))


def invoiced(found: Subscription, now: datetime) -> Subscription:
    """Moved on over all that is over, as closing does without a time of grace."""
    while found.period is not None and found.period.end <= now:
        following = found.part_from(found.period.end)
        second = found.exact_at(following.start) if following else None
        found = replace(found, period=following, exact_period_start=second)
    return found


def priced(found: Subscription, part: Period) -> list[tuple[str, Period]]:
    """What the lines of the part's invoice charge base prices for, and of which plan."""
    phase = found.phase_at(part.start)
    on = next(each for each in PLANS if each.id == phase.plan_id)
    others = tuple(each for each in PLANS if each is not on)
    asked = replace(found, period=part, exact_period_start=None)
    due = OpenPeriod(asked, on, part, time_plans=others)
    return [(line.description.split(":")[0], line.period) for line in due.draft([]).lines]


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
    return resumed(found, begin_at(found, Timing.NOW, now), now)


def late(found: Subscription, text: str) -> Subscription:
    return invoiced(found, second(text))


def made(text: str = "06:30:00", anchor: BillingAnchor = BillingAnchor.CALENDAR) -> Subscription:
    return subscription(anchor, second(text))


FIRST = ("plan_10", "06:30:00", "06:30:00")
JANUARY, FEBRUARY = second("2026-01-01T00:00:00"), second("2026-02-01T00:00:00")


def test_a_start_is_priced_from_its_second_on_and_a_first_anniversary_is_a_whole_one() -> None:
    begun = [("plan_10", "06:30:00", "06:37:31")]
    calendar, anniversary = made("06:37:31"), made("06:37:31", BillingAnchor.ANNIVERSARY)
    assert borders(calendar) == borders(anniversary) == begun
    assert calendar.period is not None
    assert anniversary.period is not None
    (time,) = priced_times(calendar, calendar.period)
    assert time.whole == Period(JANUARY, FEBRUARY)
    (time,) = priced_times(anniversary, anniversary.period)
    assert (time.whole,) == time.periods
    assert time.whole == Period(second("06:37:31"), second("2026-02-10T06:30:00"))


def test_of_changes_within_a_quarter_each_has_its_seconds_and_the_last_one_the_usage() -> None:
    once = on(made(), "10:02:10", B)
    assert borders(once) == [FIRST, ("plan_20", "10:00:00", "10:02:10")]
    twice = on(once, "10:04:05", B, 3)
    third = on(twice, "10:09:00", C)
    assert borders(third) == [
        FIRST,
        ("plan_20", "10:00:00", "10:02:10"),
        ("plan_20", "10:00:00", "10:04:05"),
        ("plan_100", "10:00:00", "10:09:00"),
    ]
    assert third.period is not None
    assert priced(third, third.period) == [("P10", Period(START, second("10:02:10")))]
    following = third.part_from(third.period.end)
    assert following == Period(second("10:00:00"), second("2027-01-01T00:00:00"))
    assert priced(third, following) == [
        ("P20", Period(second("10:02:10"), second("10:04:05"))),
        ("P20", Period(second("10:04:05"), second("10:09:00"))),
        ("P100", Period(second("10:09:00"), following.end)),
    ]
    # Nothing is changed twice in one second.
    assert borders(on(once, "10:02:10", C)) == [FIRST, ("plan_100", "10:00:00", "10:02:10")]
    assert borders(on(once, "10:02:10", A)) == [FIRST]


def test_a_change_that_is_undone_in_its_quarter_costs_its_seconds_and_cuts_no_usage() -> None:
    found = on(on(made(), "10:02:10", B), "10:09:00", A)
    assert borders(found) == [
        FIRST,
        ("plan_20", "10:00:00", "10:02:10"),
        ("plan_10", "10:00:00", "10:09:00"),
    ]
    assert found.period == Period(START, FEBRUARY)
    assert priced(found, found.period) == [
        ("P10", Period(START, second("10:02:10"))),
        ("P20", Period(second("10:02:10"), second("10:09:00"))),
        ("P10", Period(second("10:09:00"), FEBRUARY)),
    ]


def test_once_it_is_invoiced_to_the_second_it_stays_so() -> None:
    once = late(on(made(), "10:07:31", B), "10:08:00")
    kept = [FIRST, ("plan_20", "10:00:00", "10:07:31")]
    assert borders(on(once, "10:10:00", C)) == [*kept, ("plan_100", "10:00:00", "10:10:00")]
    same = on(once, "10:10:00", A)
    assert borders(same) == [*kept, ("plan_10", "10:00:00", "10:10:00")]
    # It is a part of the same month.
    assert same.period == Period(second("10:00:00"), FEBRUARY)
    assert same.exact(same.period) == Period(second("10:07:31"), FEBRUARY)
    assert same.whole_of(same.period) == Period(JANUARY, FEBRUARY)
    assert same.whole_of(Period(START, second("10:00:00"))).end == FEBRUARY
    # Undone in the same second: where it is cut is still known.
    at_once = late(on(made(), "10:07:31", B), "10:07:31")
    back = on(at_once, "10:07:31", A)
    assert borders(back) == [FIRST, ("plan_10", "10:00:00", "10:07:31")]
    assert back.period == same.period
    assert back.whole_of(back.period) == Period(JANUARY, FEBRUARY)


def test_in_the_first_quarter_of_a_period_time_is_of_the_plan_before_until_the_change() -> None:
    for found in (made(), late(made(), "2026-02-01T00:05:00")):
        after = on(found, "2026-02-01T00:05:07", B)
        assert borders(after) == [FIRST, ("plan_20", "00:00:00", "00:05:07")]
        january, february = Period(START, FEBRUARY), Period(FEBRUARY, second("2026-03-01T00:00:00"))
        assert after.exact(january) == january
        assert priced(after, february) == [
            ("P10", Period(FEBRUARY, second("2026-02-01T00:05:07"))),
            ("P20", Period(second("2026-02-01T00:05:07"), february.end)),
        ]


def test_periods_that_begin_anew_are_whole_ones_from_the_second_on() -> None:
    found = on(made(anchor=BillingAnchor.ANNIVERSARY), "10:07:31", C)
    assert borders(found) == [FIRST, ("plan_100", "10:00:00", "10:07:31")]
    year = Period(second("10:00:00"), second("2027-01-10T10:00:00"))
    assert found.part_from(year.start) == year
    assert priced(found, year) == [("P100", Period(second("10:07:31"), year.end))]
    (time,) = priced_times(found, year)
    assert (time.whole,) == time.periods
    # The calendar's do not begin anew.
    assert borders(on(made(), "10:07:31", C))[1] == ("plan_100", "10:00:00", "10:07:31")


def test_a_pause_is_priced_from_its_second_to_that_of_its_end() -> None:
    once = off(made(), "10:07:31")
    assert borders(once) == [FIRST, ("PAUSED", "10:15:00", "10:07:31")]
    assert borders(off(once, "10:09:00")) == borders(once)
    # One that is over in its quarter takes no usage.
    short = again(once, "10:12:00")
    assert borders(short) == [
        FIRST,
        ("PAUSED", "10:00:00", "10:07:31"),
        ("plan_10", "10:00:00", "10:12:00"),
    ]
    assert short.period == Period(START, FEBRUARY)
    assert priced(short, short.period) == [
        ("P10", Period(START, second("10:07:31"))),
        ("P10", Period(second("10:12:00"), FEBRUARY)),
    ]
    on_again = again(once, "11:20:05")
    assert borders(on_again)[2] == ("plan_10", "11:15:00", "11:20:05")
    next_month = again(once, "2026-02-01T00:05:00")
    assert borders(next_month)[2] == ("plan_10", "00:00:00", "00:05:00")


def test_a_pause_may_end_in_the_quarter_after_its_own_when_what_was_before_is_invoiced() -> None:
    found = again(late(off(made(), "10:07:31"), "10:16:00"), "10:16:00")
    assert borders(found) == [
        FIRST,
        ("PAUSED", "10:15:00", "10:07:31"),
        ("plan_10", "10:15:00", "10:16:00"),
    ]
    assert found.period == Period(second("10:15:00"), FEBRUARY)
    assert priced(found, found.period) == [("P10", Period(second("10:16:00"), FEBRUARY))]


def test_a_pause_from_the_end_of_one_period_into_the_first_quarter_of_the_next() -> None:
    found = again(off(made(), "2026-01-31T23:50:07"), "2026-02-01T00:05:07")
    assert borders(found)[1:] == [
        ("PAUSED", "00:00:00", "23:50:07"),
        ("plan_10", "00:00:00", "00:05:07"),
    ]
    february = Period(FEBRUARY, second("2026-03-01T00:00:00"))
    assert priced(found, Period(START, FEBRUARY)) == [
        ("P10", Period(START, second("2026-01-31T23:50:07")))
    ]
    assert priced(found, february) == [("P10", Period(second("2026-02-01T00:05:07"), february.end))]


def test_a_planned_change_stays_where_it_is_when_a_pause_before_it_is_called_off() -> None:
    found = off(made(), "2026-01-31T23:50:00")
    now = second("2026-01-31T23:52:00")
    found = changed(found, begin_at(found, Timing.PERIOD_END, now), B, 1, now)
    assert borders(found)[1:] == [
        ("PAUSED", "00:00:00", "23:50:00"),
        ("PAUSED", "00:00:00", "00:00:00"),
    ]
    assert borders(again(found, "2026-01-31T23:55:00")) == [
        FIRST,
        ("PAUSED", "23:45:00", "23:50:00"),
        ("plan_10", "23:45:00", "23:55:00"),
        ("plan_20", "00:00:00", "00:00:00"),
    ]


def test_a_change_within_the_quarter_of_a_pause_leaves_its_usage_as_it_was() -> None:
    found = on(off(made(), "10:07:31"), "10:10:00", B)
    assert borders(found)[1:] == [
        ("PAUSED", "10:15:00", "10:07:31"),
        ("PAUSED", "10:15:00", "10:10:00"),
    ]
    assert [phase.plan_id for phase in found.phases] == ["plan_10", "plan_10", "plan_20"]
    assert borders(again(found, "10:12:00"))[-1] == ("plan_20", "10:00:00", "10:12:00")


def test_an_end_is_priced_to_its_second() -> None:
    found, now = made(), second("10:07:31")
    over = cancelled(found, end_at(found, Timing.NOW, now))
    assert (over.cancel_time, over.priced_until) == (second("10:15:00"), now)
    assert over.period is not None
    assert priced(over, over.period) == [("P10", Period(START, now))]
    paused_before = off(found, "10:01:00")
    over = cancelled(paused_before, end_at(paused_before, Timing.NOW, now))
    assert priced(over, Period(START, second("10:15:00"))) == [
        ("P10", Period(START, second("10:01:00")))
    ]


def test_what_was_paid_for_a_time_of_no_second_is_credited() -> None:
    whole = Period(JANUARY, FEBRUARY)
    nothing = Segment(Period(whole.start, whole.start), 1)
    paid = Prepaid(whole, Decimal(31), Decimal(1), Decimal("31.00"))
    (line,) = base_lines(part_of([nothing], whole, Decimal(31)), [paid])
    assert line.amount == Decimal("-31.00")
    assert outstanding([paid], [line]) == []


def test_the_same_price_of_periods_of_another_length_is_another_one() -> None:
    """A week was paid for, and in the same second it was a month instead."""
    month = Period(JANUARY, FEBRUARY)
    paid = Prepaid(Period(JANUARY, JANUARY + 7 * DAY), Decimal(31), Decimal(1), Decimal("31.00"))
    lines = base_lines(part_of([Segment(month, 1)], month, Decimal(31)), [paid])
    assert [line.amount for line in lines] == [Decimal("-31.00"), Decimal("31.00")]


def test_within_a_window_seconds_stay_and_none_of_them_lies_outside() -> None:
    """A month's figures are simulated from what of the phases lies in it."""
    found = on(on(made(), "10:07:31", A, 2), "2026-02-01T00:07:31", A, 3)
    first, last = phases_within(found.phases, Period(JANUARY, FEBRUARY))
    assert (first.priced_from, first.priced_until) == (START, second("10:07:31"))
    assert (last.priced_from, last.priced_until) == (second("10:07:31"), FEBRUARY)
    to_border = phases_within(found.phases, Period(JANUARY, second("10:00:00")))
    assert [each.priced_until for each in to_border] == [second("10:00:00")]
    # What goes on into the window by time alone is in it, too.
    before, after = phases_within(found.phases, Period(FEBRUARY, FEBRUARY + 28 * DAY))
    assert before.is_time_only
    assert before.priced_until == after.priced_from == second("2026-02-01T00:07:31")
    assert (before.quantity, after.quantity) == (2, 3)
