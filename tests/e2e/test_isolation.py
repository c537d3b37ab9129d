"""Two organizations, and the two modes of one, see nothing of each other: HTTP and gRPC."""

import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.accounts.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    portal_pb2,
    portal_pb2_grpc,
)
from usageflow.aggregator.v1 import (
    aggregator_pb2,
    aggregator_pb2_grpc,
    live_pb2,
    live_pb2_grpc,
    quotas_pb2,
    quotas_pb2_grpc,
)
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from usageflow.invoicer.v1 import (
    billing_terms_pb2,
    billing_terms_pb2_grpc,
    budgets_pb2,
    budgets_pb2_grpc,
    credits_pb2,
    credits_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    invoicer_pb2,
    invoicer_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
    subscription_changes_pb2,
    subscription_changes_pb2_grpc,
    test_clocks_pb2,
    test_clocks_pb2_grpc,
)
from usageflow.notifier.v1 import notifier_pb2, notifier_pb2_grpc

from cli.connection import Connection
from tests.e2e.api import (
    Api,
    first_organization_id,
    issue_key,
    new_key,
    new_organization,
    wait_for,
)
from tests.integration.gateway.test_roles import RPCS

CUSTOMER = "shared_customer_id"
CREDITS = f"/api/customers/{CUSTOMER}/credits"
METRIC = "ISOLATION"
# A metric that no stranger has one of the same name of.
OURS = "ISOLATION_OURS"


class Ours:
    """What an organization has made: the ids of one thing of each kind."""

    def __init__(self, api: Api) -> None:
        api.post("/api/metrics", {"key": METRIC})
        api.post("/api/metrics", {"key": OURS})
        event = api.track(new_key(), metric=METRIC, amount=7, customerId=CUSTOMER).json()
        self.event = event["eventId"]
        plan = {"name": "P", "currency": "USD", "basePrice": "1.00", "metrics": []}
        self.plan = api.post("/api/plans", plan)["id"]
        subscription = {
            "customerId": CUSTOMER,
            "planId": self.plan,
            "startsAt": "2026-01-01T00:00:00Z",
        }
        self.subscription = api.post("/api/subscriptions", subscription)["id"]
        discount = {"percent": "10"}
        path = f"/api/subscriptions/{self.subscription}/discounts"
        self.discount = api.post(path, discount)["id"]
        charge = {"customerId": CUSTOMER, "description": "D", "unitPrice": "1.00"}
        self.charge = api.post("/api/charges", charge)["id"]
        path = f"/api/subscriptions/{self.subscription}/budget"
        api.ok(api.http.put(path, json={"amount": "1000"}))
        rate = {"name": "VAT", "percent": "0"}
        self.rate = api.post("/api/tax-rates", rate)["id"]
        grant = {"amount": "0.01", "currency": "USD"}
        path = f"/api/customers/{CUSTOMER}/credits/grants"
        self.grant = api.post(path, grant)["id"]
        hook = {"url": "http://127.0.0.1:9/", "events": ["invoice.created"]}
        self.endpoint = api.post("/api/webhooks", hook)["id"]
        self.clock = api.post("/api/test-clocks", {"customerId": "on-a-clock"})["id"]
        self.key = api.post("/api/keys", {"name": "k", "scopes": ["read"]})["id"]
        self.portal_link = api.post("/api/portal-links", {"customerId": CUSTOMER})["id"]

        def invoices() -> list[dict[str, Any]]:
            return list(api.get("/api/invoices", subscriptionId=self.subscription)["data"])

        wait_for("an invoice", invoices, 60)
        self.invoice = invoices()[0]["id"]
        credit = {"reason": "R", "lines": [{"line": 1, "amount": "0.10"}]}
        path = f"/api/invoices/{self.invoice}/credit-notes"
        self.credit_note = api.post(path, credit)["id"]

        def deliveries() -> list[dict[str, Any]]:
            return list(api.get(f"/api/webhooks/{self.endpoint}/deliveries")["data"])

        wait_for("a delivery", deliveries, 60)
        self.delivery = deliveries()[0]["id"]
        api.await_usage("7", metric=METRIC)
        quota = {"metric": METRIC, "customerId": CUSTOMER, "limit": "10"}
        self.quota = api.post("/api/quotas", quota)["id"]
        units = {"metric": METRIC, "customerId": CUSTOMER, "amount": 1, "ttlSeconds": 86_400}
        self.reservation = api.post("/api/quotas/reservations", units)["id"]


