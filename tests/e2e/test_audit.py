"""What is done over HTTP is found in the audit log."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.connection import Connection
from services.kit.permissions import only_reads
from tests.e2e.api import Api, new_key, new_organization, wait_for
from tests.integration.gateway.test_roles import RPCS

# What another service tells is there within a second or two; a busy machine takes longer.
WAIT_S = 30.0


@pytest.fixture
def api(stack: Connection) -> Api:
    """The stack's own organization."""
    return Api(stack.http, stack.api_key)


# What the audit log says of each RPC that changes something.
ACTIONS = {
    "UpdateOrganization": "organization.updated",
    "CreateApiKey": "api_key.created",
    "UpdateApiKey": "api_key.updated",
    "RotateApiKey": "api_key.rotated",
    "RevokeApiKey": "api_key.revoked",
    "UpdateCurrentMember": "member.updated",
    "SetPassword": "member.password_set",
    "UpdateMember": "member.updated",
    "RemoveMember": "member.removed",
    "CreateInvitation": "member.invited",
    "RevokeInvitation": "member.uninvited",
    "CreatePortalLink": "portal_link.created",
    "RevokePortalLink": "portal_link.revoked",
    "CreateMetric": "metric.created",
    "UpdateMetric": "metric.updated",
    "ArchiveMetric": "metric.archived",
    "UnarchiveMetric": "metric.unarchived",
    "SetQuota": "quota.created",
    "DeleteQuota": "quota.deleted",
    "VoidEvents": "event.voided",
    "CreateEndpoint": "webhook.created",
    "UpdateEndpoint": "webhook.updated",
    "DeleteEndpoint": "webhook.deleted",
    "RotateEndpointSecret": "webhook.secret_rotated",
}
BILLING_ACTIONS = {
    "PutCustomer": "customer.created",
    "CreatePlan": "plan.created",
    "CreatePlanVersion": "plan.version_created",
    "CreateSubscription": "subscription.created",
    "CancelSubscription": "subscription.cancelled",
    "UncancelSubscription": "subscription.uncancelled",
    "PauseSubscription": "subscription.paused",
    "ResumeSubscription": "subscription.resumed",
    "ChangeSubscription": "subscription.changed",
    "MigrateSubscriptions": "subscription.changed",
    "SetBudget": "budget.set",
    "RemoveBudget": "budget.removed",
    "CreateDiscount": "discount.created",
    "EndDiscount": "discount.ended",
    "CreateCharge": "charge.created",
    "DeleteCharge": "charge.deleted",
    "CreateTaxRate": "tax_rate.created",
    "AssignTaxRates": "tax_rates.assigned",
    "CreateCreditNote": "credit_note.created",
    "PayInvoice": "invoice.paid",
    "FailInvoice": "invoice.failed",
    "VoidInvoice": "invoice.voided",
    "SetIssuer": "issuer.updated",
    "UpdateBillingSettings": "billing_settings.changed",
    "GrantCredits": "credits.granted",
    "VoidCreditGrant": "credits.voided",
    "DebitCredits": "credits.debited",
    "SetLowCreditBalance": "credits.threshold_changed",
    "SetPaymentMethod": "payment_method.set",
    "RemovePaymentMethod": "payment_method.removed",
    "CreateTestClock": "test_clock.created",
    "AdvanceTestClock": "test_clock.advanced",
    "EndTestClock": "test_clock.ended",
}
# With a payment provider: tests/integration/invoicer/test_payments.py.
COLLECTED = {"CollectInvoice": "invoice.collected"}
UNTOLD = {
    "RecordEvents": "usage: events are stored themselves",
    "StreamEvents": "usage: events are stored themselves",
    "ReserveQuota": "usage: reservations are stored themselves",
    "CommitReservation": "usage: reservations are stored themselves",
    "ReleaseReservation": "usage: reservations are stored themselves",
    "TestEndpoint": "its delivery tells",
    "ReplayDelivery": "its delivery tells",
    "ReplayDeliveries": "their deliveries tell",
    "RevokeSession": "of the caller's own sessions, which tell when they ended",
}


def test_every_rpc_that_changes_something_is_told_of_or_has_a_reason() -> None:
    changing = {method.name for _rpc, method in RPCS if not only_reads(method.name)}
    assert changing == {*ACTIONS, *BILLING_ACTIONS, *COLLECTED, *UNTOLD}


