"""Cases of the routes that become RPCs of aggregator."""

from typing import Any

from usageflow.aggregator.v1 import aggregator_pb2 as aggregator

from tests.integration.gateway.route_cases import Case, at, page

METRIC = aggregator.Metric(
    key="AI_TOKEN",
    name="Tokens",
    unit="tokens",
    aggregation=aggregator.AGGREGATION_SUM,
    dimensions=["model"],
    percentiles=True,
    create_time=at(1),
)
METRIC_JSON = {
    "key": "AI_TOKEN",
    "name": "Tokens",
    "unit": "tokens",
    "aggregation": "SUM",
    "dimensions": ["model"],
    "uniqueBy": None,
    "percentiles": True,
    "createdAt": "2026-01-01T00:00:00Z",
    "archivedAt": None,
    "rebuild": None,
}
REBUILT = aggregator.Metric(
    archive_time=at(3),
    rebuild=aggregator.MetricRebuild(
        state=aggregator.REBUILD_STATE_RUNNING,
        progress_percent=40,
        events_done=4,
        events_total=10,
        aggregation=aggregator.AGGREGATION_UNIQUE_COUNT,
        dimensions=["model"],
        unique_by="user",
        start_time=at(2),
    ),
)
REBUILT.MergeFrom(METRIC)
REBUILT_JSON = METRIC_JSON | {
    "archivedAt": "2026-01-03T00:00:00Z",
    "rebuild": {
        "state": "RUNNING",
        "progress": 40,
        "eventsDone": 4,
        "eventsTotal": 10,
        "aggregation": "UNIQUE_COUNT",
        "dimensions": ["model"],
        "uniqueBy": "user",
        "percentiles": False,
        "error": None,
        "startedAt": "2026-01-02T00:00:00Z",
        "endedAt": None,
    },
}

FROM: dict[str, Any] = {"from": at(1)}
USAGE_ANSWER = aggregator.QueryUsageResponse(
    metric="AI_TOKEN",
    to=at(31),
    as_of=at(30),
    rows=[
        aggregator.UsageRow(
            start_time=at(1), end_time=at(2), group={"model": "gpt-4"}, value="1500"
        )
    ],
    **FROM,
)
PERCENTILE_ANSWER = aggregator.QueryUsageResponse(approximate=True)
PERCENTILE_ANSWER.MergeFrom(USAGE_ANSWER)
USAGE_JSON = {
    "metric": "AI_TOKEN",
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-01-31T00:00:00Z",
    "asOf": "2026-01-30T00:00:00Z",
    "approximate": False,
    "data": [
        {
            "start": "2026-01-01T00:00:00Z",
            "end": "2026-01-02T00:00:00Z",
            "group": {"model": "gpt-4"},
            "value": "1500",
        }
    ],
    "nextCursor": None,
}