@pytest.fixture(scope="module")
def ours(stack: Connection) -> Ours:
    return Ours(Api(stack.http, stack.api_key))


@pytest.fixture(scope="module", params=["another organization", "the same one's live mode"])
def stranger_key(request: pytest.FixtureRequest, stack: Connection, stack_home: Path) -> str:
    accounts = stack.grpc["accounts"]
    if request.param == "another organization":
        return new_organization(stack_home, accounts)
    organization_id = first_organization_id(stack_home)
    return issue_key(stack_home, accounts, organization_id, common_pb2.MODE_LIVE)


@pytest.fixture
def stranger(stack: Connection, stranger_key: str) -> Api:
    return Api(stack.http, stranger_key)


LISTS = ["events", "metrics", "customers", "plans", "subscriptions", "invoices", "webhooks"]
LISTS += ["webhooks/deliveries", "quotas", "charges", "tax-rates"]
LISTS += ["credit-notes", "portal-links", "test-clocks"]


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_a_stranger_are_empty(ours: Ours, stranger: Api, name: str) -> None:
    assert stranger.get(f"/api/{name}")["data"] == []


def test_the_audit_log_of_a_stranger_tells_of_none_of_ours(
    ours: Ours, stack: Connection, stranger: Api
) -> None:
    """A stranger has its own: of the key that it calls with, at least."""
    api = Api(stack.http, stack.api_key)
    mine = (ours.key, ours.endpoint)
    for target_id in mine:
        wait_for("an entry", lambda: api.get("/api/audit", targetId=target_id)["data"], 30)  # noqa: B023
        assert stranger.get("/api/audit", targetId=target_id)["data"] == []
    theirs = [event["targetId"] for event in stranger.get("/api/audit", limit="100")["data"]]
    assert theirs
    assert not set(mine) & set(theirs)


def test_the_issuer_of_a_stranger_is_its_own(ours: Ours, stack: Connection, stranger: Api) -> None:
    api = Api(stack.http, stack.api_key)
    api.ok(api.http.put("/api/issuer", json={"name": "Ours"}))
    assert stranger.get("/api/issuer")["name"] != "Ours"
    assert stranger.http.put("/api/issuer", json={"name": "Theirs"}).is_success
    assert api.get("/api/issuer")["name"] == "Ours"


def test_usage_of_a_stranger_is_empty(ours: Ours, stranger: Api) -> None:
    stranger.http.post("/api/metrics", json={"key": METRIC})
    assert stranger.usage(METRIC) == "0"
    assert stranger.usage(METRIC, customerId=CUSTOMER) == "0"


def test_a_stranger_is_told_of_their_own_activity_only(
    ours: Ours, stack: Connection, stranger: Api, stranger_key: str
) -> None:
    stranger.track(new_key(), metric="THEIR_ACTIVITY")
    activity: list[dict[str, Any]] = []

    def counted() -> list[dict[str, Any]]:
        activity[:] = stranger.get("/api/usage/activity")["data"]
        return [each for each in activity if each["metric"] == "THEIR_ACTIVITY"]

    wait_for("their activity", counted, 30)
    assert METRIC not in [each["metric"] for each in activity]
    with grpc.insecure_channel(stack.grpc["aggregator"]) as channel:
        answer = aggregator_pb2_grpc.AggregatorServiceStub(channel).GetActivity(
            aggregator_pb2.GetActivityRequest(),
            timeout=10,
            metadata=(("x-usageflow-api-key", stranger_key),),
        )
    assert METRIC not in [each.metric for each in answer.metrics]


def test_live_usage_of_a_stranger_is_empty(
    ours: Ours, stack: Connection, stranger: Api, stranger_key: str
) -> None:
    stranger.http.post("/api/metrics", json={"key": METRIC})
    path = f"/api/usage/live?metric={METRIC}&customerId={CUSTOMER}"
    with stranger.http.stream("GET", path) as response:
        data = next(line for line in response.iter_lines() if line.startswith("data: "))
    assert [row["value"] for row in json.loads(data.removeprefix("data: "))["data"]] == ["0"]
    question = aggregator_pb2.QueryUsageRequest(metric=METRIC)
    with grpc.insecure_channel(stack.grpc["aggregator"]) as channel:
        watch = live_pb2_grpc.LiveUsageServiceStub(channel).WatchUsage(
            live_pb2.WatchUsageRequest(question=question),
            timeout=10,
            metadata=(("x-usageflow-api-key", stranger_key),),
        )
        assert [row.value for row in next(iter(watch)).usage.rows] == ["0"]
        watch.cancel()


