"""What is remembered between transactions, bounded. Only what was committed gets in here."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from services.aggregator.domain import Metric
from services.aggregator.fold import Definition, DimensionValue, Series
from services.aggregator.metric_repository import MetricKey
from services.aggregator.usage_repository import QuestionState

# About 40 MB, 5 MB and 20 MB with usual values; as many definitions for questions as for folds.
SERIES_MAX = 100_000
DEFINITIONS_MAX = 10_000
VALUES_MAX = 100_000


class RememberedDefinitions:
    """Definitions of metrics, valid for one version of them all.

    The fold reads the version in its transaction, so what it folds after CreateMetric has answered
    is folded by the new definition, in every replica.
    """

    def __init__(self, entries_max: int = DEFINITIONS_MAX) -> None:
        self._entries_max = entries_max
        self._version = 0
        self._known: dict[MetricKey, Definition] = {}

    def find(self, version: int, keys: Iterable[MetricKey]) -> dict[MetricKey, Definition]:
        """Those that are known as of `version`."""
        if version != self._version:
            return {}
        return {key: self._known[key] for key in keys if key in self._known}

    def remember(self, version: int, definitions: Mapping[MetricKey, Definition]) -> None:
        """Keep what a committed transaction that saw `version` has found."""
        if version < self._version:
            return
        if version > self._version:
            self._known.clear()
            self._version = version
        self._known.update(definitions)
        _forget_oldest(self._known, self._entries_max)


class RememberedMetrics:
    """Metrics that were asked about, and the state of which they are true.

    Each is what questions rely on (definition and counted_id) as long as definition_version is
    that of the state: whoever uses one has to see that in the same snapshot as usage. Its name and
    unit may be older.
    """

    def __init__(self, entries_max: int = DEFINITIONS_MAX) -> None:
        self._entries_max = entries_max
        self._state: QuestionState | None = None
        self._known: dict[MetricKey, Metric] = {}

    def find(self, key: MetricKey) -> tuple[Metric, QuestionState] | None:
        """The metric, and the newest state of which it is true; None: unknown."""
        metric = self._known.get(key)
        return None if metric is None or self._state is None else (metric, self._state)

    def remember(self, state: QuestionState, metric: Metric) -> None:
        """Keep what a snapshot has shown."""
        before = self._state
        if before is None or state.definition_version > before.definition_version:
            self._known.clear()
        elif state.definition_version < before.definition_version:
            return
        # Snapshots may end in another order than they began.
        if before is None or state[:2] >= before[:2]:
            self._state = state
        key = MetricKey(*metric.tenant, metric.definition.key)
        if key not in self._known:
            self._known[key] = metric
            _forget_oldest(self._known, self._entries_max)


class RememberedSeries:
    """Ids of series, which never change."""

    def __init__(self, entries_max: int = SERIES_MAX) -> None:
        self._entries_max = entries_max
        self._ids: dict[Series, int] = {}

    def find(self, wanted: Iterable[Series]) -> dict[Series, int]:
        """Those that are known."""
        ids = self._ids
        return {series: ids[series] for series in wanted if series in ids}

    def remember(self, series_ids: Mapping[Series, int]) -> None:
        """Keep what a committed transaction has found or stored."""
        self._ids.update(series_ids)
        _forget_oldest(self._ids, self._entries_max)


class RememberedValues:
    """Values that dimensions know, which they never forget."""

    def __init__(self, entries_max: int = VALUES_MAX) -> None:
        self._entries_max = entries_max
        self._known: dict[DimensionValue, None] = {}

    def unknown(self, values: Iterable[DimensionValue]) -> set[DimensionValue]:
        """Those that are not remembered."""
        return {value for value in values if value not in self._known}

    def remember(self, values: Iterable[DimensionValue]) -> None:
        """Keep what a committed transaction has found or stored."""
        self._known.update(dict.fromkeys(values))
        _forget_oldest(self._known, self._entries_max)


def _forget_oldest(entries: dict[Any, Any], entries_max: int) -> None:
    """A dict keeps the order in which its keys came in."""
    for key in list(itertools.islice(entries, max(len(entries) - entries_max, 0))):
        del entries[key]
