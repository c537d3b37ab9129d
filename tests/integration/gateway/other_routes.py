"""Cases of the routes that become RPCs of accounts, aggregator, ingest and notifier."""

from usageflow.accounts.v1 import accounts_pb2 as accounts
from usageflow.aggregator.v1 import aggregator_pb2 as aggregator
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import ingest_pb2 as ingest
from usageflow.notifier.v1 import notifier_pb2 as notifier

from tests.integration.gateway.route_cases import Case, at, page

METRIC = aggregator.Metric(
    key="AI_TOKEN",
    name="Tokens",
    unit="tokens",
    aggregation=aggregator.AGGREGATION_SUM,
    dimensions=["model"],
    create_time=at(1),
)
METRIC_JSON = {
    "key": "AI_TOKEN",
    "name": "Tokens",
    "unit": "tokens",
    "aggregation": "SUM",
    "dimensions": ["model"],
    "uniqueBy": None,
    "createdAt": "2026-01-01T00:00:00Z",
}
ENDPOINT = notifier.Endpoint(
    id="whe_1",
    url="https://a.example/hook",
    event_types=["invoice.created"],
    description="d",
    enabled=True,
    create_time=at(1),
)
ENDPOINT_JSON = {
    "id": "whe_1",
    "url": "https://a.example/hook",
    "events": ["invoice.created"],
    "description": "d",
    "enabled": True,
    "createdAt": "2026-01-01T00:00:00Z",
}
DELIVERY = notifier.Delivery(
    id="whd_1",
    event_id="whev_1",
    endpoint_id="whe_1",
    event_type="invoice.created",
    status=notifier.DELIVERY_STATUS_PENDING,
    next_attempt_time=at(2),
    attempts=[notifier.DeliveryAttempt(number=1, start_time=at(1), duration_ms=5, error="timeout")],
    create_time=at(1),
)
DELIVERY_JSON = {
    "id": "whd_1",
    "eventId": "whev_1",
    "endpointId": "whe_1",
    "type": "invoice.created",
    "status": "PENDING",
    "nextAttemptAt": "2026-01-02T00:00:00Z",
    "attempts": [
        {
            "number": 1,
            "startedAt": "2026-01-01T00:00:00Z",
            "durationMs": 5,
            "responseStatus": None,
            "error": "timeout",
            "responseBody": "",
        }
    ],
    "createdAt": "2026-01-01T00:00:00Z",
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
}
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
}
USAGE_ANSWER = aggregator.QueryUsageResponse(
    metric="AI_TOKEN",
    to=at(31),
    as_of=at(30),
    rows=[
        aggregator.UsageRow(
            start_time=at(1), end_time=at(2), group={"model": "gpt-4"}, value="1500"
        )
    ],
    **{"from": at(1)},
)
USAGE_JSON = {
    "metric": "AI_TOKEN",
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-01-31T00:00:00Z",
    "asOf": "2026-01-30T00:00:00Z",
    "data": [
        {
            "start": "2026-01-01T00:00:00Z",
            "end": "2026-01-02T00:00:00Z",
            "group": {"model": "gpt-4"},
            "value": "1500",
        }
    ],
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
        "GET",
        "/api/metrics?limit=1&cursor=c",
        "ListMetrics",
        aggregator.ListMetricsRequest(page_size=1, page_token="c"),
        aggregator.ListMetricsResponse(metrics=[METRIC], next_page_token="next"),
        page(METRIC_JSON),
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
            **{"from": at(1)},
        ),
        USAGE_ANSWER,
        USAGE_JSON,
    ),
    Case(
        "GET",
        "/api/usage?metric=AI_TOKEN",
        "QueryUsage",
        aggregator.QueryUsageRequest(metric="AI_TOKEN", window=aggregator.WINDOW_TOTAL),
        USAGE_ANSWER,
        USAGE_JSON,
    ),
    Case(
        "POST",
        "/api/webhooks",
        "CreateEndpoint",
        notifier.CreateEndpointRequest(
            url="https://a.example/hook", event_types=["invoice.created"], description="d"
        ),
        notifier.CreateEndpointResponse(endpoint=ENDPOINT, secret="whsec_1"),
        ENDPOINT_JSON | {"secret": "whsec_1"},
        {"url": "https://a.example/hook", "events": ["invoice.created"], "description": "d"},
        201,
    ),
    Case(
        "GET",
        "/api/webhooks",
        "ListEndpoints",
        notifier.ListEndpointsRequest(page_size=20),
        notifier.ListEndpointsResponse(endpoints=[ENDPOINT], next_page_token="next"),
        page(ENDPOINT_JSON),
    ),
    Case(
        "GET",
        "/api/webhooks/whe_1",
        "GetEndpoint",
        notifier.GetEndpointRequest(endpoint_id="whe_1"),
        notifier.GetEndpointResponse(endpoint=ENDPOINT),
        ENDPOINT_JSON,
    ),
    Case(
        "DELETE",
        "/api/webhooks/whe_1",
        "DeleteEndpoint",
        notifier.DeleteEndpointRequest(endpoint_id="whe_1"),
        notifier.DeleteEndpointResponse(),
        None,
        status=204,
    ),
    Case(
        "POST",
        "/api/webhooks/whe_1/rotate-secret",
        "RotateEndpointSecret",
        notifier.RotateEndpointSecretRequest(endpoint_id="whe_1"),
        notifier.RotateEndpointSecretResponse(secret="whsec_2"),
        {"id": "whe_1", "secret": "whsec_2"},
    ),
    Case(
        "POST",
        "/api/webhooks/whe_1/test",
        "TestEndpoint",
        notifier.TestEndpointRequest(endpoint_id="whe_1"),
        notifier.TestEndpointResponse(delivery=DELIVERY),
        DELIVERY_JSON,
    ),
    Case(
        "GET",
        "/api/webhooks/whe_1/deliveries?status=FAILED",
        "ListDeliveries",
        notifier.ListDeliveriesRequest(
            endpoint_id="whe_1", status=notifier.DELIVERY_STATUS_FAILED, page_size=20
        ),
        notifier.ListDeliveriesResponse(deliveries=[DELIVERY], next_page_token="next"),
        page(DELIVERY_JSON),
    ),
    Case(
        "POST",
        "/api/webhooks/deliveries/whd_1/replay",
        "ReplayDelivery",
        notifier.ReplayDeliveryRequest(delivery_id="whd_1"),
        notifier.ReplayDeliveryResponse(delivery=DELIVERY),
        DELIVERY_JSON,
    ),
    Case(
        "GET",
        "/api/organization",
        "GetOrganization",
        accounts.GetOrganizationRequest(),
        accounts.GetOrganizationResponse(
            organization=accounts.Organization(id="org_1", name="Acme", create_time=at(1))
        ),
        {"id": "org_1", "name": "Acme", "createdAt": "2026-01-01T00:00:00Z"},
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
        "/api/events?customerId=u&metric=AI_TOKEN&from=2026-01-01T00:00:00Z&to=2026-01-31T00:00:00Z",
        "ListEvents",
        ingest.ListEventsRequest(
            customer_id="u",
            metric="AI_TOKEN",
            to=at(31),
            page_size=20,
            **{"from": at(1)},  # type: ignore[arg-type]
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
]