ROUTES = [
    ("GET", "/api/events/{event}"),
    ("POST", "/api/events/{event}/void"),
    ("GET", "/api/metrics/" + OURS),
    ("PATCH", "/api/metrics/" + OURS),
    ("POST", "/api/metrics/" + OURS + "/archive"),
    ("POST", "/api/metrics/" + OURS + "/unarchive"),
    ("GET", "/api/customers/" + CUSTOMER),
    ("PATCH", "/api/customers/" + CUSTOMER),
    ("GET", "/api/plans/{plan}"),
    ("POST", "/api/plans/{plan}/versions"),
    ("GET", "/api/subscriptions/{subscription}"),
    ("GET", "/api/subscriptions/{subscription}/periods"),
    ("POST", "/api/subscriptions/{subscription}/cancel"),
    ("POST", "/api/subscriptions/{subscription}/change"),
    ("POST", "/api/subscriptions/{subscription}/change/preview"),
    ("POST", "/api/plans/{plan}/migrate"),
    ("POST", "/api/subscriptions/{subscription}/uncancel"),
    ("POST", "/api/subscriptions/{subscription}/pause"),
    ("POST", "/api/subscriptions/{subscription}/resume"),
    ("POST", "/api/subscriptions/{subscription}/discounts"),
    ("GET", "/api/subscriptions/{subscription}/discounts"),
    ("PUT", "/api/subscriptions/{subscription}/budget"),
    ("GET", "/api/subscriptions/{subscription}/budget"),
    ("DELETE", "/api/subscriptions/{subscription}/budget"),
    ("POST", "/api/discounts/{discount}/end"),
    ("GET", "/api/charges/{charge}"),
    ("POST", "/api/invoices/{invoice}/credit-notes"),
    ("GET", "/api/credit-notes/{credit_note}"),
    ("GET", "/api/tax-rates/{rate}"),
    ("GET", "/api/customers/" + CUSTOMER + "/tax-rates"),
    ("PUT", "/api/customers/" + CUSTOMER + "/tax-rates"),
    ("GET", CREDITS),
    ("GET", CREDITS + "/grants"),
    ("POST", CREDITS + "/grants"),
    ("POST", CREDITS + "/grants/{grant}/void"),
    ("POST", CREDITS + "/debits"),
    ("PUT", CREDITS + "/low-balance"),
    ("GET", CREDITS + "/ledger"),
    ("DELETE", "/api/charges/{charge}"),
    ("GET", "/api/invoices/{invoice}"),
    ("GET", "/api/invoices/{invoice}/lines/1/events"),
    ("GET", "/api/invoices/{invoice}/html"),
    ("GET", "/api/invoices/{invoice}/pdf"),
    ("POST", "/api/invoices/{invoice}/pay"),
    ("POST", "/api/invoices/{invoice}/fail"),
    ("POST", "/api/invoices/{invoice}/void"),
    ("POST", "/api/invoices/{invoice}/collect"),
    ("GET", "/api/invoices/{invoice}/payments"),
    ("GET", "/api/customers/" + CUSTOMER + "/payment-method"),
    ("PUT", "/api/customers/" + CUSTOMER + "/payment-method"),
    ("DELETE", "/api/customers/" + CUSTOMER + "/payment-method"),
    ("GET", "/api/webhooks/{endpoint}"),
    ("PATCH", "/api/webhooks/{endpoint}"),
    ("DELETE", "/api/webhooks/{endpoint}"),
    ("POST", "/api/webhooks/{endpoint}/rotate-secret"),
    ("POST", "/api/webhooks/{endpoint}/test"),
    ("GET", "/api/webhooks/{endpoint}/deliveries"),
    ("GET", "/api/webhooks/{endpoint}/stats"),
    ("POST", "/api/webhooks/{endpoint}/replay"),
    ("GET", "/api/webhooks/deliveries/{delivery}"),
    ("POST", "/api/webhooks/deliveries/{delivery}/replay"),
    ("GET", "/api/quotas/{quota}"),
    ("DELETE", "/api/quotas/{quota}"),
    ("GET", "/api/quotas/reservations/{reservation}"),
    ("POST", "/api/quotas/reservations/{reservation}/commit"),
    ("POST", "/api/quotas/reservations/{reservation}/release"),
    ("POST", "/api/keys/{key}/rotate"),
    ("POST", "/api/keys/{key}/revoke"),
    ("GET", "/api/keys/{key}"),
    ("PATCH", "/api/keys/{key}"),
    ("DELETE", "/api/keys/{key}"),
    ("DELETE", "/api/portal-links/{portal_link}"),
    ("GET", "/api/test-clocks/{clock}"),
    ("POST", "/api/test-clocks/{clock}/advance"),
    ("DELETE", "/api/test-clocks/{clock}"),
]
# Both modes of an organization have the same people: test_people.py.
OF_PEOPLE = ("/api/members/", "/api/invitations/", "/api/sessions/")
BODIES: dict[str, Any] = {
    "/api/plans/{plan}/versions": {"name": "Q", "currency": "USD", "metrics": []},
    "/api/customers/" + CUSTOMER: {"name": "N"},
    "/api/subscriptions/{subscription}/discounts": {"percent": "10"},
    "/api/subscriptions/{subscription}/budget": {"amount": "1"},
    "/api/subscriptions/{subscription}/change": {"quantity": 2},
    "/api/test-clocks/{clock}/advance": {"to": "2100-01-01T00:00:00Z"},
    "/api/subscriptions/{subscription}/change/preview": {"quantity": 2},
    "/api/invoices/{invoice}/credit-notes": {"reason": "R"},
    "/api/customers/" + CUSTOMER + "/tax-rates": {"taxRateIds": []},
    CREDITS + "/grants": {"amount": "1", "currency": "USD"},
    CREDITS + "/debits": {"amount": "0.01", "currency": "USD", "reason": "R"},
    CREDITS + "/low-balance": {"lowBalance": "1", "currency": "USD"},
    "/api/customers/" + CUSTOMER + "/payment-method": {
        "stripeCustomer": "cus_1",
        "stripePaymentMethod": "pm_1",
    },
}


