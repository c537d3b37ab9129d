"""A customer's month passes in the browser: subscribed, the test clock advanced, billed."""

import re
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import expect

from cli.connection import Connection
from services.kit import clock
from tests.e2e.api import Api, wait_for
from tests.e2e.dashboard.conftest import WAIT_MS, ZONE, Visitor
from tests.e2e.dashboard.test_first_day import is_pdf

CUSTOMER, METRIC = "time_traveller", "TIME_TRAVELS"
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module", autouse=True)
def plan(stack: Connection) -> None:
    api = Api(stack.http, stack.api_key)
    api.post("/api/metrics", {"key": METRIC})
    price = {"metric": METRIC, "model": "PER_UNIT", "unitPrice": "0.50"}
    monthly = {"name": "Time plan", "currency": "USD", "basePrice": "30.00", "metrics": [price]}
    api.post("/api/plans", monthly)


def test_a_clock_is_advanced_and_the_invoice_and_its_pdf_are_there(
    owner: Visitor, stack: Connection
) -> None:
    page = owner.open("/test-clocks")
    if not page.get_by_role("button", name="Create test clock").is_visible():
        page.get_by_text("New test clock").click()
    page.get_by_label("Customer").fill(CUSTOMER)
    page.get_by_role("button", name="Create test clock").click()
    page.get_by_role("link", name=CUSTOMER).click()
    clock_path = page.url.partition("/dashboard")[2]
    until_ready(owner, clock_path)

    owner.open("/subscriptions/new")
    page.get_by_label("Customer").fill(CUSTOMER)
    page.get_by_label("Plan").select_option(label="Time plan: $30.00 monthly")
    page.get_by_label("Billing periods").select_option("ANNIVERSARY")
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_text("The customer is subscribed")).to_be_visible()
    # Without a timestamp: it happens when the clock says.
    sent = Api(stack.http, stack.api_key).track(metric=METRIC, amount=7, customerId=CUSTOMER)
    assert sent.status_code == 200, sent.text

    owner.open(clock_path)
    to = (clock.now() + timedelta(days=35)).astimezone(ZoneInfo(ZONE))
    page.get_by_label("To").fill(to.strftime("%Y-%m-%dT%H:%M"))
    page.get_by_role("button", name="Advance").click()
    expect(page.get_by_text("The test clock goes on")).to_be_visible()
    until_ready(owner, clock_path)
    expect(page.get_by_text(to.strftime("%Y-%m-%d %H:%M"))).to_be_visible()
    owner.keep("test-clock")

    owner.open(f"/invoices?customerId={CUSTOMER}")
    page.get_by_role("link", name=re.compile("^INV-")).click()
    expect(page.get_by_text("$33.50").first).to_be_visible()
    pdf = page.get_by_role("link", name="PDF").get_attribute("href")
    wait_for("the PDF", lambda: is_pdf(owner, f"{owner.url}{pdf}"), WAIT_MS // 1_000)
    owner.open("/test-clocks")
    owner.keep("test-clocks")


def until_ready(owner: Visitor, path: str) -> None:
    """Look at the clock again until it has arrived."""

    def is_ready() -> bool:
        return bool(owner.open(path).get_by_text("Ready", exact=True).count())

    wait_for("READY", is_ready, WAIT_MS // 1_000)
