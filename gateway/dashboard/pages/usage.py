"""/dashboard/usage"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, TypeAlias, cast
from zoneinfo import ZoneInfo

from litestar import Response, get
from litestar.response import Stream

from gateway.dashboard import questions
from gateway.dashboard.charts.bars import Bars, Column, stacked
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes.metrics import Metric
from gateway.shapes.usage import Usage, UsageQuery, UsageRow, UsageSelection, selection_to_proto
from gateway.usage_csv import usage_csv
from services.kit.errors import InvalidArgumentError

Window: TypeAlias = Literal["15MIN", "HOUR", "DAY", "WEEK", "MONTH"]

TOP_MAX: Final = 10
STACKED_MAX: Final = 6
BARS_MAX: Final = 400
_OTHER: Final = "All others"
# Values of these add up, so that parts can stand on each other.
_ADDITIVE: Final = ("SUM", "COUNT")
_RANGES: Final[dict[str, tuple[str, Window]]] = {
    "24h": ("24 hours", "HOUR"),
    "7d": ("7 days", "DAY"),
    "30d": ("30 days", "DAY"),
    "month": ("This month", "DAY"),
    "12m": ("12 months", "MONTH"),
}
_WINDOW_NAMES: Final[dict[Window, str]] = {
    "15MIN": "15 minutes",
    "HOUR": "Hour",
    "DAY": "Day",
    "WEEK": "Week",
    "MONTH": "Month",
}
_LABELS: Final[dict[Window, str]] = {
    "15MIN": "%H:%M",
    "HOUR": "%H:%M",
    "DAY": "%-d %b",
    "WEEK": "%-d %b",
    "MONTH": "%b %Y",
}
_TITLES: Final[dict[Window, str]] = {
    "15MIN": "%a %-d %b, %H:%M",
    "HOUR": "%a %-d %b, %H:%M",
    "DAY": "%A, %-d %b %Y",
    "WEEK": "Week of %-d %b %Y",
    "MONTH": "%B %Y",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What the page is asked to show."""

    metric: Metric
    range_name: str
    start: datetime
    window: Window
    group_by: str
    customer_id: str

    def selection(self, zone: ZoneInfo) -> UsageQuery:
        """All of it as one figure."""
        return UsageQuery(
            metric=self.metric.key,
            customer_id=self.customer_id or None,
            from_=self.start,
            timezone=zone.key,
        )


@get("/dashboard/usage", include_in_schema=False)
async def show_usage(visit: Visited) -> Response[bytes]:
    """A metric's usage over time, and whose it is."""
    metrics = await questions.all_metrics(visit.calls)
    if not metrics:
        return visit.page("usage.html", metrics=[])
    question = _question(visit, metrics)
    try:
        total, chart, top = await _answers(visit, question)
    except InvalidArgumentError as error:
        return visit.page("usage.html", 400, metrics=metrics, question=question, refused=error)
    return visit.page(
        "usage.html",
        metrics=metrics,
        question=question,
        refused=None,
        chart=chart,
        total=total,
        top=top,
        ranges=_RANGES,
        windows=_WINDOW_NAMES,
        additive=question.metric.aggregation in _ADDITIVE,
    )


@get("/dashboard/usage.csv", include_in_schema=False)
async def export_usage(visit: Visited) -> Stream:
    """What the page shows, as CSV."""
    question = _question(visit, await questions.all_metrics(visit.calls))
    request = selection_to_proto(
        UsageSelection(
            metric=question.metric.key,
            customer_id=question.customer_id or None,
            from_=question.start,
            window=question.window,
            group_by=[question.group_by] if question.group_by else [],
            timezone=visit.zone.key,
        ),
        "",
    )
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    return Stream(await usage_csv(visit.calls, request), media_type="text/csv", headers=headers)


def _question(visit: Visit, metrics: Sequence[Metric]) -> Question:
    """What the query string asks for; what it does not know it shows as by default."""
    query = visit.request.query_params
    by_key = {metric.key: metric for metric in metrics}
    metric = by_key.get(query.get("metric", "")) or metrics[0]
    range_name = query.get("range", "7d")
    if range_name not in _RANGES:
        range_name = "7d"
    window = query.get("window", "")
    if window not in _WINDOW_NAMES or _too_many(range_name, window):
        window = _RANGES[range_name][1]
    group_by = query.get("groupBy", "")
    return Question(
        metric=metric,
        range_name=range_name,
        start=_start(visit, range_name),
        window=cast("Window", window),
        group_by=group_by if group_by in ("customerId", *metric.dimensions) else "",
        customer_id=query.get("customerId", ""),
    )


def _too_many(range_name: str, window: str) -> bool:
    days = {"24h": 1, "7d": 7, "30d": 30, "month": 31, "12m": 366}[range_name]
    a_day = {"15MIN": 96, "HOUR": 24}.get(window, 1)
    return days * a_day > BARS_MAX