@pytest.mark.parametrize(("method", "route"), ROUTES, ids=[f"{m} {r}" for m, r in ROUTES])
def test_object_of_another_is_404_over_http(
    ours: Ours, stranger: Api, method: str, route: str
) -> None:
    body = BODIES.get(route, {}) if method in ("POST", "PATCH", "PUT") else None
    response = stranger.http.request(method, route.format(**vars(ours)), json=body)
    assert response.status_code == 404, response.text
    assert response.json()["code"] == "not_found"


def test_every_route_to_an_object_is_tried_by_a_stranger(stack: Connection) -> None:
    document = Api(stack.http, None).get("/api/openapi.json")
    there = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, item in document["paths"].items()
        for method in item
        if "{" in path and not path.startswith(OF_PEOPLE)
    }
    named = f"/({re.escape(CUSTOMER)}|{OURS}|lines/1)(?=/|$)"

    def bare(route: str) -> str:
        numbered = route.replace("/lines/1/", "/lines/{}/")
        return re.sub(r"\{\w+\}", "{}", re.sub(named, "/{}", numbered))

    assert {(method, bare(route)) for method, route in ROUTES} == there


def test_every_rpc_that_names_an_object_is_called_by_a_stranger(ours: Ours) -> None:
    called = {rpc for _part, _stub, rpc, _request in calls_by_id(ours)}
    naming = {
        method.name
        for _rpc, method in RPCS
        if any(
            field.name == "id" or field.name.endswith("_id")
            for field in method.input_type.fields
            if not field.is_repeated
        )
    }
    assert naming - called == OTHERWISE.keys()


def test_subscription_on_anothers_plan_is_refused(ours: Ours, stranger: Api) -> None:
    body = {"customerId": "c", "planId": ours.plan}
    response = stranger.http.post("/api/subscriptions", json=body)
    assert response.status_code in (400, 404), response.text


def test_settings_of_another_organization_stay(stack: Connection, stack_home: Path) -> None:
    """The setting belongs to the organization: both of its modes have it, nobody else."""
    other = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    before = Api(stack.http, stack.api_key).get("/api/organization")
    changed = other.http.patch("/api/organization", json={"settings": {"eventPastDays": 400}})
    assert changed.json()["settings"] == {
        "eventPastDays": 400,
        "eventRetentionDays": 400,
        "strictMetrics": False,
        "requestsPerSecond": 50_000,
        "eventsPerSecond": 1_000_000,
    }
    assert other.get("/api/organization") == changed.json()
    assert Api(stack.http, stack.api_key).get("/api/organization") == before