CASES = [
    Case(
        "POST",
        "/api/metrics",
        "CreateMetric",
        aggregator.CreateMetricRequest(
            metric=aggregator.Metric(
                key="AI_TOKEN", dimensions=["model"], aggregation=aggregator.AGGREGATION_SUM
            )
        ),
        aggregator.CreateMetricResponse(metric=METRIC),
        METRIC_JSON,
        {"key": "AI_TOKEN", "dimensions": ["model"]},
        201,
    ),
    Case(
        "POST",
        "/api/metrics",
        "CreateMetric",
        aggregator.CreateMetricRequest(
            metric=aggregator.Metric(
                key="USERS",
                aggregation=aggregator.AGGREGATION_UNIQUE_COUNT,
                unique_by="userId",
                percentiles=True,
            )
        ),
        aggregator.CreateMetricResponse(
            metric=aggregator.Metric(
                key="USERS",
                aggregation=aggregator.AGGREGATION_UNIQUE_COUNT,
                unique_by="userId",
                percentiles=True,
                create_time=at(1),
            )
        ),
        METRIC_JSON
        | {"key": "USERS", "name": "", "unit": "", "dimensions": []}
        | {"aggregation": "UNIQUE_COUNT", "uniqueBy": "userId"},
        {
            "key": "USERS",
            "aggregation": "UNIQUE_COUNT",
            "uniqueBy": "userId",
            "percentiles": True,
        },
        201,
    ),
    Case(
        "GET",
        "/api/metrics?limit=1&cursor=c",
        "ListMetrics",
        aggregator.ListMetricsRequest(page_size=1, page_token="c"),
        aggregator.ListMetricsResponse(metrics=[METRIC], next_page_token="next"),
        page(METRIC_JSON),
    ),
    Case(
        "GET",
        "/api/metrics?includeArchived=true",
        "ListMetrics",
        aggregator.ListMetricsRequest(page_size=20, include_archived=True),
        aggregator.ListMetricsResponse(metrics=[REBUILT], next_page_token="next"),
        page(REBUILT_JSON),
    ),
    Case(
        "PATCH",
        "/api/metrics/AI_TOKEN",
        "UpdateMetric",
        aggregator.UpdateMetricRequest(
            metric=aggregator.Metric(
                key="AI_TOKEN",
                aggregation=aggregator.AGGREGATION_UNIQUE_COUNT,
                unique_by="user",
                dimensions=["model"],
            ),
            update_fields=["aggregation", "dimensions", "unique_by"],
        ),
        aggregator.UpdateMetricResponse(metric=REBUILT),
        REBUILT_JSON,
        {"aggregation": "UNIQUE_COUNT", "dimensions": ["model"], "uniqueBy": "user"},
    ),
    Case(
        "PATCH",
        "/api/metrics/AI_TOKEN",
        "UpdateMetric",
        aggregator.UpdateMetricRequest(
            metric=aggregator.Metric(key="AI_TOKEN"),
            update_fields=["name", "unit", "percentiles"],
        ),
        aggregator.UpdateMetricResponse(metric=METRIC),
        METRIC_JSON,
        {"name": "", "unit": "", "percentiles": False},
    ),
    Case(
        "POST",
        "/api/metrics/AI_TOKEN/archive",
        "ArchiveMetric",
        aggregator.ArchiveMetricRequest(key="AI_TOKEN"),
        aggregator.ArchiveMetricResponse(metric=METRIC),
        METRIC_JSON,
    ),
    Case(
        "POST",
        "/api/metrics/AI_TOKEN/unarchive",
        "UnarchiveMetric",
        aggregator.UnarchiveMetricRequest(key="AI_TOKEN"),
        aggregator.UnarchiveMetricResponse(metric=METRIC),
        METRIC_JSON,
    ),
    Case(
        "GET",
        "/api/metrics/AI_TOKEN",
        "GetMetric",
        aggregator.GetMetricRequest(key="AI_TOKEN"),
        aggregator.GetMetricResponse(metric=METRIC),
        METRIC_JSON,
    ),
    Case(
        "GET",
        "/api/usage?metric=AI_TOKEN&customerId=u&from=2026-01-01T00:00:00Z&to=2026-01-31T00:00:00Z"
        "&window=DAY&groupBy=customerId,model&timezone=Asia/Tokyo&filter[model]=gpt-4",
        "QueryUsage",
        aggregator.QueryUsageRequest(
            metric="AI_TOKEN",
            customer_id="u",
            to=at(31),
            window=aggregator.WINDOW_DAY,
            group_by=["customerId", "model"],
            time_zone="Asia/Tokyo",
            filters={"model": "gpt-4"},
            **FROM,
        ),
        USAGE_ANSWER,
        USAGE_JSON,
    ),
    Case(
        "GET",
        "/api/usage?metric=AI_TOKEN&percentile=P95&filter[model]=a,b&filter[region]=eu"
        "&filter[region]=&filter[region]=us",
        "QueryUsage",
        aggregator.QueryUsageRequest(
            metric="AI_TOKEN",
            window=aggregator.WINDOW_TOTAL,
            percentile=aggregator.PERCENTILE_P95,
            filters={"model": "a,b"},
            filters_any={"region": aggregator.FilterValues(values=["eu", "", "us"])},
        ),
        PERCENTILE_ANSWER,
        USAGE_JSON | {"approximate": True},
    ),
    Case(
        "GET",
        "/api/usage?metric=AI_TOKEN&usageToken=abc",
        "QueryUsage",
        aggregator.QueryUsageRequest(
            metric="AI_TOKEN", window=aggregator.WINDOW_TOTAL, usage_token="abc"
        ),
        USAGE_ANSWER,
        USAGE_JSON,
    ),
    Case(
        "GET",
        "/api/usage/activity?from=2026-01-01T00:00:00Z&to=2026-01-31T00:00:00Z",
        "GetActivity",
        aggregator.GetActivityRequest(to=at(31), **FROM),
        aggregator.GetActivityResponse(
            to=at(31),
            event_count=9,
            metrics=[aggregator.MetricActivity(metric="AI_TOKEN", event_count=7)],
            **FROM,
        ),
        {
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-31T00:00:00Z",
            "eventCount": 9,
            "data": [{"metric": "AI_TOKEN", "eventCount": 7}],
        },
    ),
    Case(
        "GET",
        "/api/usage/reconciliation",
        "GetReconciliation",
        aggregator.GetReconciliationRequest(),
        aggregator.GetReconciliationResponse(
            checked_until=at(2),
            difference_count=1,
            differences=[
                aggregator.ReconciliationDifference(
                    metric="AI_TOKEN",
                    hour=at(1),
                    accepted_count=2,
                    accepted_sum="0.3",
                    counted_count=1,
                    counted_sum="0.1",
                    find_time=at(2),
                )
            ],
        ),
        {
            "checkedUntil": "2026-01-02T00:00:00Z",
            "differenceCount": 1,
            "differences": [
                {
                    "metric": "AI_TOKEN",
                    "hour": "2026-01-01T00:00:00Z",
                    "acceptedCount": 2,
                    "acceptedSum": "0.3",
                    "countedCount": 1,
                    "countedSum": "0.1",
                    "foundAt": "2026-01-02T00:00:00Z",
                }
            ],
        },
    ),
]
