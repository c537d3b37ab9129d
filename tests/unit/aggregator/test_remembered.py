"""What the fold remembers is bounded and never older than what it was asked for."""

from services.aggregator.fold import Definition, DimensionValue, Series
from services.aggregator.metric_repository import MetricKey
from services.aggregator.remembered import RememberedDefinitions, RememberedSeries, RememberedValues

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