def _start(visit: Visit, range_name: str) -> datetime:
    match range_name:
        case "24h":
            hour = visit.now.astimezone(visit.zone).replace(minute=0, second=0, microsecond=0)
            return hour - timedelta(hours=23)
        case "7d":
            return visit.days_ago(6)
        case "30d":
            return visit.days_ago(29)
        case "12m":
            year, month = visit.month.year, visit.month.month
            return visit.month.replace(year=year if month == 12 else year - 1, month=month % 12 + 1)
        case _:
            return visit.month


async def _answers(visit: Visit, question: Question) -> tuple[str, Bars, list[UsageRow]]:
    """The figure of all, the chart, and the largest groups."""
    selection = question.selection(visit.zone)
    top_by = question.group_by or "customerId"
    whole, windows, top = await questions.together(
        [
            questions.ask_usage(visit.calls, selection),
            questions.ask_usage(visit.calls, _windowed(selection, question.window)),
            questions.ask_usage(visit.calls, _largest(selection, top_by)),
        ]
    )
    total = whole.data[0].value if whole.data else "0"
    legend, parts = [question.metric.name or question.metric.key], [windows]
    if question.group_by and question.metric.aggregation in _ADDITIVE and top.data:
        groups = [row.group[question.group_by] for row in top.data[:STACKED_MAX]]
        legend = [group or "(none)" for group in groups]
        parts = await questions.together(
            [
                questions.ask_usage(
                    visit.calls,
                    _windowed(_only(selection, question.group_by, group), question.window),
                )
                for group in groups
            ]
        )
        rest = _rest(windows, parts)
        if any(Decimal(row.value) for row in rest.data):
            legend.append(_OTHER)
            parts.append(rest)
    columns = columns_of(parts, whole.from_, whole.to, question.window, visit.zone)
    return total, stacked(legend, columns, question.metric.unit), top.data


def _windowed(asked: UsageQuery, window: Window) -> UsageQuery:
    return _changed(asked, window=window)


def _largest(asked: UsageQuery, group_by: str) -> UsageQuery:
    return _changed(asked, group_by=[group_by], top=TOP_MAX)


def _only(asked: UsageQuery, group_by: str, value: str) -> UsageQuery:
    if group_by == "customerId":
        return _changed(asked, customer_id=value)
    return _changed(asked, filter={group_by: [value]})


def _changed(asked: UsageQuery, **changes: object) -> UsageQuery:
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return UsageQuery(**(fields | changes))


def _rest(whole: Usage, parts: Sequence[Usage]) -> Usage:
    """What is in the whole and in none of its parts."""
    known: dict[datetime, Decimal] = {}
    for part in parts:
        for row in part.data:
            known[row.start] = known.get(row.start, Decimal(0)) + Decimal(row.value)
    rows = [
        UsageRow(
            start=row.start,
            end=row.end,
            group={},
            value=str(max(Decimal(0), Decimal(row.value) - known.get(row.start, Decimal(0)))),
        )
        for row in whole.data
    ]
    return Usage(
        metric=whole.metric,
        from_=whole.from_,
        to=whole.to,
        as_of=whole.as_of,
        approximate=whole.approximate,
        data=rows,
        next_cursor=None,
    )


def columns_of(
    parts: Sequence[Usage], start: datetime, end: datetime, window: Window, zone: ZoneInfo
) -> list[Column]:
    """One column a window, also where nothing was used: a chart without gaps."""
    values = [{row.start: Decimal(row.value) for row in part.data} for part in parts]
    return [
        Column(
            label=at.astimezone(zone).strftime(_LABELS[window]),
            title=at.astimezone(zone).strftime(_TITLES[window]),
            values=[part.get(at, Decimal(0)) for part in values],
        )
        for at in _starts(start, end, window, zone)
    ]


def _starts(start: datetime, end: datetime, window: Window, zone: ZoneInfo) -> list[datetime]:
    """When the windows begin: days, weeks and months by the zone's calendar."""
    found: list[datetime] = []
    at = start.astimezone(zone)
    while at < end and len(found) < BARS_MAX:
        # An instant, whatever its zone is: rows are in UTC.
        found.append(at.astimezone(start.tzinfo))
        match window:
            case "15MIN":
                at = (at.astimezone(start.tzinfo) + timedelta(minutes=15)).astimezone(zone)
            case "HOUR":
                at = (at.astimezone(start.tzinfo) + timedelta(hours=1)).astimezone(zone)
            case "DAY":
                at = (at + timedelta(days=1)).replace(hour=0)
            case "WEEK":
                at = at + timedelta(days=7 - at.weekday())
            case "MONTH":
                at = (at.replace(day=1) + timedelta(days=32)).replace(day=1)
    return found


HANDLERS = [show_usage, export_usage]
