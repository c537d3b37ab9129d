"""GRADUATED, VOLUME and STAIRSTEP; the arithmetic is written out beside each case."""

from decimal import Decimal
from typing import Any

import pytest

from services.invoicer.pricing.charge import charge
from services.invoicer.pricing.registry import PRICING_MODELS
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks
from tests.unit.invoicer.calculator import follow

D = Decimal
Tiers = list[tuple[str | None, str, str]]

# 100 at 0.10, the next 900 at 0.05, the rest at 0.01
PLAIN: Tiers = [("100", "0.10", ""), ("1000", "0.05", ""), (None, "0.01", "")]
# with 5, 3 and 1 for each tier
FLAT: Tiers = [("5", "7", "5"), ("10", "6.5", "3"), (None, "6", "1")]
FREE_FIRST: Tiers = [("10", "0", ""), (None, "1", "")]
STEPS: Tiers = [("100", "", "50"), ("500", "", "200"), (None, "", "750")]


def parameters(tiers: Tiers) -> dict[str, Any]:
    names = ("upTo", "unitPrice", "flatPrice")
    return {"tiers": [dict(zip(names, tier, strict=True)) for tier in tiers]}


def cost(
    model: str, tiers: Tiers, quantity: str, currency: str = "USD", included: str = "0"
) -> str:
    checks = FieldChecks()
    made = PRICING_MODELS[model].parse(parameters(tiers), "metrics[0]", checks)
    checks.done()
    result = charge(made, D(included), MetricUsage(D(quantity)), currency)
    assert follow(result.steps) == result.amount
    return str(result.amount)


@pytest.mark.parametrize(
    ("tiers", "quantity", "amount"),
    [
        # nothing used, no flat price
        (PLAIN, "0", "0.00"),
        # 1 x 0.10
        (PLAIN, "1", "0.10"),
        # 100 x 0.10: upTo is inclusive
        (PLAIN, "100", "10.00"),
        # 100 x 0.10 + 1 x 0.05
        (PLAIN, "101", "10.05"),
        # 100 x 0.10 + 0.1 x 0.05 = 10.005 -> 10.01
        (PLAIN, "100.1", "10.01"),
        # 100 x 0.10 + 900 x 0.05 = 10 + 45
        (PLAIN, "1000", "55.00"),
        # 10 + 45 + 0.001 x 0.01 = 55.00001 -> 55.00
        (PLAIN, "1000.001", "55.00"),
        # 10 + 45 + 11,000 x 0.01 = 165
        (PLAIN, "12000", "165.00"),
        # the flat price of the first tier, without usage
        (FLAT, "0", "5.00"),
        # 1 x 7 + 5
        (FLAT, "1", "12.00"),
        # 5 x 7 + 5
        (FLAT, "5", "40.00"),
        # 40 + 0.001 x 6.5 + 3 = 43.0065 -> 43.01: 5.001 is in the second tier
        (FLAT, "5.001", "43.01"),
        # 40 + 5 x 6.5 + 3 = 75.5
        (FLAT, "10", "75.50"),
        # 75.5 + 1 x 6 + 1 = 82.5
        (FLAT, "11", "82.50"),
        (FREE_FIRST, "10", "0.00"),
        (FREE_FIRST, "10.5", "0.50"),
        # one tier is PER_UNIT with a flat price: 3 x 2 + 10
        ([(None, "2", "10")], "3", "16.00"),
        # a first tier up to 0 makes its flat price one of having the plan: 4, and 2 x 1
        ([("0", "", "4"), (None, "1", "")], "2", "6.00"),
        ([("0", "", "4"), (None, "1", "9")], "0", "4.00"),
    ],
)
def test_graduated(tiers: Tiers, quantity: str, amount: str) -> None:
    assert cost("GRADUATED", tiers, quantity) == amount


@pytest.mark.parametrize(
    ("tiers", "quantity", "amount"),
    [
        (PLAIN, "0", "0.00"),
        # 100 x 0.10
        (PLAIN, "100", "10.00"),
        # 101 x 0.05 = 5.05: all units, less than 100 of them cost
        (PLAIN, "101", "5.05"),
        # 100.1 x 0.05 = 5.005 -> 5.01
        (PLAIN, "100.1", "5.01"),
        # 1,000 x 0.05
        (PLAIN, "1000", "50.00"),
        # 12,000 x 0.01
        (PLAIN, "12000", "120.00"),
        (FLAT, "0", "5.00"),
        # 5 x 7 + 5
        (FLAT, "5", "40.00"),
        # 5.001 x 6.5 + 3 = 32.5065 + 3 = 35.5065 -> 35.51
        (FLAT, "5.001", "35.51"),
        # 10 x 6.5 + 3
        (FLAT, "10", "68.00"),
        # 11 x 6 + 1
        (FLAT, "11", "67.00"),
        (FREE_FIRST, "10", "0.00"),
        # 10.5 x 1: all of them
        (FREE_FIRST, "10.5", "10.50"),
    ],
)
def test_volume(tiers: Tiers, quantity: str, amount: str) -> None:
    assert cost("VOLUME", tiers, quantity) == amount


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("0", "50.00"),
        ("1", "50.00"),
        ("100", "50.00"),
        ("100.000000000001", "200.00"),
        ("500", "200.00"),
        ("501", "750.00"),
        ("99999999999999999999999999.999999999999", "750.00"),
    ],
)
def test_stairstep(quantity: str, amount: str) -> None:
    assert cost("STAIRSTEP", STEPS, quantity) == amount


