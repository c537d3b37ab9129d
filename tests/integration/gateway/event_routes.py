"""Cases of the routes that become RPCs of ingest."""

from typing import Any

from usageflow.ingest.v1 import ingest_pb2 as ingest

from tests.integration.gateway.route_cases import Case, at, page

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

CASES = [
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
