"""Every route of the framework: which RPC it becomes, and what its answer becomes."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.accounts.v1 import accounts_pb2 as accounts
from usageflow.aggregator.v1 import aggregator_pb2 as aggregator
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import ingest_pb2 as ingest
from usageflow.invoicer.v1 import invoicer_pb2 as invoicer
from usageflow.notifier.v1 import notifier_pb2 as notifier

from services.kit import errors
from services.kit.errors import FieldProblem
from tests.integration.gateway.conftest import ORGANIZATION_ID, Gateway, World

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


def at(day: int) -> Timestamp:
    """Midnight UTC of a day in January 2026."""
    time = Timestamp()
    time.FromDatetime(datetime(2026, 1, day, tzinfo=UTC))
    return time


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
CUSTOMER = invoicer.Customer(
    id="user/1", name="Ann", metadata_json='{"a":1.50}', time_zone="Asia/Tokyo", create_time=at(1)
)
CUSTOMER_JSON = {
    "id": "user/1",
    "name": "Ann",
    "email": None,
    "timezone": "Asia/Tokyo",
    "currency": None,
    "metadata": {"a": 1.5},
    "createdAt": "2026-01-01T00:00:00Z",
}
PLAN = invoicer.Plan(
    id="plan_1",
    version=2,
    name="Pro",
    currency="USD",
    base_price="100.00",
    billing_period=invoicer.BILLING_PERIOD_MONTHLY,
    metrics=[
        invoicer.MetricPrice(
            metric="API_CALL",
            model=invoicer.PRICING_MODEL_PER_UNIT,
            included_units="10000",
            unit_price="0.01",
        )
    ],
    create_time=at(1),
)
PLAN_JSON = {
    "id": "plan_1",
    "version": 2,
    "name": "Pro",
    "currency": "USD",
    "basePrice": "100.00",
    "billingPeriod": "MONTHLY",
    "metrics": [
        {
            "metric": "API_CALL",
            "model": "PER_UNIT",
            "includedUnits": "10000",
            "unitPrice": "0.01",
        }
    ],
    "createdAt": "2026-01-01T00:00:00Z",
}
NEW_PLAN_JSON = {
    "name": "Pro",
    "currency": "USD",
    "basePrice": 100.00,
    "metrics": [
        {"metric": "API_CALL", "model": "PER_UNIT", "includedUnits": 1e4, "unitPrice": "0.01"}
    ],
}
NEW_PLAN = invoicer.Plan(
    name="Pro",
    currency="USD",
    base_price="100.0",
    billing_period=invoicer.BILLING_PERIOD_MONTHLY,
    metrics=[
        invoicer.MetricPrice(
            metric="API_CALL",
            model=invoicer.PRICING_MODEL_PER_UNIT,
            included_units="10000.0",
            unit_price="0.01",
        )
    ],
)
SUBSCRIPTION = invoicer.Subscription(
    id="sub_1",
    customer_id="user_1",
    plan_id="plan_1",
    plan_version=1,
    status=invoicer.SUBSCRIPTION_STATUS_ACTIVE,
    billing_anchor=invoicer.BILLING_ANCHOR_CALENDAR,
    start_time=at(1),
    current_period_start_time=at(1),
    current_period_end_time=at(31),
    create_time=at(2),
)
SUBSCRIPTION_JSON = {
    "id": "sub_1",
    "customerId": "user_1",
    "planId": "plan_1",
    "planVersion": 1,
    "status": "ACTIVE",
    "billingAnchor": "CALENDAR",
    "startsAt": "2026-01-01T00:00:00Z",
    "currentPeriodStart": "2026-01-01T00:00:00Z",
    "currentPeriodEnd": "2026-01-31T00:00:00Z",
    "endsAt": None,
    "createdAt": "2026-01-02T00:00:00Z",
}
INVOICE = invoicer.Invoice(
    id="inv_1",
    number="INV-000001",
    customer_id="user_1",
    subscription_id="sub_1",
    status=invoicer.INVOICE_STATUS_PENDING,
    currency="USD",
    amount="120.03",
    period_start_time=at(1),
    period_end_time=at(31),
    create_time=at(31),
    lines=[
        invoicer.InvoiceLine(
            description="API_CALL",
            metric="API_CALL",
            quantity="12000",
            included_units="10000",
            unit_price="0.01",
            amount="20.00",
            period_start_time=at(1),
            period_end_time=at(31),
        )
    ],
)
INVOICE_JSON = {
    "id": "inv_1",
    "number": "INV-000001",
    "customerId": "user_1",
    "subscriptionId": "sub_1",
    "status": "PENDING",
    "currency": "USD",
    "amount": "120.03",
    "periodStart": "2026-01-01T00:00:00Z",
    "periodEnd": "2026-01-31T00:00:00Z",
    "createdAt": "2026-01-31T00:00:00Z",
    "failedPayments": 0,
    "lines": [
        {
            "description": "API_CALL",
            "metric": "API_CALL",
            "quantity": "12000",
            "includedUnits": "10000",
            "unitPrice": "0.01",
            "amount": "20.00",
            "periodStart": "2026-01-01T00:00:00Z",
            "periodEnd": "2026-01-31T00:00:00Z",
        }
    ],
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


@dataclass
class Case:
    """A request, the RPC that it becomes, and what its answer becomes."""

    method: str
    path: str
    rpc: str
    request: Message
    answer: Message
    expected: Any
    body: Any = None
    status: int = 200
    others: dict[str, Message] = field(default_factory=dict)


def page(item: Any) -> dict[str, Any]:
    """A list's answer with one element and a next page."""
    return {"data": [item], "nextCursor": "next"}


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
        "/api/customers",
        "PutCustomer",
        invoicer.PutCustomerRequest(
            customer=invoicer.Customer(
                id="user/1", time_zone="Asia/Tokyo", metadata_json='{"a":1.50}'
            )
        ),
        invoicer.PutCustomerResponse(customer=CUSTOMER, created=True),
        CUSTOMER_JSON,
        '{"id": "user/1", "timezone": "Asia/Tokyo", "metadata": {"a": 1.50}}',
        201,
    ),
    Case(
        "POST",
        "/api/customers",
        "PutCustomer",
        invoicer.PutCustomerRequest(customer=invoicer.Customer(id="user/1")),
        invoicer.PutCustomerResponse(customer=CUSTOMER),
        CUSTOMER_JSON,
        {"id": "user/1", "email": None},
        200,
    ),
    Case(
        "GET",
        "/api/customers",
        "ListCustomers",
        invoicer.ListCustomersRequest(page_size=20),
        invoicer.ListCustomersResponse(customers=[CUSTOMER], next_page_token="next"),
        page(CUSTOMER_JSON),
    ),
    Case(
        "GET",
        "/api/customers/user%2F1",
        "GetCustomer",
        invoicer.GetCustomerRequest(customer_id="user/1"),
        invoicer.GetCustomerResponse(customer=CUSTOMER),
        CUSTOMER_JSON,
    ),
    Case(
        "PATCH",
        "/api/customers/user%2F1",
        "PutCustomer",
        invoicer.PutCustomerRequest(
            customer=invoicer.Customer(id="user/1", time_zone="Asia/Tokyo"),
            update_fields=["email", "time_zone"],
        ),
        invoicer.PutCustomerResponse(customer=CUSTOMER),
        CUSTOMER_JSON,
        {"timezone": "Asia/Tokyo", "email": None},
        others={"GetCustomer": invoicer.GetCustomerResponse(customer=CUSTOMER)},
    ),
    Case(
        "POST",
        "/api/plans",
        "CreatePlan",
        invoicer.CreatePlanRequest(plan=NEW_PLAN),
        invoicer.CreatePlanResponse(plan=PLAN),
        PLAN_JSON,
        NEW_PLAN_JSON,
        201,
    ),
    Case(
        "POST",
        "/api/plans/plan_1/versions",
        "CreatePlanVersion",
        invoicer.CreatePlanVersionRequest(
            plan=invoicer.Plan(
                id="plan_1",
                name="P",
                currency="USD",
                base_price="0",
                billing_period=invoicer.BILLING_PERIOD_MONTHLY,
            )
        ),
        invoicer.CreatePlanVersionResponse(plan=PLAN),
        PLAN_JSON,
        {"name": "P", "currency": "USD"},
        201,
    ),
    Case(
        "GET",
        "/api/plans",
        "ListPlans",
        invoicer.ListPlansRequest(page_size=20),
        invoicer.ListPlansResponse(plans=[PLAN], next_page_token="next"),
        page(PLAN_JSON),
    ),
    Case(
        "GET",
        "/api/plans/plan_1?version=2",
        "GetPlan",
        invoicer.GetPlanRequest(plan_id="plan_1", version=2),
        invoicer.GetPlanResponse(plan=PLAN),
        PLAN_JSON,
    ),
    Case(
        "POST",
        "/api/plans/quote",
        "QuotePlan",
        invoicer.QuotePlanRequest(plan=NEW_PLAN, quantities={"API_CALL": "12000"}),
        invoicer.QuotePlanResponse(
            currency="USD",
            amount="120.00",
            lines=[
                invoicer.QuoteLine(
                    description="Base", quantity="1", amount="100.00", steps=["1 x 100.00"]
                )
            ],
        ),
        {
            "currency": "USD",
            "amount": "120.00",
            "lines": [
                {
                    "description": "Base",
                    "metric": None,
                    "quantity": "1",
                    "amount": "100.00",
                    "steps": ["1 x 100.00"],
                }
            ],
        },
        {"plan": NEW_PLAN_JSON, "quantities": {"API_CALL": 12000}},
    ),
    Case(
        "POST",
        "/api/subscriptions",
        "CreateSubscription",
        invoicer.CreateSubscriptionRequest(
            customer_id="user_1",
            plan_id="plan_1",
            start_time=at(1),
            billing_anchor=invoicer.BILLING_ANCHOR_ANNIVERSARY,
        ),
        invoicer.CreateSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
        {
            "customerId": "user_1",
            "planId": "plan_1",
            "startsAt": "2026-01-01T05:45:00+05:45",
            "billingAnchor": "ANNIVERSARY",
        },
        201,
    ),
    Case(
        "GET",
        "/api/subscriptions?customerId=user_1",
        "ListSubscriptions",
        invoicer.ListSubscriptionsRequest(customer_id="user_1", page_size=20),
        invoicer.ListSubscriptionsResponse(subscriptions=[SUBSCRIPTION], next_page_token="next"),
        page(SUBSCRIPTION_JSON),
    ),
    Case(
        "GET",
        "/api/subscriptions/sub_1",
        "GetSubscription",
        invoicer.GetSubscriptionRequest(subscription_id="sub_1"),
        invoicer.GetSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
    ),
    Case(
        "POST",
        "/api/subscriptions/sub_1/cancel",
        "CancelSubscription",
        invoicer.CancelSubscriptionRequest(subscription_id="sub_1"),
        invoicer.CancelSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
    ),
    Case(
        "POST",
        "/api/subscriptions/sub_1/resume",
        "ResumeSubscription",
        invoicer.ResumeSubscriptionRequest(subscription_id="sub_1"),
        invoicer.ResumeSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
        {},
    ),
    Case(
        "GET",
        "/api/invoices?customerId=user_1&subscriptionId=sub_1&status=PAID",
        "ListInvoices",
        invoicer.ListInvoicesRequest(
            customer_id="user_1",
            subscription_id="sub_1",
            status=invoicer.INVOICE_STATUS_PAID,
            page_size=20,
        ),
        invoicer.ListInvoicesResponse(invoices=[INVOICE], next_page_token="next"),
        page(INVOICE_JSON),
    ),
    Case(
        "GET",
        "/api/invoices/inv_1",
        "GetInvoice",
        invoicer.GetInvoiceRequest(invoice_id="inv_1"),
        invoicer.GetInvoiceResponse(invoice=INVOICE),
        INVOICE_JSON,
    ),
    Case(
        "POST",
        "/api/invoices/preview",
        "PreviewInvoice",
        invoicer.PreviewInvoiceRequest(subscription_id="sub_1"),
        invoicer.PreviewInvoiceResponse(
            invoice=invoicer.Invoice(
                customer_id="user_1",
                subscription_id="sub_1",
                status=invoicer.INVOICE_STATUS_DRAFT,
                currency="USD",
                amount="1.00",
                period_start_time=at(1),
                period_end_time=at(31),
            )
        ),
        INVOICE_JSON
        | {"id": None, "number": None, "status": "DRAFT", "amount": "1.00", "lines": []}
        | {"createdAt": None},
        {"subscriptionId": "sub_1"},
    ),
    Case(
        "POST",
        "/api/invoices/inv_1/pay",
        "PayInvoice",
        invoicer.PayInvoiceRequest(invoice_id="inv_1"),
        invoicer.PayInvoiceResponse(invoice=INVOICE),
        INVOICE_JSON,
    ),
    Case(
        "POST",
        "/api/invoices/inv_1/fail",
        "FailInvoice",
        invoicer.FailInvoiceRequest(invoice_id="inv_1"),
        invoicer.FailInvoiceResponse(invoice=INVOICE),
        INVOICE_JSON,
    ),
    Case(
        "POST",
        "/api/invoices/inv_1/void",
        "VoidInvoice",
        invoicer.VoidInvoiceRequest(invoice_id="inv_1"),
        invoicer.VoidInvoiceResponse(invoice=INVOICE),
        INVOICE_JSON,
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


def sent_body(body: Any) -> dict[str, Any]:
    """httpx's arguments for a body: JSON text as it is, anything else as JSON."""
    if isinstance(body, str):
        return {"content": body, "headers": {"Content-Type": "application/json"}}
    return {} if body is None else {"json": body}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_a_route_becomes_its_rpc(http: httpx.AsyncClient, world: World, case: Case) -> None:
    world.answers = {case.rpc: case.answer, **case.others}
    answer = await http.request(case.method, case.path, **sent_body(case.body))
    assert answer.status_code == case.status, answer.text
    assert world.requests[-1] == (case.rpc, case.request)
    assert world.callers[-1].organization_id == ORGANIZATION_ID
    assert (answer.json() if answer.content else None) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_every_route_refuses_unknown_parameters_and_fields(
    http: httpx.AsyncClient, world: World, case: Case
) -> None:
    path = case.path + ("&" if "?" in case.path else "?") + "surprise=1"
    answer = await http.request(case.method, path, **sent_body(case.body))
    assert [detail["field"] for detail in answer.json()["details"]] == ["surprise"]
    if case.method in ("POST", "PATCH"):
        body = {"surprise": 1} | (case.body if isinstance(case.body, dict) else {})
        answer = await http.request(case.method, case.path, json=body)
        assert answer.status_code == 400
        assert "surprise" in [detail["field"] for detail in answer.json()["details"]]
    assert world.requests == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_every_route_is_documented_as_it_is(http: httpx.AsyncClient, case: Case) -> None:
    document = (await http.get("/api/openapi.json")).json()
    asked = case.path.split("?")[0].split("/")
    operation = next(
        item[case.method.lower()]
        for path, item in sorted(document["paths"].items(), key=lambda found: "{" in found[0])
        if case.method.lower() in item and _fits(path.split("/"), asked)
    )
    assert operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}
    known = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
    given = {pair.partition("=")[0].partition("[")[0] for pair in _query(case.path)}
    assert given <= known
    answer = operation["responses"][str(case.status)]
    if case.expected is not None:
        _assert_fits(document, answer["content"]["application/json"]["schema"], case.expected)
    if isinstance(case.body, dict) and case.body:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        _assert_fits(document, body, case.body)
        with pytest.raises(AssertionError):
            _assert_fits(document, body, case.body | {"surprise": 1})


