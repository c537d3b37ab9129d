"""What may be asked about usage: limits, defaults, what is said of a wrong question. Pure."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from services.aggregator import windows
from services.aggregator.domain import CUSTOMER_GROUP, QUARTER, Metric, is_quarter, quarter_of
from services.kit.errors import FieldChecks, FieldProblem, InvalidArgumentError

WINDOWS_MAX = 10_000
ROWS_MAX = 20_000
SELECTIONS_MAX = 1_000
SELECTED_METRICS_MAX = 20_000
# Since then every zone has kept to whole quarters of an hour.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)

_RANGE = f"on a quarter of an hour between {EARLIEST:%Y-%m-%d} and {LATEST:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """A question as it was asked. None: not given; `window` and `time_zone` "": not given."""

    metric: str
    customer_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    window: str = ""
    group_by: Sequence[str] = ()
    time_zone: str = ""
    filters: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A question that can be answered. Times in UTC; `starts` are those of the windows."""

    metric: Metric
    customer_id: str | None
    start: datetime
    end: datetime
    window: str
    starts: Sequence[datetime]
    group_by: Sequence[str]
    filters: Mapping[str, str]


def check_question(asked: UsageQuestion, metric: Metric | None, now: datetime) -> UsageQuery:
    """The query; InvalidArgumentError names every field that is wrong and what is allowed.

    `from` defaults to the start of this month in the time zone, `to` to the end of the running
    quarter of an hour, so that what has just been counted is in.
    """
    checks = FieldChecks()
    checks.require(metric is not None, "metric", "must be the key of a metric; there is no such")
    _check_texts(checks, asked)
    _check_names(checks, asked, metric)
    window = asked.window or windows.TOTAL
    start, end, starts = _check_range(checks, asked, window, now)
    checks.done()
    assert metric is not None
    return UsageQuery(
        metric=metric,
        customer_id=asked.customer_id,
        start=start,
        end=end,
        window=window,
        starts=starts,
        group_by=tuple(asked.group_by),
        filters=dict(asked.filters or {}),
    )


def _check_range(
    checks: FieldChecks, asked: UsageQuestion, window: str, now: datetime
) -> tuple[datetime, datetime, list[datetime]]:
    """From, to, and the starts of the windows between them."""
    before = len(checks.problems)
    zone = _zone(checks, asked.time_zone)
    listed = ", ".join(windows.WINDOWS)
    checks.require(window in windows.WINDOWS, "window", f"must be one of {listed}")
    _check_instant(checks, asked.start, "from")
    _check_instant(checks, asked.end, "to")
    start = asked.start or windows.month_start(now, zone)
    end = asked.end or quarter_of(now) + QUARTER
    if len(checks.problems) > before:
        return start, end, []
    if not checks.require(start < end, "from", f"must be before to ({end.isoformat()})"):
        return start, end, []
    starts = list(itertools.islice(windows.boundaries(start, end, window, zone), WINDOWS_MAX + 1))
    checks.require(
        len(starts) <= WINDOWS_MAX,
        "window",
        f"must cut the range into at most {WINDOWS_MAX:,} windows; take a longer one",
    )
    return start, end, starts


def _zone(checks: FieldChecks, name: str) -> ZoneInfo:
    known = not name or name in windows.zone_names()
    checks.require(known, "timezone", 'must be an IANA time zone such as "Europe/Berlin"')
    return ZoneInfo(name) if name and known else ZoneInfo("UTC")


def _check_instant(checks: FieldChecks, time: datetime | None, field: str) -> None:
    if time is not None:
        checks.require(EARLIEST <= time <= LATEST and is_quarter(time), field, f"must lie {_RANGE}")


def _check_texts(checks: FieldChecks, asked: UsageQuestion) -> None:
    """PostgreSQL has no U+0000, so nothing can be called so."""
    checks.require("\0" not in (asked.customer_id or ""), "customerId", "must not contain U+0000")
    values = (asked.filters or {}).values()
    checks.require(not any("\0" in value for value in values), "filter", "must not contain U+0000")


def _check_names(checks: FieldChecks, asked: UsageQuestion, metric: Metric | None) -> None:
    """Groups and filters have to be dimensions of the metric; of an unknown one nobody knows."""
    group_by = list(asked.group_by)
    checks.require(len(set(group_by)) == len(group_by), "groupBy", "must not name anything twice")
    if metric is None:
        return
    dimensions = metric.definition.dimensions
    _check_each(checks, group_by, "groupBy", (CUSTOMER_GROUP, *dimensions))
    _check_each(checks, asked.filters or {}, "filter", dimensions)


def _check_each(
    checks: FieldChecks,
    names: Collection[str],
    field: str,
    allowed: Sequence[str],
) -> None:
    wrong = [name for name in names if name not in allowed]
    listed = ", ".join(allowed) if allowed else "nothing: the metric has no dimensions"
    checks.require(
        not wrong, field, f'"{", ".join(wrong)[:200]}" is not allowed; allowed: {listed}'
    )


def too_many_rows(query: UsageQuery) -> InvalidArgumentError:
    """The error of a question whose answer would be too long."""
    field = "groupBy" if query.group_by else "window"
    message = (
        f"gives more than {ROWS_MAX:,} rows; take a longer window, a shorter range, a filter or "
        "fewer groups"
    )
    return InvalidArgumentError([FieldProblem(field, message)])


@dataclass(frozen=True, slots=True)
class Selection:
    """One customer's metrics over [start, end), in UTC."""

    customer_id: str
    metrics: Sequence[str]
    start: datetime
    end: datetime


def check_selections(selections: Sequence[Selection]) -> None:
    """InvalidArgumentError names every selection that is wrong."""
    checks = FieldChecks()
    checks.require(
        len(selections) <= SELECTIONS_MAX, "selections", f"must be at most {SELECTIONS_MAX:,}"
    )
    checks.require(
        sum(len(selection.metrics) for selection in selections) <= SELECTED_METRICS_MAX,
        "selections",
        f"must name at most {SELECTED_METRICS_MAX:,} metrics in all",
    )
    for number, selection in enumerate(selections[:SELECTIONS_MAX]):
        field = f"selections[{number}]"
        _check_instant(checks, selection.start, f"{field}.from")
        _check_instant(checks, selection.end, f"{field}.to")
        checks.require(selection.start < selection.end, f"{field}.from", "must be before to")
    checks.done()
