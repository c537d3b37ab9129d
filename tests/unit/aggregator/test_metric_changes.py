"""What a change of a metric makes of its definition, and what it may not change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.aggregator.domain import Metric, NewMetric, Rebuild
from services.aggregator.rebuilds.domain import (
    BILLED_LATELY,
    MetricChange,
    changes_prices,
    check_archive,
    check_change,
    needs_rebuild,
)
from services.kit.database import TenantKey
from services.kit.errors import ConflictError

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OLD = NewMetric("USED", "Name", "unit", "SUM", ("model", "region"))
USERS = replace(OLD, aggregation="UNIQUE_COUNT", unique_by="user")
TENANT = TenantKey("org_" + "a" * 32, "live")
METRIC = Metric(1, 1, TENANT, OLD, defined=True, create_time=NOW)


@pytest.mark.parametrize(
    ("old", "change", "new"),
    [
        (OLD, MetricChange(), OLD),
        (OLD, MetricChange(name="", unit="u"), replace(OLD, name="", unit="u")),
        (OLD, MetricChange(dimensions=()), replace(OLD, dimensions=())),
        (OLD, MetricChange(percentiles=True), replace(OLD, percentiles=True)),
        (OLD, MetricChange(aggregation="UNIQUE_COUNT", unique_by="user"), USERS),
        (USERS, MetricChange(unique_by="team"), replace(USERS, unique_by="team")),
        (USERS, MetricChange(aggregation="UNIQUE_COUNT"), USERS),
        # The property has nothing to say any more.
        (USERS, MetricChange(aggregation="SUM"), OLD),
    ],
)
def test_what_is_left_out_stays(old: NewMetric, change: MetricChange, new: NewMetric) -> None:
    assert change.of(old) == new


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"name": "x", "unit": "x"}, False),
        ({"dimensions": ("region", "model")}, False),
        ({"dimensions": ("model",)}, True),
        ({"dimensions": ("model", "region", "user")}, True),
        ({"percentiles": True}, True),
        ({"aggregation": "COUNT"}, True),
    ],
)
def test_only_another_way_to_count_needs_a_rebuild(change: dict[str, object], wanted: bool) -> None:
    assert needs_rebuild(METRIC, replace(OLD, **change)) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("new", "wanted"),
    [
        (NewMetric("USED", "n", "u", "LATEST"), False),
        (NewMetric("USED", dimensions=("model",)), True),
        (NewMetric("USED", percentiles=True), True),
        (NewMetric("USED", aggregation="UNIQUE_COUNT", unique_by="user"), True),
    ],
)
def test_a_metric_that_defined_itself_has_all_that_sums_and_extremes_need(
    new: NewMetric, wanted: bool
) -> None:
    itself = replace(METRIC, definition=NewMetric("USED"), defined=False)
    assert needs_rebuild(itself, new) == wanted


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"aggregation": "COUNT"}, True),
        ({"aggregation": "UNIQUE_COUNT", "unique_by": "user"}, True),
        ({"dimensions": ("model",)}, True),
        ({"dimensions": ("model", "region", "user"), "percentiles": True}, False),
        ({"name": "x"}, False),
    ],
)
def test_what_was_billed_keeps_what_prices_depend_on(
    change: dict[str, object], refused: bool
) -> None:
    new = replace(OLD, **change)  # type: ignore[arg-type]
    assert changes_prices(OLD, new) == refused
    check_change(METRIC, new, has_quotas=False)
    billed = replace(METRIC, billed_time=NOW - timedelta(days=900))
    if not refused:
        check_change(billed, new, has_quotas=True)
        return
    with pytest.raises(ConflictError) as error:
        check_change(billed, new, has_quotas=False)
    assert error.value.reason == "metric_is_billed"


@pytest.mark.parametrize("aggregation", ["MAX", "MIN", "AVG", "LATEST"])
def test_a_metric_with_quotas_stays_a_sum_or_a_count(aggregation: str) -> None:
    check_change(METRIC, replace(OLD, aggregation="COUNT"), has_quotas=True)
    with pytest.raises(ConflictError) as error:
        check_change(METRIC, replace(OLD, aggregation=aggregation), has_quotas=True)
    assert error.value.reason == "metric_has_quotas"


def test_a_metric_is_archived_once_it_is_no_longer_billed() -> None:
    check_archive(METRIC, NOW)
    check_archive(replace(METRIC, billed_time=NOW - BILLED_LATELY), NOW)
    with pytest.raises(ConflictError, match="2026-03-01"):
        check_archive(replace(METRIC, billed_time=NOW - timedelta(days=1)), NOW)


@pytest.mark.parametrize(
    ("state", "done", "total", "percent"),
    [
        ("RUNNING", 0, None, 0),
        ("RUNNING", 0, 0, 0),
        ("RUNNING", 1, 3, 33),
        ("RUNNING", 3, 3, 99),
        ("RUNNING", 9, 3, 99),
        ("FAILED", 1, 2, 50),
        ("DONE", 0, 0, 100),
        ("DONE", 2, 3, 100),
    ],
)
def test_progress_is_100_percent_only_once_it_is_done(
    state: str, done: int, total: int | None, percent: int
) -> None:
    assert Rebuild(1, None, state, done, total, "", NOW, None).progress_percent == percent