@pytest.mark.parametrize(
    ("model", "currency", "quantity", "amount"),
    [
        # 100 x 0.10 + 10 x 0.05 = 10.5 -> 11 yen
        ("GRADUATED", "JPY", "110", "11"),
        # 10 + 9 x 0.05 = 10.45 -> 10
        ("GRADUATED", "JPY", "109", "10"),
        # 10 + 0.01 x 0.05 = 10.0005 -> 10.001 (three digits, half up)
        ("GRADUATED", "KWD", "100.01", "10.001"),
        # 109 x 0.05 = 5.45 -> 5
        ("VOLUME", "JPY", "109", "5"),
        # 100.01 x 0.05 = 5.0005 -> 5.001
        ("VOLUME", "KWD", "100.01", "5.001"),
    ],
)
def test_tiers_in_currencies_with_other_minor_units(
    model: str, currency: str, quantity: str, amount: str
) -> None:
    assert cost(model, PLAIN, quantity, currency) == amount


@pytest.mark.parametrize(
    ("model", "amount"),
    [
        # 150 - 50 = 100: 100 x 0.10
        ("GRADUATED", "10.00"),
        ("VOLUME", "10.00"),
    ],
)
def test_included_units_come_off_before_the_tiers(model: str, amount: str) -> None:
    assert cost(model, PLAIN, "150", included="50") == amount


def test_a_unit_price_of_twelve_digits_is_exact() -> None:
    # 1,000,000,000,000 x 0.000000000001 = 1; and one more of 2: 1 + 2
    tiers: Tiers = [("1000000000000", "0.000000000001", ""), (None, "2", "")]
    assert cost("GRADUATED", tiers, "1000000000001") == "3.00"


def test_the_steps_go_tier_by_tier() -> None:
    checks = FieldChecks()
    model = PRICING_MODELS["GRADUATED"].parse(parameters(FLAT), "metrics[0]", checks)
    result = charge(model, D("1"), MetricUsage(D("13")), "USD")
    assert result.steps == (
        "13 - 1 included = 12",
        "tier 1 (up to 5): 5 x 7 + 5 = 40",
        "tier 2 (over 5, up to 10): 5 x 6.5 + 3 = 35.5",
        "tier 3 (over 10): 2 x 6 + 1 = 13",
        "40 + 35.5 + 13 = 88.5",
    )
    assert result.formula == "graduated over 3 tiers"
    assert result.unit_price is None


def test_volume_and_stairstep_tell_the_tier_they_reach() -> None:
    checks = FieldChecks()
    volume = PRICING_MODELS["VOLUME"].parse(parameters(FLAT), "metrics[0]", checks)
    result = charge(volume, D(0), MetricUsage(D("7")), "USD")
    assert result.steps == ("tier 2 (over 5, up to 10): 7 x 6.5 + 3 = 48.5",)
    assert result.unit_price == D("6.5")
    steps = PRICING_MODELS["STAIRSTEP"].parse(parameters(STEPS), "metrics[0]", checks)
    assert charge(steps, D(0), MetricUsage(D("7")), "USD").steps == ("tier 1 (up to 100): 50",)


NULL_LAST = "must be null in the last tier"
NEEDED = "is required in each tier but the last"
RISES = "must be more than that of the tier before"


@pytest.mark.parametrize(
    ("model", "tiers", "problems"),
    [
        ("GRADUATED", [], [("tiers", "must have 1 to 100 entries")]),
        ("VOLUME", [(None, "1", "")] * 101, [("tiers", "must have 1 to 100 entries")]),
        ("GRADUATED", [("10", "1", "")], [("tiers[0].upTo", NULL_LAST)]),
        ("GRADUATED", [("10", "1", ""), ("20", "1", "")], [("tiers[1].upTo", NULL_LAST)]),
        ("VOLUME", [(None, "1", ""), (None, "1", "")], [("tiers[0].upTo", NEEDED)]),
        (
            "VOLUME",
            [("10", "1", ""), ("10", "1", ""), ("9", "1", ""), (None, "1", "")],
            [("tiers[1].upTo", RISES), ("tiers[2].upTo", RISES)],
        ),
        (
            "GRADUATED",
            [("-1", "1", ""), (None, "-1", "-2")],
            [
                ("tiers[0].upTo", "must be at least 0"),
                ("tiers[1].unitPrice", "must be at least 0"),
                ("tiers[1].flatPrice", "must be at least 0"),
            ],
        ),
        ("GRADUATED", [(None, "", "")], [("tiers[0].unitPrice", "is required, or flatPrice")]),
        (
            "STAIRSTEP",
            [("5", "1", "2"), (None, "", "")],
            [
                ("tiers[0].unitPrice", "must be left out: a step has one price"),
                ("tiers[1].flatPrice", "is required"),
            ],
        ),
    ],
)
def test_everything_wrong_with_tiers_is_named(
    model: str, tiers: Tiers, problems: list[tuple[str, str]]
) -> None:
    checks = FieldChecks()
    PRICING_MODELS[model].parse(parameters(tiers), "metrics[2]", checks)
    found = [(problem.field, problem.message) for problem in checks.problems]
    assert found == [(f"metrics[2].{field}", message) for field, message in problems]


def test_a_parameter_of_another_model_is_refused() -> None:
    checks = FieldChecks()
    PRICING_MODELS["VOLUME"].parse({**parameters(PLAIN), "unitPrice": "1"}, "metrics[0]", checks)
    assert [(problem.field, problem.message) for problem in checks.problems] == [
        ("metrics[0].unitPrice", "does not belong here; allowed: tiers")
    ]
