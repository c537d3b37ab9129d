"""What a request may contain, and that everything wrong in it is told at once."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from services.invoicer.checks import (
    CustomerInput,
    MetricPriceInput,
    PlanInput,
    QuoteInput,
    check_anchor,
    check_customer,
    check_plan,
    check_quote,
    check_start,
    is_customer_id,
)
from services.invoicer.periods import BillingAnchor
from services.kit.errors import FieldChecks, InvalidArgumentError

NOW = datetime(2026, 2, 1, 10, 50, 30, tzinfo=UTC)
# All metrics may be priced.
checked = partial(check_plan, unpriceable={})


def per_unit(metric: str, price: str = "0.01", included: str = "") -> MetricPriceInput:
    return MetricPriceInput(metric, "PER_UNIT", included, {"unitPrice": price})


def plan(*metrics: MetricPriceInput, name: str = "Pro", base_price: str = "100") -> PlanInput:
    return PlanInput(name, "USD", base_price, "MONTHLY", metrics)


def fields(error: InvalidArgumentError) -> list[str]:
    return [problem.field for problem in error.problems]


def test_everything_wrong_with_a_plan_is_named_at_once() -> None:
    given = PlanInput(
        name=" ",
        currency="USDX",
        base_price="-1",
        billing_period="DAILY",
        metrics=[
            MetricPriceInput("API CALL", "PER_UNIT", "-5", {"unitPrice": "abc"}),
            MetricPriceInput("AI_TOKEN", "CHEAP", "", {}),
            per_unit("AI_TOKEN", price=""),
        ],
    )
    with pytest.raises(InvalidArgumentError) as caught:
        check_plan(given, {"AI_TOKEN": "is unknown"})
    assert fields(caught.value) == [
        "name",
        "metrics[1].metric",
        "metrics[2].metric",
        "currency",
        "basePrice",
        "billingPeriod",
        "metrics[0].metric",
        "metrics[0].includedUnits",
        "metrics[0].unitPrice",
        "metrics[1].model",
        "metrics[2].metric",
        "metrics[2].unitPrice",
    ]


def test_a_model_that_is_unknown_is_answered_with_those_that_are() -> None:
    with pytest.raises(InvalidArgumentError, match="must be one of PER_UNIT") as caught:
        checked(plan(MetricPriceInput("M", "UNSPECIFIED", "", {})))
    assert fields(caught.value) == ["metrics[0].model"]


def test_a_plan_has_at_most_100_metrics() -> None:
    assert len(checked(plan(*(per_unit(f"M{n}") for n in range(100)))).metrics) == 100
    with pytest.raises(InvalidArgumentError, match="metrics: must be at most 100"):
        checked(plan(*(per_unit(f"M{n}") for n in range(101))))


def by_model(metric: str, count: int, chars: int) -> MetricPriceInput:
    prices = [
        {"match": {"model": f"{n:03}" + "x" * (chars - 3)}, "unitPrice": "1"} for n in range(count)
    ]
    return MetricPriceInput(metric, "DIMENSIONAL", "", {"prices": prices, "unitPrice": "1"})


def test_what_all_prices_of_a_plan_match_is_bounded() -> None:
    """Each takes 8 + 5 bytes for "model" and 8 for its value: 100 x (21 + 229) = 25,000."""
    plans = [plan(*(by_model(f"M{n}", 100, 229) for n in range(count))) for count in (4, 5)]
    assert len(checked(plans[0]).metrics) == 4
    with pytest.raises(InvalidArgumentError, match="must match at most 100,000 bytes in all"):
        checked(plans[1])


def test_a_plan_needs_no_base_price_and_no_metrics() -> None:
    content = checked(plan(base_price=""))
    assert content.base_price == 0
    assert content.metrics == ()


def test_a_quote_needs_no_name_and_refuses_quantities_without_a_price() -> None:
    content, usages = check_quote(QuoteInput(plan(per_unit("A"), name=""), {"A": "2.50"}))
    assert content.name == ""
    assert {metric: str(usage.quantity) for metric, usage in usages.items()} == {"A": "2.50"}
    with pytest.raises(InvalidArgumentError) as caught:
        check_quote(QuoteInput(plan(per_unit("A")), {"B": "1", "A": "-1"}))
    assert sorted(fields(caught.value)) == ["quantities.A", "quantities.B"]


def test_everything_wrong_with_a_customer_is_named_at_once() -> None:
    given = CustomerInput("", "n" * 201, "nobody", "Mars/Olympus", "usd", "[1]", ("name", "color"))
    with pytest.raises(InvalidArgumentError) as caught:
        check_customer(given)
    assert fields(caught.value) == ["id", "updateFields", "name"]
    with pytest.raises(InvalidArgumentError) as caught:
        check_customer(CustomerInput("", "n" * 201, "nobody", "Mars/Olympus", "usd", "[1]"))
    assert fields(caught.value) == ["id", "name", "email", "timezone", "currency", "metadata"]


@pytest.mark.parametrize(
    "metadata", ["{", "null", '"text"', '{"a": NaN}', '{"a": "' + "x" * 8192 + '"}', "[" * 2000]
)
def test_metadata_is_a_small_json_object(metadata: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_customer(CustomerInput("user_123", metadata_json=metadata))
    assert fields(caught.value) == ["metadata"]


def test_metadata_is_kept_as_it_was_written() -> None:
    text = '{"level": 1.10, "tags": ["a"]}'
    assert check_customer(CustomerInput("u", metadata_json=text))["metadata_json"] == text


def test_only_the_named_fields_of_a_customer_are_set() -> None:
    given = CustomerInput("u", name="Ada", email="ignored", update_fields=("name",))
    assert check_customer(given) == {"name": "Ada"}


def test_no_time_zone_means_utc() -> None:
    assert check_customer(CustomerInput("u"))["time_zone"] == "UTC"


@pytest.mark.parametrize("customer_id", ["u", "user 123", "käufer/ä", "u" * 255, "用户"])
def test_customers_keep_the_callers_ids(customer_id: str) -> None:
    assert is_customer_id(customer_id)


@pytest.mark.parametrize("customer_id", ["", "u" * 256, "a\nb", "a\x00b", "a\x85b"])
def test_other_customer_ids_are_refused(customer_id: str) -> None:
    assert not is_customer_id(customer_id)


def test_a_subscription_starts_with_the_running_quarter_hour_when_no_start_is_given() -> None:
    checks = FieldChecks()
    assert check_start(checks, None, NOW) == datetime(2026, 2, 1, 10, 45, tzinfo=UTC)
    assert not checks.problems


@pytest.mark.parametrize(
    "start",
    [
        datetime(2026, 1, 1, 0, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 2, 1, 10, 45, tzinfo=UTC) - timedelta(days=401),
        datetime(2026, 2, 1, 10, 45, tzinfo=UTC) + timedelta(days=401),
    ],
)
def test_other_starts_are_refused_naming_the_field(start: datetime) -> None:
    checks = FieldChecks()
    check_start(checks, start, NOW)
    assert [problem.field for problem in checks.problems] == ["startsAt"]


def test_an_unknown_anchor_is_refused_naming_those_that_are_known() -> None:
    checks = FieldChecks()
    assert check_anchor(checks, "ANNIVERSARY") is BillingAnchor.ANNIVERSARY
    check_anchor(checks, "7")
    assert [str(problem.message) for problem in checks.problems] == [
        "must be one of CALENDAR, ANNIVERSARY"
    ]
