"""What is remembered is bounded and never older than what it was asked for."""

from datetime import UTC, datetime, timedelta

from services.aggregator.domain import Metric, NewMetric
from services.aggregator.fold import Definition, DimensionValue, Series
from services.aggregator.metric_repository import MetricKey
from services.aggregator.remembered import (
    RememberedDefinitions,
    RememberedMetrics,
    RememberedSeries,
    RememberedValues,
)
from services.aggregator.usage_repository import QuestionState
from services.kit.tenant import TenantKey

KEYS = [MetricKey("org", "live", f"M{number}") for number in range(5)]
OLD, NEW = Definition(1, ()), Definition(1, ("model",))


def test_a_definition_is_known_for_the_version_it_was_read_at() -> None:
    remembered = RememberedDefinitions()
    remembered.remember(1, {KEYS[0]: OLD})
    assert remembered.find(1, KEYS) == {KEYS[0]: OLD}
    assert remembered.find(2, KEYS) == {}


def test_a_newer_version_forgets_all_that_was_known() -> None:
    remembered = RememberedDefinitions()
    remembered.remember(1, {KEYS[0]: OLD, KEYS[1]: OLD})
    remembered.remember(2, {KEYS[0]: NEW})
    assert remembered.find(2, KEYS) == {KEYS[0]: NEW}


def test_a_transaction_that_saw_an_older_version_teaches_nothing() -> None:
    remembered = RememberedDefinitions()
    remembered.remember(2, {KEYS[0]: NEW})
    remembered.remember(1, {KEYS[0]: OLD})
    assert remembered.find(2, KEYS) == {KEYS[0]: NEW}


TIME = datetime(2026, 3, 1, tzinfo=UTC)


def metric(key: str, *dimensions: str) -> Metric:
    """A metric of one organization."""
    tenant = TenantKey("org", "live")
    return Metric(1, 1, tenant, NewMetric(key, dimensions=dimensions), True, TIME)


def state(version: int, hours: int = 0) -> QuestionState:
    """Rolled up so many hours later."""
    return QuestionState(version, TIME + timedelta(hours=hours), None)


def test_a_metric_is_known_until_any_definition_has_changed() -> None:
    remembered = RememberedMetrics()
    assert remembered.find(KEYS[0]) is None
    remembered.remember(state(1), metric("M0"))
    assert remembered.find(KEYS[0]) == (metric("M0"), state(1))
    remembered.remember(state(2), metric("M1", "model"))
    assert remembered.find(KEYS[0]) is None
    assert remembered.find(KEYS[1]) == (metric("M1", "model"), state(2))


def test_a_snapshot_that_was_taken_before_teaches_nothing_about_metrics() -> None:
    remembered = RememberedMetrics()
    remembered.remember(state(2), metric("M0", "model"))
    remembered.remember(state(1), metric("M0"))
    remembered.remember(state(1), metric("M1"))
    assert remembered.find(KEYS[0]) == (metric("M0", "model"), state(2))
    assert remembered.find(KEYS[1]) is None


def test_how_far_usage_is_rolled_up_never_goes_back() -> None:
    remembered = RememberedMetrics()
    for hours in (4, 12, 8):
        remembered.remember(state(1, hours), metric("M0"))
    assert remembered.find(KEYS[0]) == (metric("M0"), state(1, 12))


def test_no_more_metrics_are_remembered_than_allowed() -> None:
    remembered = RememberedMetrics(entries_max=2)
    for key in KEYS:
        remembered.remember(state(1), metric(key.key))
    assert [key for key in KEYS if remembered.find(key)] == KEYS[3:]


def test_no_more_is_remembered_than_allowed() -> None:
    definitions = RememberedDefinitions(entries_max=2)
    definitions.remember(1, dict.fromkeys(KEYS, OLD))
    assert list(definitions.find(1, KEYS)) == KEYS[3:]
    series = [Series(1, f"user_{number}", "{}") for number in range(5)]
    ids = RememberedSeries(entries_max=2)
    for number, entry in enumerate(series):
        ids.remember({entry: number})
    assert ids.find(series) == {series[3]: 3, series[4]: 4}
    values = [DimensionValue(1, "model", f"v{number}") for number in range(5)]
    known = RememberedValues(entries_max=2)
    known.remember(values)
    assert known.unknown(values) == set(values[:3])
