"""A link to the portal: made on the customer's page, opened by somebody else, revoked."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from cli.connection import Connection
from services.kit import clock
from tests.e2e.api import Api, wait_for
from tests.e2e.dashboard.conftest import TELEPHONE_WIDTH, WAIT_MS, Visitor

CUSTOMER = "portal <b>customer</b>"
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module", autouse=True)
def billed(stack: Connection) -> None:
    """A customer with usage and an invoice."""
    api = Api(stack.http, stack.api_key)
    metric = {"key": "PORTAL_CALLS", "name": "Calls <i>", "unit": "calls"}
    api.post("/api/metrics", metric)
    api.post("/api/customers", {"id": CUSTOMER, "name": "Ada & <b>Sons</b>"})
    api.track(metric="PORTAL_CALLS", amount=1234, customerId=CUSTOMER)
    price = {"metric": "PORTAL_CALLS", "model": "PER_UNIT", "unitPrice": "0.01"}
    plan = {"name": "Pro", "currency": "USD", "basePrice": "20.00", "metrics": [price]}
    start = (clock.now() - timedelta(days=62)).strftime("%Y-%m-01T00:00:00Z")
    body = {"planId": api.post("/api/plans", plan)["id"], "startsAt": start}
    api.post("/api/subscriptions", body | {"customerId": CUSTOMER})
    api.await_usage("1234", metric="PORTAL_CALLS")

    def two_invoices() -> bool:
        return len(api.get("/api/invoices", customerId=CUSTOMER)["data"]) == 2

    wait_for("two invoices", two_invoices, 60)
    newest = api.get("/api/invoices", customerId=CUSTOMER)["data"][0]["id"]
    credited = {"reason": "Outage", "lines": [{"line": 1, "amount": "5"}]}
    api.post(f"/api/invoices/{newest}/credit-notes", credited)


def test_a_customer_sees_usage_and_invoices_until_the_link_is_revoked(
    owner: Visitor, new_visitor: Callable[[], Visitor]
) -> None:
    page = owner.open(f"/customers/{CUSTOMER.replace('/', '%2F').replace(' ', '%20')}")
    page.get_by_role("link", name="Portal link").click()
    page.get_by_role("button", name="Make link").click()
    url = page.locator("#secret").inner_text()
    owner.keep("portal-links")

    customer = new_visitor()
    seen = customer.page
    seen.goto(url)
    expect(seen).to_have_url(re.compile("/portal$"))
    expect(seen.get_by_role("heading", name="Ada & <b>Sons</b>")).to_be_visible()
    expect(seen.get_by_role("cell", name="1,234 calls", exact=True)).to_be_visible()
    customer.examine("portal")
    seen.set_viewport_size({"width": TELEPHONE_WIDTH, "height": 800})
    seen.get_by_role("link", name=re.compile("^INV-[0-9]+$")).first.click()
    expect(seen.get_by_role("heading", name=re.compile("Invoice INV-"))).to_be_visible()
    expect(seen.get_by_role("row", name="Credited by credit notes")).to_contain_text("$5.00")
    expect(seen.get_by_role("row", name="Amount due")).to_contain_text("$15.00")
    customer.examine("portal-invoice")
    pdf = seen.get_by_role("link", name="PDF").get_attribute("href")

    def is_pdf() -> bool:
        # A machine with much to do may say that it is to be asked again.
        answer = customer.context.request.get(f"{customer.url}{pdf}")
        return answer.ok and answer.body().startswith(b"%PDF")

    wait_for("the PDF", is_pdf, WAIT_MS // 1_000)
    assert seen.locator("form[method=post]").count() == 0

    page.get_by_text("Revoke", exact=True).first.click()
    page.get_by_role("button", name="Revoke link").click()
    expect(page.get_by_text("The link was revoked")).to_be_visible()

    def ended() -> bool:
        answer = seen.goto(f"{customer.url}/portal")
        return answer is not None and answer.status == 401

    wait_for("the end of the link", ended, WAIT_MS // 1_000)
    customer.keep("portal-ended")
    assert customer.faults == []
