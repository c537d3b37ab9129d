"""What usage costs; the arithmetic is written out beside each case."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.invoicer.exact import add, readable, share, subtract, total
from services.invoicer.pricing.charge import charge
from services.invoicer.pricing.per_unit import PerUnit
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks
from services.kit.money import minor_digits, round_money

D = Decimal


def used(quantity: str) -> MetricUsage:
    return MetricUsage(D(quantity))


@pytest.mark.parametrize(
    ("quantity", "included", "unit_price", "currency", "amount"),
    [
        # (12,000 - 10,000) x 0.01 = 2,000 x 0.01 = 20.00
        ("12000", "10000", "0.01", "USD", "20.00"),
        # 10,000 - 10,000 = 0
        ("10000", "10000", "0.01", "USD", "0.00"),
        # less than is included: 0, never negative
        ("9999.5", "10000", "0.01", "USD", "0.00"),
        # 10,001 - 10,000 = 1; 1 x 0.01 = 0.01
        ("10001", "10000", "0.01", "USD", "0.01"),
        # 1,500 x 0.00002 = 0.03
        ("1500", "0", "0.00002", "USD", "0.03"),
        # 1,250 x 0.00002 = 0.025 -> half up 0.03
        ("1250", "0", "0.00002", "USD", "0.03"),
        # 1,249 x 0.00002 = 0.02498 -> 0.02
        ("1249", "0", "0.00002", "USD", "0.02"),
        # 2 x 0.10 = 0.20
        ("2", "0", "0.10", "USD", "0.20"),
        # 1 x 0.05 = 0.05
        ("1", "0", "0.05", "USD", "0.05"),
        # 0.1 + 0.2 is 0.3: 0.3 x 100 = 30.00
        ("0.3", "0", "100", "EUR", "30.00"),
        # JPY has no minor unit: 3 x 0.5 = 1.5 -> 2
        ("3", "0", "0.5", "JPY", "2"),
        # 1 x 0.49 = 0.49 -> 0
        ("1", "0", "0.49", "JPY", "0"),
        # KWD has three digits: 7 x 0.0005 = 0.0035 -> 0.004
        ("7", "0", "0.0005", "KWD", "0.004"),
        # 1 x 1.2345 = 1.2345 -> 1.235 (half up)
        ("1", "0", "1.2345", "KWD", "1.235"),
        # fractional units: 2.5 - 0.75 = 1.75; 1.75 x 0.10 = 0.175 -> 0.18
        ("2.5", "0.75", "0.10", "USD", "0.18"),
        # nothing used
        ("0", "0", "0.01", "USD", "0.00"),
        ("0", "10000", "0.01", "USD", "0.00"),
        # a price of nothing
        ("12000", "0", "0", "USD", "0.00"),
        # 12 digits after the point: 1,000,000,000,000 x 0.000000000001 = 1.00
        ("1000000000000", "0", "0.000000000001", "USD", "1.00"),
        # the largest quantity: 10^26 - 1 with 12 digits after the point, exactly
        (
            "99999999999999999999999999.999999999999",
            "0",
            "1",
            "USD",
            "100000000000000000000000000.00",
        ),
    ],
)
def test_per_unit(
    quantity: str, included: str, unit_price: str, currency: str, amount: str
) -> None:
    result = charge(PerUnit(D(unit_price)), D(included), used(quantity), currency)
    assert str(result.amount) == amount
    assert result.unit_price == D(unit_price)


def test_the_steps_can_be_followed_with_a_pocket_calculator() -> None:
    result = charge(PerUnit(D("0.01")), D("10000"), used("12000"), "USD")
    assert result.steps == ("12,000 - 10,000 included = 2,000", "2,000 x 0.01 = 20")
    assert result.formula == "2,000 x 0.01"
    assert result.included_units == D("10000")


def test_the_steps_say_where_an_amount_was_rounded() -> None:
    result = charge(PerUnit(D("0.00002")), D(0), used("1501"), "USD")
    assert result.steps == ("1,501 x 0.00002 = 0.03002", "rounded half up: 0.03 USD")


def test_of_a_smaller_quantity_only_that_much_is_included() -> None:
    result = charge(PerUnit(D("0.01")), D("10000"), used("400"), "USD")
    assert result.included_units == D("400")
    assert result.steps[0] == "400 - 400 included = 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is required"),
        ("-0.01", "must be at least 0"),
        ("1e3", 'must be a decimal such as "12.5"'),
        ("0.0000000000001", "must have at most 20 digits, at most 12 after the point"),
        ("123456789012345678901", "must have at most 20 digits, at most 12 after the point"),
    ],
)
def test_a_unit_price_that_is_wrong_is_named(text: str, message: str) -> None:
    checks = FieldChecks()
    PerUnit.parse({"unitPrice": text}, "metrics[3]", checks)
    assert [(p.field, p.message) for p in checks.problems] == [("metrics[3].unitPrice", message)]


def test_large_numbers_are_readable() -> None:
    assert readable(D("12000.50")) == "12,000.5"
    assert readable(D("1E+3")) == "1,000"
    assert readable(D("-0.0")) == "0"


def test_sums_lose_no_digit() -> None:
    small, large = D("0.000000000001"), D("99999999999999999999999999")
    assert subtract(add(large, small), large) == small
    assert total([large, small, small]) == D("99999999999999999999999999.000000000002")


QUANTITIES = st.decimals(min_value=0, max_value=10**12, places=6)
PRICES = st.decimals(min_value=0, max_value=1000, places=12)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD"])


@given(QUANTITIES, QUANTITIES, PRICES, CURRENCIES)
def test_a_charge_is_in_minor_units_and_never_negative(
    quantity: Decimal, included: Decimal, price: Decimal, currency: str
) -> None:
    result = charge(PerUnit(price), included, MetricUsage(quantity), currency)
    assert result.amount >= 0
    assert round_money(result.amount, currency) == result.amount
    assert add(result.included_units, max(subtract(quantity, included), D(0))) == quantity


@given(QUANTITIES, QUANTITIES, PRICES)
def test_more_usage_never_costs_less(one: Decimal, other: Decimal, price: Decimal) -> None:
    less, more = sorted([one, other])
    model = PerUnit(price)
    costs = [charge(model, D(10), MetricUsage(each), "USD").amount for each in (less, more)]
    assert costs == sorted(costs)


@given(
    st.decimals(min_value=0, max_value=10**8, places=4),
    st.lists(st.integers(min_value=1, max_value=2_678_400), min_size=1, max_size=6),
    CURRENCIES,
)
def test_shares_of_a_whole_sum_to_it_within_half_a_minor_unit_each(
    price: Decimal, parts_s: list[int], currency: str
) -> None:
    whole_s = sum(parts_s)
    parts = total(round_money(share(price, part, whole_s), currency) for part in parts_s)
    unit = D(1).scaleb(-minor_digits(currency))
    assert abs(parts - price) <= len(parts_s) * unit / 2
    assert round_money(share(price, whole_s, whole_s), currency) == round_money(price, currency)


def test_a_share_that_is_half_a_minor_unit_is_rounded_up_and_one_below_is_not() -> None:
    # 0.01 x 1 / 2 = 0.005 -> 0.01; 0.01 x 1,339,199 / 2,678,400 < 0.005 -> 0.00
    assert round_money(share(D("0.01"), 1, 2), "USD") == D("0.01")
    assert round_money(share(D("0.01"), 1_339_199, 2_678_400), "USD") == D("0.00")


@pytest.mark.parametrize(("part", "whole"), [(1, 0), (2, 1), (-1, 2)])
def test_what_is_no_share_is_refused(part: int, whole: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        share(D(1), part, whole)
