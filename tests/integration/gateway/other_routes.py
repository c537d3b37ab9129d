"""Cases of the routes that become RPCs of accounts, aggregator and ingest."""

from typing import Any

from usageflow.accounts.v1 import accounts_pb2 as accounts
from usageflow.aggregator.v1 import aggregator_pb2 as aggregator
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import ingest_pb2 as ingest

from tests.integration.gateway.route_cases import Case, at, page

ORGANIZATION = accounts.Organization(
    id="org_1",
    name="Acme",
    create_time=at(1),
    settings=accounts.OrganizationSettings(event_past_days=400, event_retention_days=500),
)
ORGANIZATION_JSON = {
    "id": "org_1",
    "name": "Acme",
    "settings": {"eventPastDays": 400, "eventRetentionDays": 500},
    "createdAt": "2026-01-01T00:00:00Z",
}
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
API_KEY = accounts.ApiKey(
    id="key_1",
    name="n",
    prefix="uf_test_abcd",
    mode=common_pb2.MODE_TEST,
    scopes=[accounts.SCOPE_TRACK],
    create_time=at(1),
)
API_KEY_JSON = {
    "id": "key_1",
    "name": "n",
    "prefix": "uf_test_abcd",
    "mode": "test",
    "scopes": ["track"],
    "createdAt": "2026-01-01T00:00:00Z",
    "expiresAt": None,
    "revokedAt": None,
    "usedAt": None,
    "successorId": None,
}
ROTATED_KEY = accounts.ApiKey()
ROTATED_KEY.CopyFrom(API_KEY)
ROTATED_KEY.use_time.CopyFrom(at(2))
ROTATED_KEY.successor_id = "key_2"
STORED_EVENT = ingest.StoredEvent(
    event_id="evt_1",
    metric="AI_TOKEN",
    amount="1500",
    time=at(1),
    metadata_json='{"model":"gpt-4"}',
    accept_time=at(2),
)
STORED_EVENT_JSON = {
    "id": "evt_1",
    "metric": "AI_TOKEN",
    "amount": "1500",
    "customerId": None,
    "timestamp": "2026-01-01T00:00:00Z",
    "metadata": {"model": "gpt-4"},
    "acceptedAt": "2026-01-02T00:00:00Z",
    "voidedAt": None,
    "voidReason": None,
}
VOIDED_EVENT = ingest.StoredEvent(void_time=at(3), void_reason="sent twice")
VOIDED_EVENT.MergeFrom(STORED_EVENT)
VOIDED_EVENT_JSON = STORED_EVENT_JSON | {
    "voidedAt": "2026-01-03T00:00:00Z",
    "voidReason": "sent twice",
}
VOIDED = ingest.VoidEventsResponse(
    receipts=[ingest.VoidReceipt(event_id="evt_1", status=ingest.VOID_STATUS_VOIDED)],
    usage_token="token",
)
# The field's name is a keyword of Python.
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
        "/api/organization",
        "GetOrganization",
        accounts.GetOrganizationRequest(),
        accounts.GetOrganizationResponse(
            organization=ORGANIZATION,
        ),
        ORGANIZATION_JSON,
    ),
    Case(
        "PATCH",
        "/api/organization",
        "UpdateOrganization",
        accounts.UpdateOrganizationRequest(name="Acme", event_past_days=400),
        accounts.UpdateOrganizationResponse(organization=ORGANIZATION),
        ORGANIZATION_JSON,
        {"name": "Acme", "settings": {"eventPastDays": 400}},
    ),
    Case(
        "PATCH",
        "/api/organization",
        "UpdateOrganization",
        accounts.UpdateOrganizationRequest(event_retention_days=90),
        accounts.UpdateOrganizationResponse(organization=ORGANIZATION),
        ORGANIZATION_JSON,
        {"settings": {"eventRetentionDays": 90}},
    ),
    Case(
        "POST",
        "/api/keys",
        "CreateApiKey",
        accounts.CreateApiKeyRequest(
            name="n", scopes=[accounts.SCOPE_TRACK, accounts.SCOPE_READ], expire_time=at(31)
        ),
        accounts.CreateApiKeyResponse(api_key=API_KEY, secret="uf_test_secret"),
        API_KEY_JSON | {"secret": "uf_test_secret"},
        {"name": "n", "scopes": ["track", "read"], "expiresAt": "2026-01-31T00:00:00Z"},
        201,
    ),
    Case(
        "GET",
        "/api/keys",
        "ListApiKeys",
        accounts.ListApiKeysRequest(page_size=20),
        accounts.ListApiKeysResponse(api_keys=[API_KEY], next_page_token="next"),
        page(API_KEY_JSON),
    ),
    Case(
        "GET",
        "/api/keys?limit=1",
        "ListApiKeys",
        accounts.ListApiKeysRequest(page_size=1),
        accounts.ListApiKeysResponse(api_keys=[ROTATED_KEY], next_page_token="next"),
        page(API_KEY_JSON | {"usedAt": "2026-01-02T00:00:00Z", "successorId": "key_2"}),
    ),
    Case(
        "POST",
        "/api/keys/key_0/rotate",
        "RotateApiKey",
        accounts.RotateApiKeyRequest(key_id="key_0", overlap_seconds=60),
        accounts.RotateApiKeyResponse(
            api_key=API_KEY, secret="uf_test_secret", old_api_key=ROTATED_KEY
        ),
        API_KEY_JSON | {"secret": "uf_test_secret"},
        {"overlapSeconds": 60},
        201,
    ),
    Case(
        "GET",
        "/api/audit?action=webhook.*&targetId=whe_1&keyId=key_1&from=2026-01-01T00:00:00Z"
        "&to=2026-01-31T00:00:00Z&limit=1&cursor=c",
        "ListAuditEvents",
        accounts.ListAuditEventsRequest(
            action="webhook.*",
            target_id="whe_1",
            key_id="key_1",
            from_time=at(1),
            to_time=at(31),
            page_size=1,
            page_token="c",
        ),
        accounts.ListAuditEventsResponse(
            events=[
                accounts.AuditEvent(
                    id="aud_1",
                    action="webhook.disabled",
                    target_id="whe_1",
                    time=at(1),
                    details_json='{"reason":"GONE"}',
                    number=7,
                    previous_hash="0a" * 32,
                    hash="0b" * 32,
                )
            ],
            next_page_token="next",
        ),
        page(
            {
                "id": "aud_1",
                "action": "webhook.disabled",
                "targetId": "whe_1",
                "keyId": None,
                "memberId": None,
                "requestId": None,
                "createdAt": "2026-01-01T00:00:00Z",
                "details": {"reason": "GONE"},
                "number": 7,
                "previousHash": "0a" * 32,
                "hash": "0b" * 32,
            }
        ),
    ),
    Case(
        "GET",
        "/api/audit?memberId=mem_1",
        "ListAuditEvents",
        accounts.ListAuditEventsRequest(key_id="mem_1", page_size=20),
        accounts.ListAuditEventsResponse(
            events=[
                accounts.AuditEvent(
                    id="aud_1", action="plan.created", key_id="mem_1", time=at(1), number=1
                )
            ]
        ),
        {
            "data": [
                {
                    "id": "aud_1",
                    "action": "plan.created",
                    "targetId": None,
                    "keyId": None,
                    "memberId": "mem_1",
                    "requestId": None,
                    "createdAt": "2026-01-01T00:00:00Z",
                    "details": {},
                    "number": 1,
                    "previousHash": "",
                    "hash": "",
                }
            ],
            "nextCursor": None,
        },
    ),
    Case(
        "GET",
        "/api/audit/verification?after=7",
        "VerifyAuditLog",
        accounts.VerifyAuditLogRequest(after_number=7),
        accounts.VerifyAuditLogResponse(number=9, head_number=9, hash="0c" * 32),
        {"number": 9, "headNumber": 9, "hash": "0c" * 32, "brokenNumber": None},
    ),
    Case(
        "POST",
        "/api/keys/key_1/revoke",
        "RevokeApiKey",
        accounts.RevokeApiKeyRequest(key_id="key_1"),
        accounts.RevokeApiKeyResponse(api_key=API_KEY),
        API_KEY_JSON,
    ),
    Case(
        "DELETE",
        "/api/keys/key_1",
        "RevokeApiKey",
        accounts.RevokeApiKeyRequest(key_id="key_1"),
        accounts.RevokeApiKeyResponse(api_key=API_KEY),
        None,
        status=204,
    ),
    Case(
        "GET",
        "/api/events?customerId=u&metric=AI_TOKEN&from=2026-01-01T00:00:00Z&to=2026-01-31T00:00:00Z"
        "&idempotencyKey=a+b",
        "ListEvents",
        ingest.ListEventsRequest(
            customer_id="u",
            metric="AI_TOKEN",
            idempotency_key="a b",
            to=at(31),
            page_size=20,
            **FROM,
        ),
        ingest.ListEventsResponse(events=[STORED_EVENT], next_page_token="next"),
        page(STORED_EVENT_JSON),
    ),
    Case(
        "GET",
        "/api/events/evt_1",
        "GetEvent",
        ingest.GetEventRequest(event_id="evt_1"),
        ingest.GetEventResponse(event=STORED_EVENT),
        STORED_EVENT_JSON,
    ),
    Case(
        "POST",
        "/api/events/evt_1/void",
        "GetEvent",
        ingest.GetEventRequest(event_id="evt_1"),
        ingest.GetEventResponse(event=VOIDED_EVENT),
        VOIDED_EVENT_JSON,
        {"reason": "sent twice"},
        others={"VoidEvents": VOIDED},
    ),
]
