"""The lines of an invoice: amounts, order and words."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.invoicer.changes import cancelled, first_phases
from services.invoicer.closing import EarlierPeriod, OpenPeriod
from services.invoicer.domain import (
    LineKind,
    MetricPrice,
    Plan,
    PlanContent,
    Subscription,
    SubscriptionStatus,
)
from services.invoicer.exact import add, total
from services.invoicer.lines import (
    Billed,
    base_line,
    carried_line,
    late_line,
    usage_line,
)
from services.invoicer.periods import BillingAnchor, BillingPeriod, Period
from services.invoicer.phases import Border
from services.invoicer.pricing.charge import charge
from services.invoicer.pricing.per_unit import PerUnit
from services.invoicer.pricing.usage import MetricUsage
from services.invoicer.quotes import quote
from services.kit.database import TenantKey
from services.kit.money import round_money

D = Decimal
NOW = datetime(2026, 2, 1, 1, tzinfo=UTC)
JANUARY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
FEBRUARY = Period(JANUARY.end, datetime(2026, 3, 1, tzinfo=UTC))
CALLS = MetricPrice("API_CALL", D("10000"), PerUnit(D("0.01")))
TOKENS = MetricPrice("AI_TOKEN", D(0), PerUnit(D("0.00002")))


def pro(*metrics: MetricPrice, currency: str = "USD", base_price: str = "100.00") -> PlanContent:
    return PlanContent("Pro", currency, D(base_price), BillingPeriod.MONTHLY, metrics)


def subscription(start: datetime = JANUARY.start, zone: str = "UTC") -> Subscription:
    made = Subscription(
        tenant=TenantKey("org_" + "0" * 32, "test"),
        id="sub_1",
        customer_id="user_123",
        plan_id="plan_1",
        plan_version=1,
        status=SubscriptionStatus.ACTIVE,
        billing_anchor=BillingAnchor.CALENDAR,
        billing_period=BillingPeriod.MONTHLY,
        time_zone=zone,
        start_time=start,
        period=None,
        cancel_time=None,
        revision=1,
        create_time=NOW,
    )
    plan = Plan("plan_1", 1, pro(), NOW)
    made = replace(made, phases=first_phases(plan, start, None, 1, NOW))
    return replace(made, period=made.part_from(start))


def open_period(content: PlanContent, period: Period, *earlier: EarlierPeriod) -> OpenPeriod:
    return OpenPeriod(subscription(), Plan("plan_1", 1, content, NOW), period, earlier)


def test_the_bill_of_the_example_is_120_03() -> None:
    # 100.00 + (12,000 - 10,000) x 0.01 + 1,500 x 0.00002 = 100.00 + 20.00 + 0.03 = 120.03
    usage = {
        "API_CALL": MetricUsage(D("12000"), "calls"),
        "AI_TOKEN": MetricUsage(D("1500"), "tokens"),
    }
    draft = open_period(pro(CALLS, TOKENS), JANUARY).draft([usage])
    assert [(line.description, str(line.amount)) for line in draft.lines] == [
        ("Pro: base price", "100.00"),
        ("API_CALL: 12,000 calls, 10,000 included, 2,000 x 0.01", "20.00"),
        ("AI_TOKEN: 1,500 tokens, 1,500 x 0.00002", "0.03"),
    ]
    assert str(draft.amount) == "120.03"
    assert draft.period == JANUARY


def test_lines_come_in_the_order_of_the_plan() -> None:
    usage = {"API_CALL": MetricUsage(D(0)), "AI_TOKEN": MetricUsage(D(0))}
    draft = open_period(pro(TOKENS, CALLS), JANUARY).draft([usage])
    assert [line.metric for line in draft.lines] == ["", "AI_TOKEN", "API_CALL"]


def test_a_metric_without_usage_has_a_line_of_nothing() -> None:
    line = usage_line(CALLS, MetricUsage(D(0), "calls"), "USD", JANUARY)
    assert line.description == "API_CALL: 0 calls, 10,000 included, 0 x 0.01"
    assert str(line.amount) == "0.00"


def test_a_metric_without_a_unit_is_told_without() -> None:
    line = usage_line(TOKENS, MetricUsage(D("2.5")), "USD", JANUARY)
    assert line.description == "AI_TOKEN: 2.5, 2.5 x 0.00002"


@pytest.mark.parametrize(
    ("currency", "price", "start", "amount", "words"),
    [
        # 100.00 x 16 / 31 days = 51.6129... -> 51.61
        ("USD", "100.00", datetime(2026, 1, 16, tzinfo=UTC), "51.61", "16 of 31 days"),
        # 1,000 x 1 / 31 = 32.258... -> 32
        ("JPY", "1000", datetime(2026, 1, 31, tzinfo=UTC), "32", "1 of 31 days"),
        # 10.000 x 16 / 31 = 5.16129... -> 5.161
        ("KWD", "10", datetime(2026, 1, 16, tzinfo=UTC), "5.161", "16 of 31 days"),
        # a quarter of an hour: 100.00 x 900 / 2,678,400 = 0.0336... -> 0.03
        (
            "USD",
            "100.00",
            datetime(2026, 1, 31, 23, 45, tzinfo=UTC),
            "0.03",
            "900 of 2,678,400 seconds",
        ),
    ],
)
def test_a_part_of_a_month_is_charged_by_its_share_of_seconds(
    currency: str, price: str, start: datetime, amount: str, words: str
) -> None:
    plan = pro(currency=currency, base_price=price)
    line = base_line(plan, Period(start, JANUARY.end), JANUARY)
    assert str(line.amount) == amount
    assert line.description == f"Pro: base price, {words}"


def test_a_share_tells_how_it_came_about() -> None:
    line = base_line(pro(), Period(datetime(2026, 1, 16, tzinfo=UTC), JANUARY.end), JANUARY)
    assert line.steps == ("100.00 USD x 1,382,400 s / 2,678,400 s = 51.61 USD, rounded half up",)


def test_included_units_of_a_part_of_a_month_are_whole() -> None:
    started = subscription(datetime(2026, 1, 16, tzinfo=UTC))
    assert started.period is not None
    due = OpenPeriod(started, Plan("plan_1", 1, pro(CALLS), NOW), started.period)
    draft = due.draft([{"API_CALL": MetricUsage(D("12000"))}])
    assert [str(line.amount) for line in draft.lines] == ["51.61", "20.00"]


def test_a_base_price_below_the_minor_unit_is_rounded_once() -> None:
    line = base_line(pro(base_price="99.995"), JANUARY, JANUARY)
    assert str(line.amount) == "100.00"
    assert line.steps == ("99.995 USD", "rounded half up: 100.00 USD")


def test_usage_is_asked_for_this_period_and_then_for_earlier_ones() -> None:
    earlier = EarlierPeriod("inv_1", JANUARY, pro(TOKENS))
    asked = open_period(pro(CALLS), FEBRUARY, earlier).selections()
    assert [(each.metrics, each.period) for each in asked] == [
        (("API_CALL",), FEBRUARY),
        (("AI_TOKEN",), JANUARY),
    ]


def test_a_plan_without_metrics_asks_for_nothing_and_has_its_base_price() -> None:
    due = open_period(pro(), FEBRUARY, EarlierPeriod("inv_1", JANUARY, pro()))
    assert due.selections() == []
    assert str(due.draft([]).amount) == "100.00"


@pytest.mark.parametrize(
    ("billed", "now", "quantity", "included", "amount"),
    [
        # 9,000 of 10,000 included were billed 0.00; 11,000 cost 10.00: 2,000 more, 1,000 free
        (("9000", "0.00"), "11000", "2000", "1000", "10.00"),
        # 12,000 cost 20.00; 12,500 cost 25.00
        (("12000", "20.00"), "12500", "500", "0", "5.00"),
        # voided: 11,500 cost 15.00
        (("12000", "20.00"), "11500", "-500", "0", "-5.00"),
        # voided across what is included: 9,900 cost nothing
        (("10200", "2.00"), "9900", "-300", "-100", "-2.00"),
        # within what is included: a line of nothing, so that the quantity is on record
        (("100", "0.00"), "200", "100", "100", "0.00"),
        # never billed: a metric whose first events came late
        (("0", "0.00"), "10001", "10001", "10000", "0.01"),
    ],
)
def test_late_usage_is_billed_by_the_difference(
    billed: tuple[str, str], now: str, quantity: str, included: str, amount: str
) -> None:
    before = Billed(*(D(text) for text in billed))
    line = late_line(CALLS, MetricUsage(D(now), "calls"), before, "USD", JANUARY, "UTC")
    assert line is not None
    assert line.kind is LineKind.LATE_USAGE
    assert line.period == JANUARY
    assert (line.quantity, line.included_units) == (D(quantity), D(included))
    assert line.amount == D(amount)


def test_a_late_line_names_the_days_of_the_customer() -> None:
    kathmandu = Period(
        datetime(2025, 12, 31, 18, 15, tzinfo=UTC), datetime(2026, 1, 31, 18, 15, tzinfo=UTC)
    )
    line = late_line(
        CALLS,
        MetricUsage(D("12500"), "calls"),
        Billed(D("12000"), D("20.00")),
        "USD",
        kathmandu,
        "Asia/Kathmandu",
    )
    assert line is not None
    assert line.description == (
        "API_CALL, change of 2026-01-01 to 2026-02-01: "
        "12,500 calls, 10,000 included, 2,500 x 0.01 = 25.00, 20.00 billed before"
    )
    assert line.steps[-1] == "25.00 - 20.00 billed before = 5.00"


def test_what_has_not_changed_is_not_mentioned() -> None:
    usage = MetricUsage(D("12000.0"))
    assert late_line(CALLS, usage, Billed(D("12000"), D("20.00")), "USD", JANUARY, "UTC") is None


def test_late_lines_stand_behind_those_of_the_period() -> None:
    earlier = EarlierPeriod(
        "inv_1", JANUARY, pro(CALLS), {"API_CALL": Billed(D("12000"), D("20.00"))}
    )
    draft = open_period(pro(CALLS), FEBRUARY, earlier).draft(
        [{"API_CALL": MetricUsage(D("1"))}, {"API_CALL": MetricUsage(D("12500"))}]
    )
    assert [(line.kind, line.period, str(line.amount)) for line in draft.lines] == [
        (LineKind.BASE, FEBRUARY, "100.00"),
        (LineKind.USAGE, FEBRUARY, "0.00"),
        (LineKind.LATE_USAGE, JANUARY, "5.00"),
    ]
    assert str(draft.amount) == "105.00"


@pytest.mark.parametrize(
    ("amount", "carried", "moved", "to_pay"),
    [
        # nothing is carried and nothing has to be
        ("100.00", "0", None, "100.00"),
        ("0.00", "0", None, "0.00"),
        # more credit than there is to pay
        ("-8.00", "0", "8.00", "0.00"),
        # some of it was carried: 20.00 - 8.00
        ("20.00", "8.00", "-8.00", "12.00"),
        # what was carried is more than there is to pay: 8.00 - 3.00 go on
        ("3.00", "8.00", "-3.00", "0.00"),
        ("0.00", "8.00", None, "0.00"),
        ("-2.00", "8.00", "2.00", "0.00"),
        # credit that was brought came from an invoice that is void now
        ("20.00", "-8.00", "8.00", "28.00"),
        ("-20.00", "-8.00", "20.00", "0.00"),
    ],
)
def test_credit_that_does_not_fit_is_carried(
    amount: str, carried: str, moved: str | None, to_pay: str
) -> None:
    line = carried_line(D(amount), D(carried), "USD", FEBRUARY)
    assert (None if line is None else str(line.amount)) == moved
    if line is not None:
        assert line.kind is LineKind.CREDIT_CARRIED
        assert line.steps[-1] == f"to pay: {to_pay}, never below 0"
        direction = "to the next invoice" if line.amount > 0 else "from earlier invoices"
        assert line.description == f"Credit carried {direction}"
    assert add(D(amount), line.amount if line else D(0)) == D(to_pay)


@given(
    st.lists(st.decimals(min_value=-(10**6), max_value=10**6, places=2), min_size=1, max_size=20)
)
def test_carried_credit_is_neither_lost_nor_given_twice(amounts: list[Decimal]) -> None:
    carried = paid = D(0)
    for amount in amounts:
        line = carried_line(amount, carried, "USD", JANUARY)
        moved = line.amount if line else D(0)
        assert add(amount, moved) >= 0
        carried, paid = add(carried, moved), add(paid, add(amount, moved))
        assert carried >= 0
    # What was paid, less what is still carried, is all that was billed.
    assert add(paid, -carried) == total(amounts)


QUANTITIES = st.decimals(min_value=0, max_value=10**6, places=3)
PRICES = st.decimals(min_value=0, max_value=10, places=6)


@given(st.lists(QUANTITIES, min_size=1, max_size=6), QUANTITIES, PRICES)
def test_all_lines_of_a_period_together_are_the_bill_of_the_whole(
    quantities: list[Decimal], included: Decimal, unit_price: Decimal
) -> None:
    """Whatever came late or was voided, in whatever steps."""
    price = MetricPrice("M", included, PerUnit(unit_price))
    lines = [usage_line(price, MetricUsage(quantities[0]), "USD", JANUARY)]
    for quantity in quantities[1:]:
        billed = Billed(
            total(line.quantity for line in lines), total(line.amount for line in lines)
        )
        line = late_line(price, MetricUsage(quantity), billed, "USD", JANUARY, "UTC")
        lines += [line] if line else []
    whole = charge(price.model, included, MetricUsage(quantities[-1]), "USD")
    assert total(line.amount for line in lines) == whole.amount
    assert total(line.quantity for line in lines) == quantities[-1]
    assert total(line.included_units for line in lines) == whole.included_units


@given(QUANTITIES, QUANTITIES, PRICES, st.sampled_from(["USD", "JPY", "KWD"]))
def test_a_total_is_the_sum_of_rounded_lines(
    calls: Decimal, tokens: Decimal, unit_price: Decimal, currency: str
) -> None:
    plan = pro(CALLS, MetricPrice("AI_TOKEN", D(0), PerUnit(unit_price)), currency=currency)
    usage = {"API_CALL": MetricUsage(calls), "AI_TOKEN": MetricUsage(tokens)}
    draft = open_period(plan, JANUARY).draft([usage])
    amounts = [line.amount for line in draft.lines]
    assert all(round_money(amount, currency) == amount for amount in amounts)
    assert draft.amount == add(add(amounts[0], amounts[1]), amounts[2])
    assert quote(plan, usage).amount == draft.amount


def test_a_subscription_goes_on_until_its_cancel_time() -> None:
    running = subscription()
    assert running.part_from(JANUARY.end) == FEBRUARY
    ending = cancelled(running, Border(FEBRUARY.end, FEBRUARY.end))
    assert ending.part_from(JANUARY.end) == FEBRUARY
    assert ending.part_from(FEBRUARY.end) is None


def test_parts_and_wholes_cover_each_second_once() -> None:
    started = subscription(JANUARY.start + timedelta(days=15))
    assert started.period is not None
    after = started.part_from(started.period.end)
    assert after is not None
    assert after.start == started.period.end == FEBRUARY.start