def test_anothers_usage_is_in_no_simulation(ours: Ours, stranger: Api) -> None:
    body = {"plan": {"currency": "USD", "basePrice": "1"}, "from": "2026-01", "to": "2026-01"}
    told = stranger.http.post("/api/plans/simulate", json=body)
    assert told.is_success, told.text
    assert CUSTOMER not in told.text
    response = stranger.http.post("/api/plans/simulate", json={**body, "planId": ours.plan})
    assert response.status_code == 404, response.text


def test_preview_of_anothers_subscription_is_404(ours: Ours, stranger: Api) -> None:
    body = {"subscriptionId": ours.subscription}
    response = stranger.http.post("/api/invoices/preview", json=body)
    assert response.status_code == 404, response.text


_PEOPLE = "both modes have the same people: test_people.py"
_FILTER = "a list, which is empty: the id only leaves more out"
_NAME = "names a customer, and each organization has one of that name"
OTHERWISE = {
    "GetMember": _PEOPLE,
    "UpdateMember": _PEOPLE,
    "RemoveMember": _PEOPLE,
    "FindInvitation": _PEOPLE,
    "RevokeInvitation": _PEOPLE,
    "RevokeSession": _PEOPLE,
    "ListAuditEvents": _FILTER,
    "ListCharges": _FILTER,
    "ListCreditNotes": _FILTER,
    "ListEvents": _FILTER,
    "ListInvoices": _FILTER,
    "ListPortalLinks": _FILTER,
    "ListQuotas": _FILTER,
    "ListSubscriptions": _FILTER,
    "ListTestClocks": _FILTER,
    "CheckQuota": _NAME,
    "ReserveQuota": _NAME,
    "QueryUsage": _NAME,
    "CreateCharge": _NAME,
    "CreatePortalLink": _NAME,
    "CreateTestClock": _NAME,
    "CreateSubscription": "test_subscription_on_anothers_plan_is_refused",
    "SimulatePlan": "test_anothers_usage_is_in_no_simulation",
}


