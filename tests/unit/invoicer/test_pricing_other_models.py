"""PACKAGE, PERCENTAGE, DIMENSIONAL, limits; the arithmetic is written out beside each case."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from services.invoicer.pricing.charge import Limits, charge
from services.invoicer.pricing.dimensional import Dimensional
from services.invoicer.pricing.package import Package
from services.invoicer.pricing.per_unit import PerUnit
from services.invoicer.pricing.percentage import EventWalk, Percentage
from services.invoicer.pricing.registry import PRICING_MODELS
from services.invoicer.pricing.usage import MetricUsage
from services.kit.errors import FieldChecks, PreconditionError
from tests.unit.invoicer.calculator import follow

D = Decimal


@pytest.mark.parametrize(
    ("size", "price", "included", "quantity", "currency", "amount"),
    [
        # none for nothing
        ("100", "5", "0", "0", "USD", "0.00"),
        # a started package: 1 x 5
        ("100", "5", "0", "0.001", "USD", "5.00"),
        ("100", "5", "0", "100", "USD", "5.00"),
        # 100.5 / 100 -> 2 x 5
        ("100", "5", "0", "100.5", "USD", "10.00"),
        # 1,000 / 3 = 333.3.. -> 334 x 0.333 = 111.222 -> 111.22
        ("3", "0.333", "0", "1000", "USD", "111.22"),
        # packages need not be whole: 1 / 0.3 = 3.3.. -> 4 x 1
        ("0.3", "1", "0", "1", "USD", "4.00"),
        # 0.9 / 0.3 = 3 exactly
        ("0.3", "1", "0", "0.9", "USD", "3.00"),
        # included first: 250 - 50 = 200 -> 2 x 5
        ("100", "5", "50", "250", "USD", "10.00"),
        ("100", "5", "50", "50", "USD", "0.00"),
        ("100", "5", "50", "51", "USD", "5.00"),
        # 3 x 99.5 = 298.5 -> 299 yen
        ("10", "99.5", "0", "21", "JPY", "299"),
        # 3 x 0.0005 = 0.0015 -> 0.002 dinar
        ("10", "0.0005", "0", "21", "KWD", "0.002"),
        # the smallest package of the largest quantity: (10^26 - 10^-12) / 10^-12 = 10^38 - 1
        (
            "0.000000000001",
            "0.000000000001",
            "0",
            "99999999999999999999999999.999999999999",
            "USD",
            "100000000000000000000000000.00",
        ),
    ],
)
def test_package(
    size: str, price: str, included: str, quantity: str, currency: str, amount: str
) -> None:
    result = charge(Package(D(size), D(price)), D(included), MetricUsage(D(quantity)), currency)
    assert str(result.amount) == amount
    assert follow(result.steps) == result.amount


def percentage(rate: str, **changes: str) -> Percentage:
    checks = FieldChecks()
    made = Percentage.parse({"rate": rate, **changes}, "metrics[0]", checks)
    checks.done()
    return made


def by_events(*amounts: str) -> MetricUsage:
    exact = tuple(map(D, amounts))
    return MetricUsage(sum(exact, D(0)), event_count=len(exact), events=exact)


@pytest.mark.parametrize(
    ("model", "events", "amount"),
    [
        # 260 x 1.5 / 100
        (percentage("1.5"), ["10.00", "250.00"], "3.90"),
        # 2.9 % + 0.30: 10 x 2.9 / 100 + 0.30 = 0.59
        (percentage("2.9", fixedPerEvent="0.30"), ["10"], "0.59"),
        # 7.54 + 2 x 0.30
        (percentage("2.9", fixedPerEvent="0.30"), ["10", "250"], "8.14"),
        (percentage("2.9", fixedPerEvent="0.30"), [], "0.00"),
        # an event of nothing has its fixed price
        (percentage("2.9", fixedPerEvent="0.30"), ["0"], "0.30"),
        # the first two are free: 30 x 10 / 100 + 1
        (percentage("10", fixedPerEvent="1", freeEvents="2"), ["10", "20", "30"], "4.00"),
        (percentage("10", fixedPerEvent="1", freeEvents="5"), ["10", "20", "30"], "0.00"),
        # of 60 the first 25 are free: 35 x 10 / 100 + 3 x 1
        (percentage("10", fixedPerEvent="1", freeAmount="25"), ["10", "20", "30"], "6.50"),
        # the first event is free, of the 50 after it 25: 25 x 10 / 100
        (percentage("10", freeEvents="1", freeAmount="25"), ["10", "20", "30"], "2.50"),
        # at least 0.50 each: 0.10 -> 0.50, 2 stays, 0 costs nothing
        (percentage("1", minPerEvent="0.5"), ["10", "200", "0"], "2.50"),
        # at most 5 each: 1 stays, 50 -> 5
        (percentage("10", maxPerEvent="5"), ["10", "500"], "6.00"),
        # 0.30 + 0.1 = 0.40 -> 0.50; 0.30 + 2 = 2.30; 0.30 + 10 = 10.30 -> 4
        (
            percentage("1", fixedPerEvent="0.30", minPerEvent="0.50", maxPerEvent="4"),
            ["10", "200", "1000"],
            "6.80",
        ),
        # limits that are met exactly: 0.5 and 5
        (percentage("10", minPerEvent="0.5", maxPerEvent="5"), ["5", "50"], "5.50"),
        # wholly free amounts have no least price: 10 free; 20 - 5 = 15 x 1 % = 0.15 -> 1
        (percentage("1", freeAmount="15", minPerEvent="1"), ["10", "20"], "1.00"),
        # 0.333 x 3.3333 / 100 = 0.011099889 -> 0.01
        (percentage("3.3333"), ["0.333"], "0.01"),
        # more than all of it
        (percentage("150"), ["2"], "3.00"),
    ],
)
def test_percentage(model: Percentage, events: list[str], amount: str) -> None:
    result = charge(model, D(0), by_events(*events), "USD")
    assert str(result.amount) == amount
    assert follow(result.steps) == result.amount
    assert charge(model, D(0), walked(model, D(0), events), "USD") == result


def walked(model: Percentage, included: Decimal, events: Sequence[str]) -> MetricUsage:
    """The same events looked at one after the other."""
    walk = EventWalk(model, included)
    for amount in events:
        walk.add([D(amount)])
    return MetricUsage(walk.total, event_count=walk.count, event_sums=walk.sums())


def test_a_percentage_without_limits_needs_only_the_sum_and_the_number_of_events() -> None:
    model = percentage("2.9", fixedPerEvent="0.30", freeAmount="100")
    events = by_events("10", "250", "0.5")
    summed = MetricUsage(events.quantity, event_count=3)
    # (260.5 - 100) x 2.9 / 100 + 3 x 0.30 = 4.6545 + 0.9
    assert not model.needs_events
    assert charge(model, D(0), summed, "USD") == charge(model, D(0), events, "USD")
    assert str(charge(model, D(0), summed, "USD").amount) == "5.55"


def test_a_percentage_with_limits_of_each_event_does_not_guess() -> None:
    with pytest.raises(PreconditionError, match="depends on each event"):
        charge(percentage("1", maxPerEvent="1"), D(0), MetricUsage(D(10), event_count=2), "USD")


def test_included_units_of_a_percentage_come_off_the_earliest_amounts() -> None:
    # 10 and 15 of 20 are included: (5 + 30) x 10 / 100
    result = charge(percentage("10"), D(25), by_events("10", "20", "30"), "USD")
    assert str(result.amount) == "3.50"
    assert result.steps[0] == "60 - 25 included = 35"
    # The first two are free all the same, and take the included units: 30 x 10 / 100
    model = percentage("10", freeEvents="2")
    for events in (by_events("10", "20", "30"), walked(model, D(25), ["10", "20", "30"])):
        assert str(charge(model, D(25), events, "USD").amount) == "3.00"


def test_the_steps_of_a_percentage() -> None:
    model = percentage("1", fixedPerEvent="0.3", freeEvents="1", freeAmount="50", maxPerEvent="4")
    result = charge(model, D(0), by_events("7", "100", "200", "1000"), "USD")
    assert result.steps == (
        "events: 4 - 1 free = 3",
        "amount: 1,300 - 50 free = 1,250",
        "percentage: 250 x 1 / 100 = 2.5",
        "fixed price of events: 2 x 0.3 = 0.6",
        "events at the highest price: 1 x 4 = 4",
        "2.5 + 0.6 + 4 = 7.1",
    )
    assert result.formula == "1 % of 250 + 4.6 by event"


MODELS = {
    "prices": [
        {"match": {"model": "gpt-4"}, "unitPrice": "0.03"},
        {"match": {"region": "eu"}, "unitPrice": "0.02"},
        {"match": {"model": "gpt-4", "region": "eu"}, "unitPrice": "0.04"},
    ],
    "unitPrice": "0.01",
}


def dimensional(parameters: dict[str, Any] = MODELS) -> Dimensional:
    checks = FieldChecks()
    made = Dimensional.parse(parameters, "metrics[0]", checks)
    checks.done()
    return made


def by_group(*groups: tuple[dict[str, str], str]) -> MetricUsage:
    model = dimensional()
    quantities = [D(0)] * 4
    for group, quantity in groups:
        quantities[model.part_of(group)] += D(quantity)
    return MetricUsage(sum(quantities, D(0)), parts=model.parts(quantities))


@pytest.mark.parametrize(
    ("groups", "included", "amount"),
    [
        # 1,000 x 0.03
        ([({"model": "gpt-4"}, "1000")], "0", "30.00"),
        ([({"model": "gpt-4", "region": "us"}, "1000")], "0", "30.00"),
        # both fit, the one with more dimensions counts: 1,000 x 0.04
        ([({"model": "gpt-4", "region": "eu"}, "1000")], "0", "40.00"),
        # 1,000 x 0.02
        ([({"model": "small", "region": "eu"}, "1000")], "0", "20.00"),
        # none fits: 1,000 x 0.01
        ([({"model": "small"}, "1000")], "0", "10.00"),
        ([({}, "1000")], "0", "10.00"),
        # 100 x 0.03 + 10 x 0.04 + 1 x 0.01 = 3 + 0.4 + 0.01
        (
            [({"model": "gpt-4"}, "100"), ({"model": "gpt-4", "region": "eu"}, "10"), ({}, "1")],
            "0",
            "3.41",
        ),
        # 15 included come off in the order in which prices are tried: 10 eu and 5 of 100;
        # 95 x 0.03 + 1 x 0.01 = 2.86
        (
            [({"model": "gpt-4"}, "100"), ({"model": "gpt-4", "region": "eu"}, "10"), ({}, "1")],
            "15",
            "2.86",
        ),
        ([], "0", "0.00"),
    ],
)
def test_dimensional(groups: list[tuple[dict[str, str], str]], included: str, amount: str) -> None:
    result = charge(dimensional(), D(included), by_group(*groups), "USD")
    assert str(result.amount) == amount
    assert follow(result.steps) == result.amount


def test_the_steps_of_dimensions() -> None:
    usage = by_group(({"model": "gpt-4"}, "100"), ({"model": "gpt-4", "region": "eu"}, "10"))
    result = charge(dimensional(), D(15), usage, "USD")
    assert result.steps == (
        "110 - 15 included = 95",
        "model=gpt-4, region=eu: 10 - 10 included = 0",
        "model=gpt-4: 100 - 5 included = 95",
        "model=gpt-4: 95 x 0.03 = 2.85",
    )
    usage = by_group(({"model": "gpt-4"}, "100"), ({}, "10"))
    assert charge(dimensional(), D(0), usage, "USD").steps == (
        "model=gpt-4: 100 x 0.03 = 3",
        "other: 10 x 0.01 = 0.1",
        "3 + 0.1 = 3.1",
    )


def test_where_nobody_knows_the_dimensions_the_price_of_the_rest_counts() -> None:
    assert str(charge(dimensional(), D(0), MetricUsage(D(1000)), "USD").amount) == "10.00"


@pytest.mark.parametrize(
    ("limits", "quantity", "amount", "last_step"),
    [
        # 5 x 1 = 5 is less than 10
        (Limits(D(10), None), "5", "10.00", "less than the minimum: 10"),
        # also without usage
        (Limits(D(10), None), "0", "10.00", "less than the minimum: 10"),
        (Limits(D(10), None), "10", "10.00", "10 x 1 = 10"),
        (Limits(D(10), None), "11", "11.00", "11 x 1 = 11"),
        (Limits(None, D(8)), "9", "8.00", "more than the maximum: 8"),
        (Limits(None, D(8)), "8", "8.00", "8 x 1 = 8"),
        (Limits(None, D(0)), "8", "0.00", "more than the maximum: 0"),
        (Limits(D(8), D(8)), "3", "8.00", "less than the minimum: 8"),
        (Limits(D(8), D(8)), "9", "8.00", "more than the maximum: 8"),
        (Limits(None, D("7.777")), "9", "7.78", "rounded half up: 7.78 USD"),
    ],
)
def test_limits(limits: Limits, quantity: str, amount: str, last_step: str) -> None:
    result = charge(PerUnit(D(1)), D(0), MetricUsage(D(quantity)), "USD", limits)
    assert (str(result.amount), result.steps[-1]) == (amount, last_step)


def test_before_the_period_is_over_there_is_no_minimum() -> None:
    limits = Limits(D(10), D(20))
    so_far = charge(PerUnit(D(1)), D(0), MetricUsage(D(3)), "USD", limits, period_over=False)
    assert str(so_far.amount) == "3.00"


@pytest.mark.parametrize(
    ("model", "parameters", "problems"),
    [
        ("PACKAGE", {}, {"packageSize": "is required", "packagePrice": "is required"}),
        (
            "PACKAGE",
            {"packageSize": "0", "packagePrice": "-1"},
            {"packageSize": "must be more than 0", "packagePrice": "must be at least 0"},
        ),
        ("PERCENTAGE", {}, {"rate": "is required"}),
        (
            "PERCENTAGE",
            {"rate": "-1", "freeEvents": "1.5", "minPerEvent": "2", "maxPerEvent": "1"},
            {
                "rate": "must be at least 0",
                "freeEvents": "must have at most 9 digits, at most 0 after the point",
                "maxPerEvent": "must not be less than minPerEvent",
            },
        ),
        (
            "DIMENSIONAL",
            {},
            {"prices": "must have 1 to 100 entries", "unitPrice": "is required"},
        ),
        (
            "DIMENSIONAL",
            {
                "prices": [
                    {"match": {"model": "a"}, "unitPrice": "1"},
                    {"match": {}, "unitPrice": "1"},
                    {"match": {"model": "a"}},
                    {"match": {"model": "x" * 256}, "unitPrice": "-1"},
                ],
                "unitPrice": "1",
            },
            {
                "prices[1].match": "must name 1 to 8 dimensions",
                "prices[2].match": "must not come twice",
                "prices[2].unitPrice": "is required",
                "prices[3].match": "values must have at most 255 characters",
                "prices[3].unitPrice": "must be at least 0",
            },
        ),
    ],
)
def test_parameters_that_are_wrong_are_named(
    model: str, parameters: dict[str, Any], problems: dict[str, str]
) -> None:
    checks = FieldChecks()
    PRICING_MODELS[model].parse(parameters, "metrics[1]", checks)
    found = {problem.field: problem.message for problem in checks.problems}
    assert found == {f"metrics[1].{field}": message for field, message in problems.items()}


TIERS = {
    "tiers": [
        {"upTo": "5.5", "unitPrice": "0.1", "flatPrice": "0"},
        {"upTo": None, "unitPrice": "0.00000001", "flatPrice": "3"},
    ]
}
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "PER_UNIT": [{"unitPrice": "0.00002"}],
    "GRADUATED": [TIERS],
    "VOLUME": [TIERS],
    "STAIRSTEP": [{"tiers": [{"upTo": "1", "flatPrice": "2"}, {"upTo": None, "flatPrice": "9"}]}],
    "PACKAGE": [{"packageSize": "1000", "packagePrice": "0.5"}],
    "PERCENTAGE": [
        {"rate": "1.5"},
        {
            "rate": "1.5",
            "fixedPerEvent": "0.3",
            "freeEvents": "10",
            "freeAmount": "100",
            "minPerEvent": "0",
            "maxPerEvent": "5",
        },
    ],
    "DIMENSIONAL": [MODELS],
}


def test_every_model_is_stored_as_it_is_read() -> None:
    checks = FieldChecks()
    assert set(EXAMPLES) == set(PRICING_MODELS)
    for name, examples in EXAMPLES.items():
        for parameters in examples:
            model = PRICING_MODELS[name].parse(parameters, "metrics[0]", checks)
            assert model.name == name
            assert model.parameters() == parameters
    assert not checks.problems
