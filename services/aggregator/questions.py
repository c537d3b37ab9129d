"""What may be asked about usage: limits, defaults, what is said of a wrong question. Pure."""

import functools
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from services.aggregator import windows
from services.aggregator.domain import CUSTOMER_GROUP, QUARTER, Metric, is_quarter, quarter_of
from services.aggregator.windows import EARLIEST, LATEST
from services.kit import pages
from services.kit.errors import FieldChecks, FieldProblem, InvalidArgumentError

WINDOWS_MAX = 10_000
ROWS_MAX = 20_000
PAGE_ROWS_MAX = 10_000
TOP_MAX = 1_000
# A group has up to 9 values; a value of a dimension is as long as the metadata may be.
TOKEN_CHARS_MAX = 128 * 1024
FILTER_VALUES_MAX = 100
# Of a hundred events, how many are at or below the figure.
PERCENTILES = {"P50": 50, "P95": 95, "P99": 99}
# Ranges cut into windows; of WINDOWS_MAX some 600 KB each.
GRIDS_REMEMBERED_MAX = 32
SELECTIONS_MAX = 1_000
SELECTED_METRICS_MAX = 20_000
MATCHES_MAX = 100

_RANGE = f"on a quarter of an hour between {EARLIEST:%Y-%m-%d} and {LATEST:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """A question as it was asked.

    None: not given; and so are `window`, `time_zone` and `percentile` "".
    """

    metric: str
    customer_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    window: str = ""
    group_by: Sequence[str] = ()
    time_zone: str = ""
    filters: Mapping[str, str] | None = None
    top: int = 0
    page_size: int = 0
    page_token: str = ""
    percentile: str = ""
    filters_any: Mapping[str, Sequence[str]] | None = None
    # Where the windows begin, in UTC; of BILLING_PERIOD only.
    window_starts: Sequence[datetime] = ()
    # What a test clock shows to those whom it is about; None: the real time.
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class LastRow:
    """The last row of the page before: the start of its window, and its group."""

    start: datetime
    group: Sequence[str]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A question that can be answered. Times in UTC; `starts` are those of the windows.

    `top`, `page_size` 0: all groups, all rows. `percentile` "": the metric's own figure.
    """

    metric: Metric
    customer_id: str | None
    start: datetime
    end: datetime
    window: str
    starts: Sequence[datetime]
    group_by: Sequence[str]
    filters: Mapping[str, str]
    top: int = 0
    page_size: int = 0
    after: LastRow | None = None
    percentile: str = ""
    filters_any: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def rows_max(self) -> int:
        """How many rows an answer has at most."""
        return self.top or self.page_size or ROWS_MAX


def check_question(asked: UsageQuestion, metric: Metric | None, now: datetime) -> UsageQuery:
    """The query; InvalidArgumentError names every field that is wrong and what is allowed.

    `from` defaults to the start of this month in the time zone, `to` to the end of the running
    quarter of an hour, so that what has just been counted is in.
    """
    checks = FieldChecks()
    checks.require(metric is not None, "metric", "must be the key of a metric; there is no such")
    _check_texts(checks, asked)
    _check_names(checks, asked, metric)
    _check_percentile(checks, asked.percentile, metric)
    window = asked.window or windows.TOTAL
    start, end, starts = _check_range(checks, asked, window, asked.now or now)
    _check_page(checks, asked, window)
    checks.done()
    assert metric is not None
    after = _last_row(asked, starts) if asked.page_token else None
    return UsageQuery(
        metric=metric,
        customer_id=asked.customer_id,
        start=start,
        end=end,
        window=window,
        starts=starts,
        group_by=tuple(asked.group_by),
        filters=dict(asked.filters or {}),
        top=asked.top,
        page_size=asked.page_size,
        after=after,
        percentile=asked.percentile,
        filters_any={name: tuple(values) for name, values in (asked.filters_any or {}).items()},
    )


def _check_percentile(checks: FieldChecks, percentile: str, metric: Metric | None) -> None:
    if not percentile:
        return
    listed = ", ".join(PERCENTILES)
    known = checks.require(percentile in PERCENTILES, "percentile", f"must be one of {listed}")
    if known and metric is not None:
        checks.require(
            metric.definition.percentiles,
            "percentile",
            'must be left out: the metric was not defined with "percentiles": true',
        )


def _check_page(checks: FieldChecks, asked: UsageQuestion, window: str) -> None:
    checks.require(0 <= asked.top <= TOP_MAX, "top", f"must be from 1 to {TOP_MAX:,}")
    checks.require(
        not asked.top or (bool(asked.group_by) and window == windows.TOTAL),
        "top",
        "needs groupBy, and window TOTAL",
    )
    checks.require(
        0 <= asked.page_size <= PAGE_ROWS_MAX, "limit", f"must be from 1 to {PAGE_ROWS_MAX:,}"
    )
    checks.require(not (asked.top and asked.page_size), "limit", "must be left out with top")
    checks.require(
        not asked.page_token or bool(asked.page_size),
        "cursor",
        "needs limit, as the page before",
    )


