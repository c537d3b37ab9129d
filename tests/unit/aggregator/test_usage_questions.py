"""What is said of wrong questions, and what is taken for what a question leaves out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.aggregator.domain import Metric, NewMetric
from services.aggregator.questions import (
    SELECTED_METRICS_MAX,
    SELECTIONS_MAX,
    Selection,
    UsageQuestion,
    check_question,
    check_selections,
)
from services.kit.database import TenantKey
from services.kit.errors import InvalidArgumentError

NOW = datetime(2026, 3, 17, 10, 7, 30, 123, tzinfo=UTC)
METRIC = Metric(
    metric_id=7,
    counted_id=7,
    tenant=TenantKey("org_" + "a" * 32, "live"),
    definition=NewMetric("AI_TOKEN", dimensions=("model", "region")),
    defined=True,
    create_time=NOW,
)
GOOD = UsageQuestion("AI_TOKEN")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def problems(asked: UsageQuestion, metric: Metric | None = METRIC) -> dict[str, str]:
    """Field to what is wrong with it."""
    with pytest.raises(InvalidArgumentError) as refused:
        check_question(asked, metric, NOW)
    return {problem.field: problem.message for problem in refused.value.problems}


def test_a_bare_question_is_about_this_month_until_now_in_one_window() -> None:
    query = check_question(GOOD, METRIC, NOW)
    assert (query.start, query.end) == (utc("2026-03-01"), utc("2026-03-17T10:15"))
    assert query.window == "TOTAL"
    assert list(query.starts) == [utc("2026-03-01")]


def test_this_month_begins_in_the_time_zone() -> None:
    query = check_question(replace(GOOD, time_zone="Asia/Kolkata"), METRIC, NOW)
    assert query.start == utc("2026-02-28T18:30")


def test_the_first_instant_of_a_month_is_no_empty_range() -> None:
    query = check_question(GOOD, METRIC, utc("2026-03-01"))
    assert (query.start, query.end) == (utc("2026-03-01"), utc("2026-03-01T00:15"))


def test_all_wrong_fields_are_named_at_once_with_what_is_allowed() -> None:
    asked = UsageQuestion(
        "AI_TOKEN",
        start=utc("2026-03-01T00:07"),
        end=utc("2150-01-01"),
        window="FORTNIGHT",
        group_by=("model", "colour"),
        time_zone="Mars/Olympus",
        filters={"size": "L"},
    )
    found = problems(asked)
    assert set(found) == {"from", "to", "window", "groupBy", "timezone", "filter"}
    assert "quarter of an hour" in found["from"]
    assert found["window"] == "must be one of 15MIN, HOUR, DAY, WEEK, MONTH, TOTAL, BILLING_PERIOD"
    assert found["groupBy"] == '"colour" is not allowed; allowed: customerId, model, region'
    assert found["filter"] == '"size" is not allowed; allowed: model, region'


def test_an_unknown_metric_is_named_with_the_rest() -> None:
    found = problems(UsageQuestion("NOPE", window="7", group_by=("x", "x")), None)
    assert set(found) == {"metric", "window", "groupBy"}


@pytest.mark.parametrize("end", ["2026-03-01", "2026-02-01"])
def test_from_has_to_lie_before_to(end: str) -> None:
    found = problems(replace(GOOD, start=utc("2026-03-01"), end=utc(end)))
    assert list(found) == ["from"]
    assert end in found["from"]


def test_a_range_that_ends_before_its_default_start_is_refused() -> None:
    assert list(problems(replace(GOOD, end=utc("2026-02-01")))) == ["from"]


def test_the_number_of_windows_has_an_end() -> None:
    start = utc("2025-01-01")
    most = replace(GOOD, start=start, end=start + timedelta(hours=10_000), window="HOUR")
    assert len(check_question(most, METRIC, NOW).starts) == 10_000
    found = problems(replace(most, end=start + timedelta(hours=10_000, minutes=15)))
    assert list(found) == ["window"]
    assert "10,000" in found["window"]


def test_windows_of_billing_periods_begin_where_whoever_asks_says() -> None:
    days = [utc(day) for day in ("2026-02-17", "2026-03-03T12:00", "2026-03-17")]
    asked = replace(
        GOOD,
        start=utc("2026-03-01"),
        end=utc("2026-03-20"),
        window="BILLING_PERIOD",
        window_starts=days,
    )
    assert list(check_question(asked, METRIC, NOW).starts) == [utc("2026-03-01"), *days[1:]]
    for wrong in ((), days[::-1], [days[0], days[0]], [utc("2026-03-01T00:01")]):
        assert list(problems(replace(asked, window_starts=wrong))) == ["windowStarts"]
    assert list(problems(replace(asked, window="DAY"))) == ["windowStarts"]


@pytest.mark.parametrize("zone", ["localtime", "Factory", "../etc/passwd", "utc+5", "Europe"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    assert list(problems(replace(GOOD, time_zone=zone))) == ["timezone"]


def test_nothing_can_be_called_by_a_character_that_sql_has_not() -> None:
    found = problems(replace(GOOD, customer_id="a\0b", filters={"model": "\0"}))
    assert set(found) == {"customerId", "filter"}


PERCENTILED = replace(METRIC, definition=replace(METRIC.definition, percentiles=True))


@pytest.mark.parametrize("percentile", ["P50", "P95", "P99"])
def test_a_percentile_is_told_of_metrics_that_keep_amounts(percentile: str) -> None:
    asked = replace(GOOD, percentile=percentile)
    assert check_question(asked, PERCENTILED, NOW).percentile == percentile
    assert '"percentiles": true' in problems(asked)["percentile"]


def test_other_percentiles_are_refused() -> None:
    found = problems(replace(GOOD, percentile="P90"), PERCENTILED)
    assert found == {"percentile": "must be one of P50, P95, P99"}
    assert set(problems(replace(GOOD, percentile="P50"), None)) == {"metric"}


def test_a_dimension_may_have_one_of_several_values() -> None:
    asked = replace(GOOD, filters_any={"model": ["a", ""]})
    assert check_question(asked, METRIC, NOW).filters_any == {"model": ("a", "")}
    for name, values in (("size", ["L"]), ("model", []), ("model", ["x"] * 101), ("model", ["\0"])):
        assert list(problems(replace(GOOD, filters_any={name: values}))) == ["filter"]


def test_a_metric_without_dimensions_says_so() -> None:
    plain = replace(METRIC, definition=NewMetric("JOB_RUN"))
    found = problems(UsageQuestion("JOB_RUN", filters={"model": "x"}), plain)
    assert "no dimensions" in found["filter"]


def test_the_empty_customer_is_asked_for_by_itself() -> None:
    assert check_question(replace(GOOD, customer_id=""), METRIC, NOW).customer_id == ""
    assert check_question(GOOD, METRIC, NOW).customer_id is None


def selection(**changes: object) -> Selection:
    whole = Selection("user_1", ("A",), utc("2026-02-01"), utc("2026-03-01"))
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_every_wrong_selection_is_named() -> None:
    wrong = [
        selection(),
        selection(end=utc("2026-02-01")),
        selection(start=utc("2026-02-01T00:01")),
    ]
    with pytest.raises(InvalidArgumentError) as refused:
        check_selections(wrong)
    fields = [problem.field for problem in refused.value.problems]
    assert fields == ["selections[1].from", "selections[2].from"]


@pytest.mark.parametrize(
    "selections",
    [
        [selection()] * (SELECTIONS_MAX + 1),
        [selection(metrics=("A",) * SELECTED_METRICS_MAX), selection()],
    ],
)
def test_the_number_of_selections_has_an_end(selections: list[Selection]) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        check_selections(selections)
    assert [problem.field for problem in refused.value.problems] == ["selections"]