def do_all_of_billing(api: Api) -> None:
    """Each RPC of BILLING_ACTIONS, once at least."""

    def put(path: str, body: object) -> None:
        api.ok(api.http.put(path, json=body))

    def delete(path: str) -> None:
        assert api.http.delete(path).is_success

    def invoice_at_once() -> str:
        charge = {"customerId": "ada", "description": "D", "unitPrice": "1.00", "timing": "NOW"}
        return str(api.post("/api/charges", charge)["invoiceId"])

    api.post("/api/customers", {"id": "ada", "currency": "USD"})
    plan = {"name": "P", "currency": "USD", "basePrice": "1.00", "metrics": []}
    plan_id = api.post("/api/plans", plan)["id"]
    made = api.post("/api/subscriptions", {"customerId": "ada", "planId": plan_id})
    path = f"/api/subscriptions/{made['id']}"
    api.post(f"{path}/change", {"quantity": 2})
    api.post(f"/api/plans/{plan_id}/versions", plan | {"basePrice": "2.00"})
    api.post(f"/api/plans/{plan_id}/migrate", {})
    api.post(f"{path}/cancel", {})
    api.post(f"{path}/uncancel", {})
    put(f"{path}/budget", {"amount": "500"})
    delete(f"{path}/budget")
    discount = api.post(f"{path}/discounts", {"percent": "10"})["id"]
    api.post(f"/api/discounts/{discount}/end", {})
    charge = api.post(
        "/api/charges", {"customerId": "ada", "description": "D", "unitPrice": "1.00"}
    )
    delete(f"/api/charges/{charge['id']}")
    api.post(f"{path}/pause", {})
    api.post(f"{path}/resume", {})
    rate = api.post("/api/tax-rates", {"name": "VAT", "percent": "20"})["id"]
    put("/api/customers/ada/tax-rates", {"taxRateIds": [rate]})
    voided, credited = invoice_at_once(), invoice_at_once()
    api.post(f"/api/invoices/{voided}/fail", {"reference": "wire 1"})
    api.post(f"/api/invoices/{voided}/void", {})
    api.post(f"/api/invoices/{credited}/pay", {"reference": "wire 2"})
    api.post(f"/api/invoices/{credited}/credit-notes", {"reason": "R", "refundReference": "r 1"})
    put("/api/issuer", {"name": "Acme"})
    api.ok(api.http.patch("/api/billing-settings", json={"graceSeconds": 60}))
    prepaid = "/api/customers/ada/credits"
    grant = api.post(f"{prepaid}/grants", {"amount": "5.00", "currency": "USD"})["id"]
    put(f"{prepaid}/low-balance", {"currency": "USD", "lowBalance": "1.00"})
    api.post(f"{prepaid}/debits", {"currency": "USD", "amount": "1.00", "reason": "R"})
    api.post(f"{prepaid}/grants/{grant}/void", {})
    method = "/api/customers/ada/payment-method"
    put(method, {"stripeCustomer": "cus_1", "stripePaymentMethod": "pm_1"})
    delete(method)
    clock = api.post("/api/test-clocks", {"customerId": "on-a-clock"})
    path = f"/api/test-clocks/{clock['id']}"
    wait_for("the clock", lambda: api.get(path)["status"] == "READY", WAIT_S)
    to = datetime.now(UTC) + timedelta(hours=1)
    api.post(f"{path}/advance", {"to": to.isoformat()})
    delete(path)


def test_all_that_is_done_in_billing_leaves_entries(stack: Connection, stack_home: Path) -> None:
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    do_all_of_billing(api)
    told: dict[str, list[dict[str, Any]]] = {}

    def all_told() -> bool:
        told.clear()
        for entry in api.get("/api/audit", limit="100")["data"]:
            told.setdefault(entry["action"], []).append(entry)
        return set(BILLING_ACTIONS.values()) <= told.keys()

    wait_for("all entries", all_told, WAIT_S)
    (key,) = {entry["keyId"] for action in BILLING_ACTIONS.values() for entry in told[action]}
    assert key.startswith("key_")
    (failed,) = told["invoice.failed"]
    assert failed["details"]["before"] == {"status": "PENDING"}
    assert (failed["details"]["status"], failed["details"]["reference"]) == ("FAILED", "wire 1")
    migrated, changed = told["subscription.changed"]
    assert [each["planVersion"] for each in migrated["details"]["after"]["phases"]][-1] == 2
    assert changed["details"]["before"]["phases"][-1]["quantity"] == 1
    assert changed["details"]["after"]["phases"][-1]["quantity"] == 2
    (assigned,) = told["tax_rates.assigned"]
    assert assigned["details"]["before"] == {"taxRateIds": None}
    assert api.get("/api/audit/verification")["brokenNumber"] is None


def entries(api: Api, target_id: str, **filters: str) -> list[dict[str, Any]]:
    """What was done to one thing, newest first."""
    return list(api.get("/api/audit", targetId=target_id, **filters)["data"])


def test_webhooks_keys_voids_and_settings_leave_entries(api: Api) -> None:
    key = api.post("/api/keys", {"name": "server", "scopes": ["read"]})
    hook = api.post("/api/webhooks", {"url": "http://127.0.0.1:9/"})
    event = api.ok(api.track(new_key()))["eventId"]
    api.post(f"/api/events/{event}/void", {"reason": "a typo"})
    assert api.http.delete(f"/api/webhooks/{hook['id']}").is_success
    wait_for("the void", lambda: entries(api, event), WAIT_S)
    wait_for("the end of the webhook", lambda: len(entries(api, hook["id"])) == 2, WAIT_S)
    [void] = entries(api, event)
    assert (void["action"], void["details"]["reason"]) == ("event.voided", "a typo")
    assert [entry["action"] for entry in entries(api, hook["id"])] == [
        "webhook.deleted",
        "webhook.created",
    ]
    [made] = entries(api, key["id"], action="api_key.*")
    assert made["keyId"] == void["keyId"]
    assert made["requestId"].startswith("req_")
    reader = Api(str(api.http.base_url), key["secret"])
    assert reader.http.get("/api/audit").status_code == 403
