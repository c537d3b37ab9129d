"""A link to the customer portal on a whole stack: one customer's, read-only, until revoked."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from usageflow.accounts.v1 import portal_pb2, portal_pb2_grpc
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from usageflow.invoicer.v1 import (
    documents_pb2,
    documents_pb2_grpc,
    invoicer_pb2,
    invoicer_pb2_grpc,
)

from cli.connection import Connection
from services.kit import clock
from tests.e2e.api import Api, new_organization, wait_for

ADA, BOB = "portal_ada", "portal_bob"
METRIC = "PORTAL"
INVOICES = invoicer_pb2_grpc.InvoicerServiceStub
USAGE = aggregator_pb2_grpc.AggregatorServiceStub
DOCUMENTS = documents_pb2_grpc.DocumentsServiceStub
PORTAL = portal_pb2_grpc.PortalServiceStub


class Billed:
    """A customer with an invoice."""

    def __init__(self, api: Api, customer_id: str) -> None:
        api.post("/api/customers", {"id": customer_id, "metadata": {"note": "internal"}})
        api.track(metric=METRIC, amount=7, customerId=customer_id)
        plan = api.post("/api/plans", {"name": "P", "currency": "USD", "basePrice": "9.00"})
        start = (clock.now() - timedelta(days=62)).strftime("%Y-%m-01T00:00:00Z")
        body = {"customerId": customer_id, "planId": plan["id"], "startsAt": start}
        self.subscription = api.post("/api/subscriptions", body)["id"]
        listed: list[dict[str, Any]] = []

        def invoiced() -> bool:
            listed[:] = api.get("/api/invoices", customerId=customer_id)["data"]
            return bool(listed)

        wait_for("an invoice", invoiced, 60)
        self.invoice = listed[0]["id"]
        self.link = api.post("/api/portal-links", {"customerId": customer_id})

    @property
    def token(self) -> str:
        return str(self.link["url"]).rpartition("=")[2]


@pytest.fixture(scope="module")
def api(stack: Connection) -> Api:
    return Api(stack.http, stack.api_key)


@pytest.fixture(scope="module")
def ada(api: Api) -> Billed:
    return Billed(api, ADA)


@pytest.fixture(scope="module")
def bob(api: Api) -> Billed:
    return Billed(api, BOB)


@pytest.fixture
def call(stack: Connection) -> Callable[..., Any]:
    """Calls an RPC with a link's token, past the gateway."""

    def calling(token: str, part: str, stub: Any, rpc: str, request: Any) -> Any:
        with grpc.insecure_channel(stack.grpc[part]) as channel:
            metadata = (("x-usageflow-session", token),)
            return getattr(stub(channel), rpc)(request, timeout=20, metadata=metadata)

    return calling


def test_a_link_reads_what_is_its_customers(ada: Billed, call: Callable[..., Any]) -> None:
    seen = call(
        ada.token, "invoicer", INVOICES, "GetCustomer",
        invoicer_pb2.GetCustomerRequest(customer_id=ADA),
    )  # fmt: skip
    assert (seen.customer.id, seen.customer.metadata_json) == (ADA, "")
    listed = call(
        ada.token, "invoicer", INVOICES, "ListInvoices",
        invoicer_pb2.ListInvoicesRequest(customer_id=ADA),
    )  # fmt: skip
    assert ada.invoice in [each.id for each in listed.invoices]
    pdf = call(
        ada.token, "invoicer", DOCUMENTS, "GetRenderedInvoice",
        documents_pb2.GetRenderedInvoiceRequest(invoice_id=ada.invoice),
    )  # fmt: skip
    assert pdf.content.startswith(b"%PDF")
    preview = call(
        ada.token, "invoicer", INVOICES, "PreviewInvoice",
        invoicer_pb2.PreviewInvoiceRequest(subscription_id=ada.subscription),
    )  # fmt: skip
    assert preview.invoice.customer_id == ADA


