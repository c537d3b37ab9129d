"""Pages of billing beside plans and invoices: taxes, charges, discounts, versions, rebuilds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cli.connection import Connection
from tests.e2e.api import Api
from tests.e2e.dashboard.conftest import WAIT_MS, Visitor, new_organization_id, sign_in_token

CUSTOMER = "terms_customer"
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def subscription(stack: Connection) -> str:
    """A subscription on the first version of a plan that has two."""
    api = Api(stack.http, stack.api_key)
    plan = {"name": "Terms plan", "currency": "USD", "basePrice": "10.00"}
    plan_id = api.post("/api/plans", plan)["id"]
    body = {"customerId": CUSTOMER, "planId": plan_id}
    made = str(api.post("/api/subscriptions", body)["id"])
    api.post(f"/api/plans/{plan_id}/versions", plan | {"basePrice": "12.00"})
    return made


def test_a_tax_rate_is_made_and_given_to_a_customer(owner: Visitor, subscription: str) -> None:
    page = owner.open("/taxes")
    page.get_by_text("New rate").click()
    page.get_by_label("Name").fill("VAT <b>")
    page.get_by_label("Percent").fill("19")
    page.get_by_role("button", name="Create rate").click()
    expect(page.get_by_role("cell", name="19 %", exact=True)).to_be_visible()
    owner.keep("taxes")
    owner.open(f"/customers/{CUSTOMER}/taxes")
    page.get_by_label("Their own").check()
    page.get_by_label("VAT <b>").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_label("Their own")).to_be_checked()
    expect(page.get_by_label("VAT <b>")).to_be_checked()


def test_a_charge_is_made_and_taken_back(owner: Visitor, subscription: str) -> None:
    page = owner.open(f"/charges?customerId={CUSTOMER}")
    page.get_by_label("Description").fill("Setup")
    page.get_by_label("Price").fill("25.5")
    page.get_by_role("button", name="Charge", exact=True).click()
    expect(page.get_by_role("cell", name="$25.50")).to_be_visible()
    owner.keep("charges")
    page.get_by_text("Take back", exact=True).first.click()
    page.get_by_role("button", name="Take back").click()
    expect(page.get_by_text("Deleted.")).to_be_visible()


def test_a_part_of_an_invoice_is_credited(
    owner: Visitor, stack: Connection, subscription: str
) -> None:
    charge = {"customerId": CUSTOMER, "description": "Consulting", "unitPrice": "40"}
    charge |= {"currency": "USD", "timing": "NOW"}
    made = Api(stack.http, stack.api_key).post("/api/charges", charge)
    page = owner.open(f"/invoices/{made['invoiceId']}")
    page.get_by_text("Credit this invoice").click()
    part = page.get_by_label("Consulting")
    part.fill("41")
    page.get_by_label("Reason", exact=True).fill("Cut short")
    page.get_by_role("button", name="Issue credit note").click()
    expect(part).to_have_attribute("aria-invalid", "true")
    expect(part).to_have_value("41")
    part.fill("15.5")
    page.get_by_role("button", name="Issue credit note").click()
    expect(page.get_by_text("The credit note was issued")).to_be_visible()
    expect(page.get_by_text("Cut short")).to_be_visible()
    expect(page.get_by_role("row", name="Amount due")).to_contain_text("$")
    owner.keep("invoice-credited")


def test_a_subscription_gets_a_discount_which_ends(owner: Visitor, subscription: str) -> None:
    page = owner.open(f"/subscriptions/{subscription}")
    page.get_by_role("link", name="Discounts").click()
    page.get_by_text("New discount").click()
    page.get_by_label("Percent").fill("150")
    page.get_by_role("button", name="Give discount").click()
    expect(page.get_by_label("Percent")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Percent").fill("10")
    page.get_by_role("button", name="Give discount").click()
    expect(page.get_by_role("cell", name="10 %", exact=True)).to_be_visible()
    owner.keep("discounts")
    page.get_by_text("End", exact=True).click()
    page.get_by_role("button", name="End discount").click()
    expect(page.get_by_text("Saved.")).to_be_visible()


def test_a_budget_is_set_on_a_customers_page_and_removed(owner: Visitor, subscription: str) -> None:
    page = owner.open(f"/customers/{CUSTOMER}")
    page.get_by_text("Set a budget").click()
    page.get_by_label("Amount a period").fill("0")
    page.get_by_role("button", name="Set budget").click()
    expect(page.get_by_label("Amount a period")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Amount a period").fill("500")
    page.get_by_label("Tell at, percent").fill("75, 90")
    page.get_by_role("button", name="Set budget").click()
    expect(page.get_by_text("$500.00 a period, told at 75, 90 %")).to_be_visible()
    owner.keep("customer-budget")
    budgets = page.locator("section", has=page.get_by_role("heading", name="Budgets"))
    budgets.get_by_text("Remove", exact=True).click()
    page.get_by_role("button", name="Remove budget").click()
    expect(page.get_by_text("Deleted.")).to_be_visible()
    expect(budgets.get_by_text("None. A webhook tells")).to_be_visible()


def test_subscriptions_move_to_a_version_after_a_dry_run(owner: Visitor, subscription: str) -> None:
    page = owner.open("/plans")
    page.get_by_role("link", name="Terms plan").click()
    page.get_by_role("link", name="Move subscriptions").click()
    page.get_by_role("button", name="Dry run").click()
    expect(page.get_by_text("Would move")).to_be_visible()
    owner.keep("plan-migrate")
    page.get_by_role("button", name="Move them").click()
    expect(page.get_by_text("Moved", exact=True)).to_be_visible()


def test_a_metric_is_counted_anew_and_shows_how_far_it_is(
    owner: Visitor, stack: Connection
) -> None:
    api = Api(stack.http, stack.api_key)
    api.post("/api/metrics", {"key": "REBUILT"})
    api.track(metric="REBUILT", amount=5)
    api.track(metric="REBUILT", amount=6)
    api.await_usage("11", metric="REBUILT")
    page = owner.open("/metrics/REBUILT")
    page.get_by_role("link", name="Change").click()
    page.get_by_label("Figure").select_option("MAX")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#rebuild").get_by_text("Done", exact=True)).to_be_visible()
    owner.keep("metric-rebuilt")
    owner.open("/metrics/REBUILT")
    expect(page.locator(".figures").get_by_text("6", exact=True)).to_be_visible()


def test_the_audit_log_is_verified(
    new_visitor: Callable[[], Visitor], stack: Connection, stack_home: Path
) -> None:
    visitor = new_visitor()
    organization_id = new_organization_id(stack, stack_home, "Audited")
    visitor.sign_in(sign_in_token(stack, stack_home, organization_id))
    page = visitor.open("/audit")
    page.get_by_role("link", name="Verify").click()
    expect(page.get_by_text("entries are as they were")).to_be_visible()
    visitor.keep("audit-verified")
    answer = visitor.context.request.get(
        f"{visitor.url}{page.get_by_role('link', name='CSV').get_attribute('href')}"
    )
    assert answer.ok
    assert "member.signed_in" in answer.text()
    assert visitor.faults == []