def _query(path: str) -> list[str]:
    return path.partition("?")[2].split("&") if "?" in path else []


_JSON_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def _assert_fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """The part of JSON Schema that our document uses."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"][name]
    if "oneOf" in schema:
        for one in schema["oneOf"]:
            if _JSON_TYPES.get(one.get("type", "object")) is not type(value):
                continue
            return _assert_fits(document, one, value)
        raise AssertionError((schema, value))
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    assert any(isinstance(value, _JSON_TYPES[one]) for one in types), (schema, value)  # type: ignore[arg-type]
    assert value in schema.get("enum", [value])
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= value.keys()
        extra = schema.get("additionalProperties", {})
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, extra)
            assert inner is not False, name
            if inner:
                _assert_fits(document, inner, item)
    if isinstance(value, list):
        for item in value:
            _assert_fits(document, schema["items"], item)
    return None


def _fits(template: list[str], path: list[str]) -> bool:
    return len(template) == len(path) and all(
        one == other or one.startswith("{") for one, other in zip(template, path, strict=True)
    )


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (
            errors.InvalidArgumentError([FieldProblem("key", "is wrong")]),
            400,
            "invalid_argument",
        ),
        (errors.NotFoundError("No such metric"), 404, "not_found"),
        (errors.ConflictError("It is taken"), 409, "conflict"),
        (errors.PreconditionError("It is void", reason="invoice_void"), 409, "invoice_void"),
        (errors.PermissionDeniedError("No", reason="missing_scope"), 403, "missing_scope"),
        (errors.OverloadedError("Later", retry_after_s=2.5), 429, "overloaded"),
        (errors.UnavailableError("10.0.0.1 refused", retry_after_s=2.5), 503, "unavailable"),
        (RuntimeError("a secret"), 500, "internal"),
    ],
)
async def test_a_services_error_becomes_its_status(
    http: httpx.AsyncClient, world: World, error: Exception, status: int, code: str
) -> None:
    world.answers["GetMetric"] = error
    answer = await http.get("/api/metrics/A")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["requestId"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert "10.0.0.1" not in answer.text
    if status in (429, 503):
        assert answer.headers["retry-after"] == "3"


async def test_a_services_field_problems_are_passed_on(
    http: httpx.AsyncClient, world: World
) -> None:
    problems = [FieldProblem("key", "is wrong"), FieldProblem("unit", "is too long")]
    world.answers["CreateMetric"] = errors.InvalidArgumentError(problems)
    answer = await http.post("/api/metrics", json={"key": "A"})
    assert answer.json()["details"] == [
        {"field": "key", "message": "is wrong"},
        {"field": "unit", "message": "is too long"},
    ]


async def test_a_change_of_an_unknown_customer_makes_none(
    http: httpx.AsyncClient, world: World
) -> None:
    world.answers["GetCustomer"] = errors.NotFoundError("No such customer")
    answer = await http.patch("/api/customers/nobody", json={"name": "N"})
    assert answer.status_code == 404
    assert [rpc for rpc, _request in world.requests] == ["GetCustomer"]


async def test_the_last_page_has_no_next_cursor(http: httpx.AsyncClient, world: World) -> None:
    world.answers["ListMetrics"] = aggregator.ListMetricsResponse()
    assert (await http.get("/api/metrics")).json() == {"data": [], "nextCursor": None}
