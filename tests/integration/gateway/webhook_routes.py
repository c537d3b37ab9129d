"""Cases of the routes that become RPCs of notifier."""

from usageflow.notifier.v1 import notifier_pb2 as notifier

from tests.integration.gateway.route_cases import Case, at, page

ENDPOINT = notifier.Endpoint(
    id="whe_1",
    url="https://a.example/hook",
    event_types=["invoice.created"],
    description="d",
    enabled=True,
    create_time=at(1),
    rate_limit=10,
    header_names=["authorization"],
    signature_kind=notifier.SIGNATURE_KIND_HMAC_SHA256,
)
DISABLED = notifier.Endpoint(
    id="whe_2",
    url="https://b.example/hook",
    create_time=at(1),
    signature_kind=notifier.SIGNATURE_KIND_ED25519,
    public_key="whpk_1",
    disabled_reason=notifier.DISABLED_REASON_FAILING,
    disable_time=at(9),
    failing_since_time=at(4),
    throttled_until_time=at(10),
)
ENDPOINT_JSON = {
    "id": "whe_1",
    "url": "https://a.example/hook",
    "events": ["invoice.created"],
    "description": "d",
    "enabled": True,
    "createdAt": "2026-01-01T00:00:00Z",
    "rateLimit": 10,
    "headerNames": ["authorization"],
    "signature": "HMAC_SHA256",
    "publicKey": None,
    "disabledReason": None,
    "disabledAt": None,
    "failingSince": None,
    "throttledUntil": None,
}
DISABLED_JSON = {
    "id": "whe_2",
    "url": "https://b.example/hook",
    "events": [],
    "description": "",
    "enabled": False,
    "createdAt": "2026-01-01T00:00:00Z",
    "rateLimit": 0,
    "headerNames": [],
    "signature": "ED25519",
    "publicKey": "whpk_1",
    "disabledReason": "FAILING",
    "disabledAt": "2026-01-09T00:00:00Z",
    "failingSince": "2026-01-04T00:00:00Z",
    "throttledUntil": "2026-01-10T00:00:00Z",
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
DELIVERY_SENT = notifier.Delivery()
DELIVERY_SENT.CopyFrom(DELIVERY)
DELIVERY_SENT.payload_json = '{"type":"invoice.created"}'
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

CASES = [
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
        "POST",
        "/api/webhooks",
        "CreateEndpoint",
        notifier.CreateEndpointRequest(
            url="https://b.example/hook",
            rate_limit=10,
            headers={"authorization": "Bearer x"},
            signature_kind=notifier.SIGNATURE_KIND_ED25519,
            secret="whsk_1",
        ),
        notifier.CreateEndpointResponse(endpoint=DISABLED),
        DISABLED_JSON | {"secret": None},
        {
            "url": "https://b.example/hook",
            "rateLimit": 10,
            "headers": {"authorization": "Bearer x"},
            "signature": "ED25519",
            "secret": "whsk_1",
        },
        201,
    ),
    Case(
        "PATCH",
        "/api/webhooks/whe_1",
        "UpdateEndpoint",
        notifier.UpdateEndpointRequest(
            endpoint_id="whe_1",
            url="https://c.example",
            event_types=notifier.EventTypes(values=["invoice.*"]),
            description="",
            enabled=False,
            rate_limit=0,
            headers=notifier.Headers(values={"x-a": "1"}),
        ),
        notifier.UpdateEndpointResponse(endpoint=ENDPOINT),
        ENDPOINT_JSON,
        {
            "url": "https://c.example",
            "events": ["invoice.*"],
            "description": "",
            "enabled": False,
            "rateLimit": 0,
            "headers": {"x-a": "1"},
        },
    ),
    Case(
        "PATCH",
        "/api/webhooks/whe_1",
        "UpdateEndpoint",
        notifier.UpdateEndpointRequest(
            endpoint_id="whe_1", event_types=notifier.EventTypes(), headers=notifier.Headers()
        ),
        notifier.UpdateEndpointResponse(endpoint=ENDPOINT),
        ENDPOINT_JSON,
        {"events": [], "headers": {}},
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
        {"id": "whe_1", "secret": "whsec_2", "publicKey": None},
    ),
    Case(
        "POST",
        "/api/webhooks/whe_2/rotate-secret",
        "RotateEndpointSecret",
        notifier.RotateEndpointSecretRequest(
            endpoint_id="whe_2",
            signature_kind=notifier.SIGNATURE_KIND_ED25519,
            secret="whsk_1",
        ),
        notifier.RotateEndpointSecretResponse(public_key="whpk_2"),
        {"id": "whe_2", "secret": None, "publicKey": "whpk_2"},
        {"signature": "ED25519", "secret": "whsk_1"},
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
        "GET",
        "/api/webhooks/deliveries?endpointId=whe_1&type=invoice.*"
        "&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z",
        "ListDeliveries",
        notifier.ListDeliveriesRequest(
            endpoint_id="whe_1",
            event_type="invoice.*",
            from_time=at(1),
            to_time=at(2),
            page_size=20,
        ),
        notifier.ListDeliveriesResponse(deliveries=[DELIVERY], next_page_token="next"),
        page(DELIVERY_JSON),
    ),
    Case(
        "GET",
        "/api/webhooks/deliveries/whd_1",
        "GetDelivery",
        notifier.GetDeliveryRequest(delivery_id="whd_1"),
        notifier.GetDeliveryResponse(delivery=DELIVERY_SENT),
        DELIVERY_JSON | {"payload": {"type": "invoice.created"}},
    ),
    Case(
        "GET",
        "/api/webhooks/whe_1/stats?from=2026-01-01T00:00:00Z",
        "GetEndpointStats",
        notifier.GetEndpointStatsRequest(endpoint_id="whe_1", from_time=at(1)),
        notifier.GetEndpointStatsResponse(
            pending=1,
            succeeded=2,
            failed=3,
            oldest_pending_time=at(1),
            attempts=[
                notifier.AttemptCount(count=2),
                notifier.AttemptCount(error="timeout", count=30),
            ],
            duration_p50_ms=5,
            duration_p95_ms=6,
        ),
        {
            "pending": 1,
            "succeeded": 2,
            "failed": 3,
            "oldestPendingAt": "2026-01-01T00:00:00Z",
            "attempts": {"none": 2, "timeout": 30},
            "durationP50Ms": 5,
            "durationP95Ms": 6,
        },
    ),
    Case(
        "POST",
        "/api/webhooks/whe_1/replay",
        "ReplayDeliveries",
        notifier.ReplayDeliveriesRequest(endpoint_id="whe_1", scope=notifier.REPLAY_SCOPE_FAILED),
        notifier.ReplayDeliveriesResponse(replayed=3),
        {"replayed": 3, "nextCursor": None},
    ),
    Case(
        "POST",
        "/api/webhooks/whe_1/replay",
        "ReplayDeliveries",
        notifier.ReplayDeliveriesRequest(
            endpoint_id="whe_1",
            scope=notifier.REPLAY_SCOPE_MISSED,
            from_time=at(1),
            to_time=at(2),
            page_token="c",
        ),
        notifier.ReplayDeliveriesResponse(replayed=1000, next_page_token="next"),
        {"replayed": 1000, "nextCursor": "next"},
        {
            "scope": "MISSED",
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-02T00:00:00Z",
            "cursor": "c",
        },
    ),
    Case(
        "POST",
        "/api/webhooks/deliveries/whd_1/replay",
        "ReplayDelivery",
        notifier.ReplayDeliveryRequest(delivery_id="whd_1"),
        notifier.ReplayDeliveryResponse(delivery=DELIVERY),
        DELIVERY_JSON,
    ),
]