def calls_by_id(ours: Ours) -> list[tuple[str, Any, str, Any]]:
    """(part, stub, RPC, request) of every RPC that takes an object's id."""
    invoicer, notifier = invoicer_pb2, notifier_pb2
    invoices = invoicer_pb2_grpc.InvoicerServiceStub
    hooks = notifier_pb2_grpc.NotifierServiceStub
    quotas, by_quota = quotas_pb2_grpc.QuotaServiceStub, {"id": ours.quota}
    metrics = aggregator_pb2_grpc.AggregatorServiceStub
    by_reservation = {"id": ours.reservation}
    plan = invoicer.Plan(id=ours.plan, name="Q", currency="USD")
    by_subscription = {"subscription_id": ours.subscription}
    get_subscription = invoicer.GetSubscriptionRequest(**by_subscription)
    by_invoice = {"invoice_id": ours.invoice}
    by_endpoint = {"endpoint_id": ours.endpoint}
    terms, term_stub = billing_terms_pb2, billing_terms_pb2_grpc.BillingTermsServiceStub
    discount = invoicer.Discount(percent="10")
    prepaid = credits_pb2_grpc.CreditsServiceStub
    by_customer: dict[str, Any] = {"customer_id": CUSTOMER}
    money = {**by_customer, "amount": "0.01", "currency": "USD"}
    clocks, clock_stub = test_clocks_pb2, test_clocks_pb2_grpc.TestClocksServiceStub
    by_clock = {"test_clock_id": ours.clock}
    payment_stub = payments_pb2_grpc.PaymentsServiceStub
    method = payments_pb2.PaymentMethod(stripe_customer="cus_1", stripe_payment_method="pm_1")
    change_stub = subscription_changes_pb2_grpc.SubscriptionChangesServiceStub
    change = subscription_changes_pb2.ChangeSubscriptionRequest(**by_subscription, quantity=2)
    budget_stub, budgets = budgets_pb2_grpc.BudgetsServiceStub, budgets_pb2
    return [
        ("invoicer", budget_stub, "SetBudget",
         budgets.SetBudgetRequest(**by_subscription, amount="1")),
        ("invoicer", budget_stub, "GetBudget", budgets.GetBudgetRequest(**by_subscription)),
        ("invoicer", budget_stub, "RemoveBudget", budgets.RemoveBudgetRequest(**by_subscription)),
        ("invoicer", term_stub, "CreateDiscount",
         terms.CreateDiscountRequest(subscription_id=ours.subscription, discount=discount)),
        ("invoicer", term_stub, "ListDiscounts", terms.ListDiscountsRequest(**by_subscription)),
        ("invoicer", term_stub, "EndDiscount",
         terms.EndDiscountRequest(discount_id=ours.discount)),
        ("invoicer", term_stub, "CreateCreditNote",
         terms.CreateCreditNoteRequest(invoice_id=ours.invoice, reason="R")),
        ("invoicer", term_stub, "GetCreditNote",
         terms.GetCreditNoteRequest(credit_note_id=ours.credit_note)),
        ("invoicer", term_stub, "GetTaxRate", terms.GetTaxRateRequest(tax_rate_id=ours.rate)),
        ("invoicer", term_stub, "AssignTaxRates",
         terms.AssignTaxRatesRequest(customer_id=CUSTOMER, inherit=True)),
        ("invoicer", term_stub, "GetAssignedTaxRates",
         terms.GetAssignedTaxRatesRequest(customer_id=CUSTOMER)),
        ("invoicer", prepaid, "GrantCredits", credits_pb2.GrantCreditsRequest(**money)),
        ("invoicer", prepaid, "ListCreditGrants",
         credits_pb2.ListCreditGrantsRequest(**by_customer)),
        ("invoicer", prepaid, "VoidCreditGrant",
         credits_pb2.VoidCreditGrantRequest(**by_customer, grant_id=ours.grant)),
        ("invoicer", prepaid, "DebitCredits",
         credits_pb2.DebitCreditsRequest(**money, reason="R")),
        ("invoicer", prepaid, "ListCreditBalances",
         credits_pb2.ListCreditBalancesRequest(**by_customer)),
        ("invoicer", prepaid, "SetLowCreditBalance",
         credits_pb2.SetLowCreditBalanceRequest(**by_customer, currency="USD")),
        ("invoicer", prepaid, "ListCreditEntries",
         credits_pb2.ListCreditEntriesRequest(**by_customer)),
        ("invoicer", term_stub, "GetCharge", terms.GetChargeRequest(charge_id=ours.charge)),
        ("invoicer", term_stub, "DeleteCharge", terms.DeleteChargeRequest(charge_id=ours.charge)),
        ("ingest", ingest_pb2_grpc.IngestServiceStub, "GetEvent",
         ingest_pb2.GetEventRequest(event_id=ours.event)),
        ("aggregator", metrics, "GetMetric", aggregator_pb2.GetMetricRequest(key=OURS)),
        ("aggregator", metrics, "UpdateMetric",
         aggregator_pb2.UpdateMetricRequest(metric=aggregator_pb2.Metric(key=OURS))),
        ("aggregator", metrics, "ArchiveMetric", aggregator_pb2.ArchiveMetricRequest(key=OURS)),
        ("aggregator", metrics, "UnarchiveMetric",
         aggregator_pb2.UnarchiveMetricRequest(key=OURS)),
        ("aggregator", quotas, "GetQuota", quotas_pb2.GetQuotaRequest(**by_quota)),
        ("aggregator", quotas, "DeleteQuota", quotas_pb2.DeleteQuotaRequest(**by_quota)),
        ("aggregator", quotas, "GetReservation",
         quotas_pb2.GetReservationRequest(**by_reservation)),
        ("aggregator", quotas, "CommitReservation",
         quotas_pb2.CommitReservationRequest(**by_reservation)),
        ("aggregator", quotas, "ReleaseReservation",
         quotas_pb2.ReleaseReservationRequest(**by_reservation)),
        ("accounts", portal_pb2_grpc.PortalServiceStub, "RevokePortalLink",
         portal_pb2.RevokePortalLinkRequest(portal_link_id=ours.portal_link)),
        ("accounts", accounts_pb2_grpc.AccountsServiceStub, "GetApiKey",
         accounts_pb2.GetApiKeyRequest(key_id=ours.key)),
        ("accounts", accounts_pb2_grpc.AccountsServiceStub, "RevokeApiKey",
         accounts_pb2.RevokeApiKeyRequest(key_id=ours.key)),
        ("invoicer", change_stub, "ChangeSubscription", change),
        ("invoicer", change_stub, "PreviewSubscriptionChange",
         subscription_changes_pb2.PreviewSubscriptionChangeRequest(change=change)),
        ("invoicer", change_stub, "ListBillingPeriods",
         subscription_changes_pb2.ListBillingPeriodsRequest(**by_subscription)),
        ("invoicer", change_stub, "MigrateSubscriptions",
         subscription_changes_pb2.MigrateSubscriptionsRequest(plan_id=ours.plan)),
        ("invoicer", change_stub, "UncancelSubscription",
         subscription_changes_pb2.UncancelSubscriptionRequest(**by_subscription)),
        ("invoicer", clock_stub, "GetTestClock", clocks.GetTestClockRequest(**by_clock)),
        ("invoicer", clock_stub, "AdvanceTestClock", clocks.AdvanceTestClockRequest(
            **by_clock, to=Timestamp(seconds=4_000_000_000))),
        ("invoicer", clock_stub, "EndTestClock", clocks.EndTestClockRequest(**by_clock)),
        ("accounts", accounts_pb2_grpc.AccountsServiceStub, "RotateApiKey",
         accounts_pb2.RotateApiKeyRequest(key_id=ours.key)),
        ("accounts", accounts_pb2_grpc.AccountsServiceStub, "UpdateApiKey",
         accounts_pb2.UpdateApiKeyRequest(key_id=ours.key)),
        ("invoicer", documents_pb2_grpc.DocumentsServiceStub, "ListLineEvents",
         documents_pb2.ListLineEventsRequest(**by_invoice, line=1)),
        ("invoicer", documents_pb2_grpc.DocumentsServiceStub, "GetRenderedInvoice",
         documents_pb2.GetRenderedInvoiceRequest(**by_invoice)),
        ("invoicer", payment_stub, "ListPaymentAttempts",
         payments_pb2.ListPaymentAttemptsRequest(**by_invoice)),
        ("invoicer", payment_stub, "CollectInvoice",
         payments_pb2.CollectInvoiceRequest(**by_invoice)),
        ("invoicer", payment_stub, "GetPaymentMethod",
         payments_pb2.GetPaymentMethodRequest(customer_id=CUSTOMER)),
        ("invoicer", payment_stub, "SetPaymentMethod",
         payments_pb2.SetPaymentMethodRequest(customer_id=CUSTOMER, payment_method=method)),
        ("invoicer", payment_stub, "RemovePaymentMethod",
         payments_pb2.RemovePaymentMethodRequest(customer_id=CUSTOMER)),
        ("invoicer", invoices, "GetCustomer", invoicer.GetCustomerRequest(customer_id=CUSTOMER)),
        ("invoicer", invoices, "GetPlan", invoicer.GetPlanRequest(plan_id=ours.plan)),
        ("invoicer", invoices, "CreatePlanVersion", invoicer.CreatePlanVersionRequest(plan=plan)),
        ("invoicer", invoices, "GetSubscription", get_subscription),
        ("invoicer", invoices, "CancelSubscription",
         invoicer.CancelSubscriptionRequest(**by_subscription)),
        ("invoicer", invoices, "PauseSubscription",
         invoicer.PauseSubscriptionRequest(**by_subscription)),
        ("invoicer", invoices, "ResumeSubscription",
         invoicer.ResumeSubscriptionRequest(**by_subscription)),
        ("invoicer", invoices, "PreviewInvoice", invoicer.PreviewInvoiceRequest(**by_subscription)),
        ("invoicer", invoices, "GetInvoice", invoicer.GetInvoiceRequest(**by_invoice)),
        ("invoicer", invoices, "PayInvoice", invoicer.PayInvoiceRequest(**by_invoice)),
        ("invoicer", invoices, "FailInvoice", invoicer.FailInvoiceRequest(**by_invoice)),
        ("invoicer", invoices, "VoidInvoice", invoicer.VoidInvoiceRequest(**by_invoice)),
        ("notifier", hooks, "GetEndpoint", notifier.GetEndpointRequest(**by_endpoint)),
        ("notifier", hooks, "UpdateEndpoint", notifier.UpdateEndpointRequest(**by_endpoint)),
        ("notifier", hooks, "DeleteEndpoint", notifier.DeleteEndpointRequest(**by_endpoint)),
        ("notifier", hooks, "RotateEndpointSecret",
         notifier.RotateEndpointSecretRequest(**by_endpoint)),
        ("notifier", hooks, "TestEndpoint", notifier.TestEndpointRequest(**by_endpoint)),
        ("notifier", hooks, "ListDeliveries", notifier.ListDeliveriesRequest(**by_endpoint)),
        ("notifier", hooks, "GetEndpointStats", notifier.GetEndpointStatsRequest(**by_endpoint)),
        ("notifier", hooks, "ReplayDeliveries", notifier.ReplayDeliveriesRequest(**by_endpoint)),
        ("notifier", hooks, "GetDelivery", notifier.GetDeliveryRequest(delivery_id=ours.delivery)),
        ("notifier", hooks, "ReplayDelivery",
         notifier.ReplayDeliveryRequest(delivery_id=ours.delivery)),
    ]  # fmt: skip