def page_token(row: LastRow) -> str:
    """What names the last row of a page."""
    return pages.encode_token(row.start.isoformat(), *row.group)


def _last_row(asked: UsageQuestion, starts: Sequence[datetime]) -> LastRow:
    start, *group = pages.decode_token(
        asked.page_token, 1 + len(asked.group_by), chars_max=TOKEN_CHARS_MAX
    )
    try:
        row = LastRow(datetime.fromisoformat(start), group)
    except ValueError:
        raise pages.invalid_token() from None
    if row.start not in starts or any("\0" in value for value in group):
        raise pages.invalid_token()
    return row


def _check_range(
    checks: FieldChecks, asked: UsageQuestion, window: str, now: datetime
) -> tuple[datetime, datetime, Sequence[datetime]]:
    """From, to, and the starts of the windows between them."""
    before = len(checks.problems)
    zone = _zone(checks, asked.time_zone)
    by_period = window == windows.BILLING_PERIOD
    listed = ", ".join((*windows.WINDOWS, windows.BILLING_PERIOD))
    checks.require(by_period or window in windows.WINDOWS, "window", f"must be one of {listed}")
    _check_window_starts(checks, asked.window_starts, by_period=by_period)
    _check_instant(checks, asked.start, "from")
    _check_instant(checks, asked.end, "to")
    start = asked.start or windows.month_start(now, zone)
    end = asked.end or quarter_of(now) + QUARTER
    if len(checks.problems) > before:
        return start, end, []
    if not checks.require(start < end, "from", f"must be before to ({end.isoformat()})"):
        return start, end, []
    if by_period:
        return start, end, [start, *(each for each in asked.window_starts if start < each < end)]
    starts = _starts(start, end, window, zone)
    checks.require(
        len(starts) <= WINDOWS_MAX,
        "window",
        f"must cut the range into at most {WINDOWS_MAX:,} windows; take a longer one",
    )
    return start, end, starts


@functools.lru_cache(maxsize=GRIDS_REMEMBERED_MAX)
def _starts(start: datetime, end: datetime, window: str, zone: ZoneInfo) -> Sequence[datetime]:
    """Where windows begin, up to one more than WINDOWS_MAX: of a month by hour in New York as much
    work as all the rest of the question, and the same for each customer of a page.
    """
    return tuple(itertools.islice(windows.boundaries(start, end, window, zone), WINDOWS_MAX + 1))


def _check_window_starts(
    checks: FieldChecks, starts: Sequence[datetime], *, by_period: bool
) -> None:
    field = "windowStarts"
    if not by_period:
        checks.require(not starts, field, f"must be left out but for {windows.BILLING_PERIOD}")
        return
    few = 1 <= len(starts) < WINDOWS_MAX
    if checks.require(few, field, f"must be from 1 to {WINDOWS_MAX - 1:,}"):
        ascending = all(one < other for one, other in itertools.pairwise(starts))
        checks.require(ascending, field, "must ascend")
        right = all(EARLIEST <= each <= LATEST and is_quarter(each) for each in starts)
        checks.require(right, field, f"must lie {_RANGE}")


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
    lists = list((asked.filters_any or {}).values())
    few = all(1 <= len(values) <= FILTER_VALUES_MAX for values in lists)
    checks.require(few, "filter", f"must have 1 to {FILTER_VALUES_MAX} values for a dimension")
    values = itertools.chain((asked.filters or {}).values(), *lists)
    checks.require(not any("\0" in value for value in values), "filter", "must not contain U+0000")


def _check_names(checks: FieldChecks, asked: UsageQuestion, metric: Metric | None) -> None:
    """Groups and filters have to be dimensions of the metric; of an unknown one nobody knows."""
    group_by = list(asked.group_by)
    checks.require(len(set(group_by)) == len(group_by), "groupBy", "must not name anything twice")
    if metric is None:
        return
    dimensions = metric.definition.dimensions
    _check_each(checks, group_by, "groupBy", (CUSTOMER_GROUP, *dimensions))
    filtered = dict.fromkeys([*(asked.filters or {}), *(asked.filters_any or {})])
    _check_each(checks, filtered, "filter", dimensions)


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
    """One customer's metrics over [start, end), in UTC.

    `splits`: of metrics that are also wanted in parts, what fits into each.
    """

    customer_id: str
    metrics: Sequence[str]
    start: datetime
    end: datetime
    splits: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)


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
        where = f"selections[{number}]"
        _check_instant(checks, selection.start, f"{where}.from")
        _check_instant(checks, selection.end, f"{where}.to")
        checks.require(selection.start < selection.end, f"{where}.from", "must be before to")
        _check_splits(checks, selection, f"{where}.splits")
    checks.done()


def _check_splits(checks: FieldChecks, selection: Selection, name: str) -> None:
    for metric, matches in selection.splits.items():
        checks.require(metric in selection.metrics, name, "must name metrics of the selection")
        few = 1 <= len(matches) <= MATCHES_MAX
        checks.require(few, name, f"must have 1 to {MATCHES_MAX} matches each")
        texts = [text for match in matches for pair in match.items() for text in pair]
        checks.require(not any("\0" in text for text in texts), name, "must not contain U+0000")
