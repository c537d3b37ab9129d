"""Discounts of an amount, maximum and minimum of a period, over however many invoices."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.invoicer.adjustments import BilledPart, Terms, adjustment_lines
from services.invoicer.discounts import Discount, SubscriptionDiscount, discounts_of, end_of
from services.invoicer.domain import InvoiceLine, LineKind, PlanContent
from services.invoicer.exact import ONE, ZERO, total
from services.invoicer.lines import base_line
from services.invoicer.periods import (
    BillingAnchor,
    BillingPeriod,
    Cycle,
    Period,
    first_period,
    next_period,
)
from services.invoicer.pricing.charge import Limits
from services.kit.money import format_money, minor_digits
from tests.unit.invoicer.calculator import number

D = Decimal
JANUARY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
START = datetime(2024, 1, 1, tzinfo=UTC)
FEBRUARY = Period(JANUARY.end, datetime(2026, 3, 1, tzinfo=UTC))


def price(amount: str | Decimal, kind: LineKind = LineKind.USAGE) -> InvoiceLine:
    return InvoiceLine(kind, "M", "", ONE, ZERO, None, D(amount), JANUARY, ())


def billed(lines: list[InvoiceLine]) -> list[BilledPart]:
    return [BilledPart(line.period.start, line.kind, line.amount) for line in lines]


def amounts(
    terms: Terms, *prices: InvoiceLine, before: list[BilledPart] | None = None
) -> list[str]:
    lines = adjustment_lines(terms, prices, before or [], "USD")
    return [f"{line.kind.value} {format_money(line.amount, 'USD')}" for line in lines]


def off(amount: str) -> Discount:
    return Discount(amount=D(amount))


@pytest.mark.parametrize(
    ("charged", "discount", "most", "least", "expected"),
    [
        ("100", "30", None, None, ["DISCOUNT -30.00"]),  # 70
        ("20", "30", None, None, ["DISCOUNT -20.00"]),  # 0, never below
        ("0", "30", None, None, []),
        ("100", "30", "60", None, ["DISCOUNT -30.00", "MAXIMUM -10.00"]),  # 70 -> 60
        ("100", "30", "70", None, ["DISCOUNT -30.00"]),
        ("100", None, "99.995", None, []),  # at most 100.00
        ("100", "30", None, "80", ["DISCOUNT -30.00", "MINIMUM 10.00"]),  # 70 -> 80
        ("100", "30", "60", "60", ["DISCOUNT -30.00", "MAXIMUM -10.00"]),
        ("0", None, None, "12.345", ["MINIMUM 12.35"]),  # half up
        ("0", None, "0", None, []),
        ("5", None, "0", None, ["MAXIMUM -5.00"]),
    ],
)
def test_what_a_period_comes_to(
    charged: str, discount: str | None, most: str | None, least: str | None, expected: list[str]
) -> None:
    limits = Limits(D(least) if least else None, D(most) if most else None)
    discounts = (off(discount),) if discount else ()
    assert amounts(Terms(JANUARY, JANUARY, discounts, limits), price(charged)) == expected


def test_amounts_come_off_one_after_the_other() -> None:
    terms = Terms(JANUARY, JANUARY, (off("30"), Discount(percent=D(50)), off("100")))
    (line,) = adjustment_lines(terms, [price("80")], [], "USD")
    assert line.amount == D("-80.00")
    assert line.steps[:2] == ("discount: 80.00 - 30.00 = 50.00", "discount: 50.00 - 50.00 = 0.00")


def test_prices_of_another_period_and_one_off_amounts_do_not_count() -> None:
    terms = Terms(FEBRUARY, FEBRUARY, (off("30"),))
    assert amounts(terms, price("80")) == []
    apart = [price("80", kind) for kind in (LineKind.SETUP_FEE, LineKind.CHARGE)]
    assert amounts(Terms(JANUARY, JANUARY, (off("30"),)), *apart) == []


def test_there_is_no_minimum_while_a_period_goes_on() -> None:
    limits = Limits(minimum=D(50))
    assert amounts(Terms(JANUARY, JANUARY, (), limits, over=False)) == []


MONEY = st.decimals(0, 1000, places=2)
CURRENCIES = st.sampled_from(["JPY", "USD", "KWD"])


def rounded(amounts_given: list[Decimal], currency: str) -> list[Decimal]:
    return [amount.scaleb(2 - minor_digits(currency)) for amount in amounts_given]


@given(
    parts=st.lists(MONEY, min_size=1, max_size=5),
    discounts=st.lists(MONEY.filter(bool), max_size=3),
    limits=st.tuples(st.none() | MONEY, st.none() | MONEY),
    currency=CURRENCIES,
)
def test_a_period_comes_to_the_same_over_however_many_invoices(
    parts: list[Decimal],
    discounts: list[Decimal],
    limits: tuple[Decimal | None, Decimal | None],
    currency: str,
) -> None:
    """Prices in one invoice, or each in another one with the minimum in the last."""
    parts = rounded(parts, currency)
    least, most = limits
    if least is not None and most is not None:
        least, most = min(least, most), max(least, most)
    offs = tuple(Discount(amount=amount) for amount in discounts)
    terms = Terms(JANUARY, JANUARY, offs, Limits(least, most))
    prices = [price(part) for part in parts]
    at_once = list(adjustment_lines(terms, prices, [], currency))
    spread: list[InvoiceLine] = []
    for index, each in enumerate(prices):
        over = index == len(prices) - 1
        now = Terms(JANUARY, JANUARY, offs, Limits(least, most), over)
        spread += [each, *adjustment_lines(now, [each], billed(spread), currency)]
    whole = total(line.amount for line in [*prices, *at_once])
    assert total(line.amount for line in spread) == whole
    assert whole >= 0
    if most is not None:
        digits = minor_digits(currency)
        assert whole <= most + Decimal(1).scaleb(-digits)
    # Each line's last figure is its amount.
    for line in [*at_once, *(each for each in spread if each.steps)]:
        assert number(line.steps[-1].rpartition(": ")[2]) == line.amount


@given(
    anchor=st.sampled_from(BillingAnchor),
    length=st.sampled_from(BillingPeriod),
    start=st.integers(0, 3 * 366 * 24).map(lambda hours: START + timedelta(hours=hours)),
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/New_York"]),
    periods=st.integers(1, 30),
)
def test_a_discount_is_for_as_many_periods_as_it_says(
    anchor: BillingAnchor, length: BillingPeriod, start: datetime, zone: str, periods: int
) -> None:
    cycle = Cycle(start, anchor, zone, length)
    discount = Discount(percent=D(10), periods=periods)
    first = first_period(cycle)
    own = SubscriptionDiscount(
        "disc_1", "sub_1", discount, first.start, end_of(cycle, first, periods), start
    )
    period, given_by_plan, given_by_itself = first, 0, 0
    for _ in range(periods + 5):
        given_by_plan += len(discounts_of([discount], [], cycle, period))
        given_by_itself += len(discounts_of([], [own], cycle, period))
        period = next_period(cycle, period)
    assert given_by_plan == given_by_itself == periods


def test_a_price_may_have_as_many_digits_and_discounts_as_there_can_be() -> None:
    plan = PlanContent(
        "P", "USD", D("99999999.999999999999"), BillingPeriod.MONTHLY, (), discounts=()
    )
    many = [Discount(percent=D("12.345678"))] * 20
    whole = Period(JANUARY.start, FEBRUARY.end)
    line = base_line(plan, FEBRUARY, whole, discounts=many)
    # 99,999,999.999999999999 x (0.87654322)^20 x 28 / 59 days
    assert str(line.amount) == "3402300.87"
    free = base_line(plan, JANUARY, JANUARY, discounts=[Discount(percent=D(100))])
    assert str(free.amount) == "0.00"