def test_object_of_another_is_not_found_over_grpc(
    ours: Ours, stack: Connection, stranger_key: str
) -> None:
    metadata = (("x-usageflow-api-key", stranger_key),)
    for part, stub, rpc, request in calls_by_id(ours):
        with grpc.insecure_channel(stack.grpc[part]) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                getattr(stub(channel), rpc)(request, timeout=10, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND, rpc


def test_event_of_another_is_not_voided_over_grpc(
    ours: Ours, stack: Connection, stranger_key: str
) -> None:
    with grpc.insecure_channel(stack.grpc["ingest"]) as channel:
        request = ingest_pb2.VoidEventsRequest(event_ids=[ours.event])
        answer = ingest_pb2_grpc.IngestServiceStub(channel).VoidEvents(
            request, timeout=10, metadata=(("x-usageflow-api-key", stranger_key),)
        )
    assert [each.status for each in answer.receipts] == [ingest_pb2.VOID_STATUS_NOT_FOUND]
    assert not answer.usage_token


def test_lists_of_a_stranger_are_empty_over_grpc(
    ours: Ours, stack: Connection, stranger_key: str
) -> None:
    metadata = (("x-usageflow-api-key", stranger_key),)
    with grpc.insecure_channel(stack.grpc["ingest"]) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        request = ingest_pb2.ListEventsRequest(customer_id=CUSTOMER)
        assert not stub.ListEvents(request, timeout=10, metadata=metadata).events
    with grpc.insecure_channel(stack.grpc["aggregator"]) as channel:
        usage = aggregator_pb2_grpc.AggregatorServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            query = aggregator_pb2.QueryUsageRequest(metric="NOT_THEIRS")
            usage.QueryUsage(query, timeout=10, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with grpc.insecure_channel(stack.grpc["invoicer"]) as channel:
        invoices = invoicer_pb2_grpc.InvoicerServiceStub(channel)
        answer = invoices.ListInvoices(
            invoicer_pb2.ListInvoicesRequest(customer_id=CUSTOMER), timeout=10, metadata=metadata
        )
        assert not answer.invoices
    with grpc.insecure_channel(stack.grpc["notifier"]) as channel:
        hooks = notifier_pb2_grpc.NotifierServiceStub(channel)
        endpoints = hooks.ListEndpoints(
            notifier_pb2.ListEndpointsRequest(), timeout=10, metadata=metadata
        ).endpoints
        assert not endpoints


def test_same_key_and_customer_id_of_two_organizations_are_two_events(
    ours: Ours, stack: Connection, stranger: Api
) -> None:
    key = new_key()
    mine = Api(stack.http, stack.api_key).track(key, metric="SAME_KEY", customerId="c")
    theirs = stranger.track(key, metric="SAME_KEY", customerId="c", amount=2)
    assert (mine.status_code, theirs.status_code) == (200, 200)
    assert mine.json()["eventId"] != theirs.json()["eventId"]


def test_what_a_stranger_tried_changed_nothing(
    ours: Ours, stack: Connection, stranger: Api
) -> None:
    api = Api(stack.http, stack.api_key)
    assert api.get(f"/api/webhooks/{ours.endpoint}")["enabled"] is True
    assert api.get(f"/api/invoices/{ours.invoice}")["status"] == "PENDING"
    assert api.get(f"/api/subscriptions/{ours.subscription}")["status"] == "ACTIVE"
    budget = api.get(f"/api/subscriptions/{ours.subscription}/budget")
    assert budget["amount"] == "1000.00"
    assert api.get(f"/api/events/{ours.event}")["voidedAt"] is None
    assert api.usage(METRIC) == "7"
    check = api.get("/api/quotas/check", metric=METRIC, customerId=CUSTOMER)
    assert (check["limit"], check["used"], check["reserved"]) == ("10", "7", "1")
