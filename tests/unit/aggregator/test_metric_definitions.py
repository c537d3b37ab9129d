"""What a valid definition of a metric is."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.aggregator.domain import Metric, NewMetric, check_new_metric
from services.kit.database import TenantKey
from services.kit.errors import InvalidArgumentError

GOOD = NewMetric("AI_TOKEN", "Tokens", "tokens", "SUM", ("model", "region"))
UNIQUE = {"aggregation": "UNIQUE_COUNT"}


@pytest.mark.parametrize("aggregation", ["SUM", "COUNT", "MAX", "MIN", "AVG", "LATEST"])
def test_every_aggregation_of_bucket_columns_can_be_defined(aggregation: str) -> None:
    check_new_metric(replace(GOOD, aggregation=aggregation))


@pytest.mark.parametrize("unique_by", ["userId", "model", "user.id:v-1"])
def test_a_number_of_values_needs_the_property(unique_by: str) -> None:
    check_new_metric(replace(GOOD, aggregation="UNIQUE_COUNT", unique_by=unique_by))


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"key": ""}, "key", "1-128 characters"),
        ({"key": "x" * 129}, "key", "1-128 characters"),
        ({"key": "API CALL"}, "key", "1-128 characters"),
        ({"key": "API_CALL\n"}, "key", "1-128 characters"),
        ({"name": "x" * 201}, "name", "200 characters"),
        ({"name": "a\0b"}, "name", "control characters"),
        ({"unit": "x" * 51}, "unit", "50 characters"),
        (UNIQUE, "uniqueBy", "must name the metadata property"),
        (UNIQUE | {"unique_by": "user id"}, "uniqueBy", "A-Z a-z 0-9"),
        (UNIQUE | {"unique_by": "x" * 129}, "uniqueBy", "1-128 characters"),
        ({"aggregation": "9"}, "aggregation", "AVG, COUNT, LATEST, MAX, MIN, SUM, UNIQUE_COUNT"),
        ({"unique_by": "userId"}, "uniqueBy", "must be left out"),
        ({"dimensions": tuple("abcdefghi")}, "dimensions", "at most 8"),
        ({"dimensions": ("a", "a")}, "dimensions", "twice"),
        ({"dimensions": ("a b",)}, "dimensions", "A-Z a-z 0-9"),
        ({"dimensions": ("customerId",)}, "dimensions", "can always be grouped by it"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(
    change: dict[str, object], field: str, says: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        check_new_metric(replace(GOOD, **change))  # type: ignore[arg-type]
    [problem] = refused.value.problems
    assert problem.field == field
    assert says in problem.message


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        check_new_metric(NewMetric("", "x" * 201, "x" * 51, "MEDIAN", ("",), "userId"))
    fields = [problem.field for problem in refused.value.problems]
    assert fields == ["key", "name", "unit", "aggregation", "uniqueBy", "dimensions"]


def test_the_order_of_dimensions_makes_no_other_definition() -> None:
    tenant = TenantKey("org_" + "a" * 32, "live")
    metric = Metric(1, 1, tenant, GOOD, defined=True, create_time=datetime.now(UTC))
    assert metric.same_as(replace(GOOD, dimensions=("region", "model")))
    for change in (
        {"unit": ""},
        {"name": "x"},
        {"aggregation": "MAX"},
        {"dimensions": ()},
        {"unique_by": "x"},
        {"percentiles": True},
    ):
        assert not metric.same_as(replace(GOOD, **change))