def test_a_link_does_not_reach_another_customer(
    ada: Billed, bob: Billed, call: Callable[..., Any]
) -> None:
    attempts = [
        ("invoicer", INVOICES, "GetInvoice", invoicer_pb2.GetInvoiceRequest(invoice_id=bob.invoice),
         "NOT_FOUND"),
        ("invoicer", DOCUMENTS, "GetRenderedInvoice",
         documents_pb2.GetRenderedInvoiceRequest(invoice_id=bob.invoice), "NOT_FOUND"),
        ("invoicer", INVOICES, "PreviewInvoice",
         invoicer_pb2.PreviewInvoiceRequest(subscription_id=bob.subscription), "NOT_FOUND"),
        ("invoicer", INVOICES, "ListInvoices", invoicer_pb2.ListInvoicesRequest(customer_id=BOB),
         "INVALID_ARGUMENT"),
        ("invoicer", INVOICES, "ListInvoices", invoicer_pb2.ListInvoicesRequest(),
         "INVALID_ARGUMENT"),
        ("invoicer", INVOICES, "ListSubscriptions", invoicer_pb2.ListSubscriptionsRequest(),
         "INVALID_ARGUMENT"),
        ("invoicer", INVOICES, "GetCustomer", invoicer_pb2.GetCustomerRequest(customer_id=BOB),
         "INVALID_ARGUMENT"),
        ("aggregator", USAGE, "QueryUsage", aggregator_pb2.QueryUsageRequest(metric=METRIC),
         "INVALID_ARGUMENT"),
        ("aggregator", USAGE, "QueryUsage",
         aggregator_pb2.QueryUsageRequest(metric=METRIC, customer_id=BOB), "INVALID_ARGUMENT"),
    ]  # fmt: skip
    for part, stub, rpc, request, code in attempts:
        with pytest.raises(grpc.RpcError) as refused:
            call(ada.token, part, stub, rpc, request)
        assert refused.value.code().name == code, (rpc, request)
    mixed = invoicer_pb2.ListInvoicesRequest(customer_id=ADA, subscription_id=bob.subscription)
    assert not call(ada.token, "invoicer", INVOICES, "ListInvoices", mixed).invoices


def test_a_link_changes_nothing_and_sees_nothing_else(
    ada: Billed, api: Api, call: Callable[..., Any]
) -> None:
    plan = invoicer_pb2.Plan(name="Cheap", currency="USD")
    link = portal_pb2.CreatePortalLinkRequest(customer_id=BOB)
    attempts = [
        ("invoicer", INVOICES, "PayInvoice",
         invoicer_pb2.PayInvoiceRequest(invoice_id=ada.invoice)),
        ("invoicer", INVOICES, "CreatePlan", invoicer_pb2.CreatePlanRequest(plan=plan)),
        ("invoicer", INVOICES, "ListCustomers", invoicer_pb2.ListCustomersRequest()),
        ("invoicer", INVOICES, "CancelSubscription",
         invoicer_pb2.CancelSubscriptionRequest(subscription_id=ada.subscription)),
        ("ingest", ingest_pb2_grpc.IngestServiceStub, "RecordEvents",
         ingest_pb2.RecordEventsRequest()),
        ("ingest", ingest_pb2_grpc.IngestServiceStub, "ListEvents",
         ingest_pb2.ListEventsRequest(customer_id=ADA)),
        ("accounts", PORTAL, "CreatePortalLink", link),
        ("accounts", PORTAL, "ListPortalLinks", portal_pb2.ListPortalLinksRequest()),
    ]  # fmt: skip
    for part, stub, rpc, request in attempts:
        with pytest.raises(grpc.RpcError) as refused:
            call(ada.token, part, stub, rpc, request)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, rpc
    assert api.get(f"/api/invoices/{ada.invoice}")["status"] == "PENDING"


def test_a_link_is_for_customers_that_there_are_and_of_ones_own(
    stack: Connection, stack_home: Path, ada: Billed, api: Api
) -> None:
    unknown = api.http.post("/api/portal-links", json={"customerId": "portal_nobody"})
    assert unknown.status_code == 404
    stranger = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    for answer in (
        stranger.http.post("/api/portal-links", json={"customerId": ADA}),
        stranger.http.delete(f"/api/portal-links/{ada.link['id']}"),
    ):
        assert answer.status_code == 404
    assert stranger.get("/api/portal-links")["data"] == []
    assert "url" not in api.get("/api/portal-links", customerId=ADA)["data"][0]
    long = api.http.post("/api/portal-links", json={"customerId": ADA, "expiresInSeconds": 2**22})
    assert [each["field"] for each in long.json()["details"]] == ["expiresInSeconds"]


def test_a_revoked_link_is_refused_by_every_service(
    stack: Connection, bob: Billed, api: Api, call: Callable[..., Any]
) -> None:
    browser = httpx.Client(base_url=stack.http, follow_redirects=True, trust_env=False, timeout=30)
    page = browser.get(bob.link["url"])
    assert (page.status_code, page.url.path, page.url.query) == (200, "/portal", b"")
    assert BOB in page.text
    assert ADA not in page.text
    asked = invoicer_pb2.ListInvoicesRequest(customer_id=BOB)
    call(bob.token, "invoicer", INVOICES, "ListInvoices", asked)
    api.ok(api.http.get("/api/portal-links"))
    assert api.http.delete(f"/api/portal-links/{bob.link['id']}").status_code == 204
    wait_for("the page's end", lambda: browser.get("/portal").status_code == 401, 30)

    def refused() -> bool:
        try:
            call(bob.token, "invoicer", INVOICES, "ListInvoices", asked)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
        return False

    wait_for("the service's refusal", refused, 30)
