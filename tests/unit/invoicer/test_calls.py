"""How many periods one call to aggregator asks about."""

from decimal import Decimal

from services.invoicer.closer import METRICS_A_CALL_MAX, calls
from services.invoicer.closing import OpenPeriod
from services.invoicer.domain import MetricPrice
from services.invoicer.pricing.dimensional import Dimensional, DimensionPrice
from services.invoicer.pricing.model import PricingModel
from services.invoicer.pricing.per_unit import PerUnit
from tests.unit.invoicer.test_lines import JANUARY, open_period, pro

ZERO = Decimal(0)


def due(count: int, metrics: int, model: PricingModel) -> list[OpenPeriod]:
    """Periods of one tenant, each with as many metrics."""
    prices = [MetricPrice(f"M{number}", ZERO, model) for number in range(metrics)]
    return [open_period(pro(*prices), JANUARY) for _ in range(count)]


def sizes(periods: list[OpenPeriod]) -> list[int]:
    return [len(group) for _, group in calls(periods)]


def test_a_call_asks_about_a_bounded_number_of_metrics() -> None:
    metrics = METRICS_A_CALL_MAX // 50
    assert sizes(due(101, metrics, PerUnit(ZERO))) == [50, 50, 1]


def test_a_call_names_a_bounded_length_of_dimension_values() -> None:
    """3 MB each: two of them fit into a message."""
    matched = DimensionPrice((("model", "x" * 3_000_000),), ZERO)
    assert sizes(due(5, 1, Dimensional((matched,), ZERO))) == [2, 2, 1]


def test_a_period_that_is_too_long_for_a_call_has_one_of_its_own() -> None:
    matched = DimensionPrice((("model", "x" * 9_000_000),), ZERO)
    assert sizes(due(2, 1, Dimensional((matched,), ZERO))) == [1, 1]
