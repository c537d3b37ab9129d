"""The first day of an owner: from a metric to an invoice and its webhook, all in the browser."""

import re
from collections.abc import Iterator
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import expect

from cli.connection import Connection
from services.kit import clock
from tests.e2e.api import Api, wait_for
from tests.e2e.dashboard.conftest import WAIT_MS, ZONE, Visitor, receiver

METRIC = "DASHBOARD_TOKENS"
CUSTOMER = "dashboard_customer"
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def received() -> Iterator[tuple[str, list[bytes]]]:
    """An endpoint that answers 200: its address, and the bodies that it got."""
    with receiver(200) as (url, bodies):
        yield f"{url}/hook", bodies


def test_a_metric_is_defined(owner: Visitor) -> None:
    page = owner.open("/metrics/new")
    page.get_by_label("Key").fill(METRIC)
    page.get_by_label("Name").fill("Dashboard tokens")
    page.get_by_label("Unit").fill("tokens")
    page.get_by_label("Dimensions").fill("model, region")
    page.get_by_role("button", name="Create metric").click()
    expect(page.get_by_role("heading", name="Dashboard tokens")).to_be_visible()
    expect(page.get_by_text("model, region")).to_be_visible()
    owner.keep("metric")


def test_what_is_wrong_is_told_beside_its_field(owner: Visitor) -> None:
    page = owner.open("/metrics/new")
    page.get_by_label("Key").fill("no spaces allowed")
    page.get_by_role("button", name="Create metric").click()
    expect(page.get_by_role("alert")).to_contain_text("Check the marked fields")
    key = page.get_by_label("Key")
    expect(key).to_have_value("no spaces allowed")
    expect(key).to_have_attribute("aria-invalid", "true")


def test_a_key_is_made_and_its_event_is_seen_live(owner: Visitor, stack: Connection) -> None:
    page = owner.open("/keys")
    page.get_by_text("New key").click()
    page.get_by_label("Name").fill("Server")
    page.get_by_role("button", name="Create key").click()
    key = page.locator("#secret").inner_text()
    owner.open("")
    today = page.locator("[data-figure=today]")
    before = int(today.inner_text().replace(",", ""))
    event = {"metric": METRIC, "amount": "12345.5", "customerId": CUSTOMER}
    sent = Api(stack.http, key).track(**event, metadata={"model": "large"})
    assert sent.status_code == 200, sent.text
    expect(today).to_have_text(f"{before + 1:,}")
    expect(page.locator("[data-figure=rate]")).not_to_have_text("0")
    owner.keep("overview")
    owner.open(f"/events?metric={METRIC}")
    page.get_by_role("link", name=re.compile("^evt_")).first.click()
    expect(page.get_by_text("It is in the usage of")).to_be_visible()
    expect(page.get_by_text("12,345.5")).to_be_visible()
    owner.keep("event")
    owner.open(f"/usage?metric={METRIC}&groupBy=model&range=7d")
    expect(page.get_by_role("cell", name="large")).to_be_visible()
    owner.keep("usage")


def test_a_plan_shows_what_it_costs_before_it_is_made(owner: Visitor) -> None:
    page = owner.open("/plans/new")
    page.get_by_label("Name").fill("Dashboard plan")
    page.get_by_label("Base price", exact=True).fill("1000")
    page.get_by_label("Metric", exact=True).select_option(METRIC)
    page.get_by_label("Pricing").select_option("GRADUATED")
    page.locator("[name='metrics[0].tiers[0].upTo']").fill("5000")
    page.locator("[name='metrics[0].tiers[0].unitPrice']").fill("0.02")
    page.locator("[name='metrics[0].tiers[1].unitPrice']").fill("0.01")
    page.get_by_label("Preview with").fill("10,000")
    # 1,000 + 5,000 x 0.02 + 5,000 x 0.01
    expect(page.locator("[data-preview-total]")).to_have_text("$1,150.00")
    expect(page.get_by_role("img", name=f"Price of {METRIC} by quantity")).to_be_visible()
    owner.keep("plan-editor")
    page.get_by_role("button", name="Create plan").click()
    expect(page.get_by_role("heading", name="Dashboard plan")).to_be_visible()
    owner.keep("plan")


def test_an_endpoint_is_registered_and_told_of_an_invoice(
    owner: Visitor, stack: Connection, received: tuple[str, list[bytes]]
) -> None:
    # On the last day of the month before, which is 31 days ago at most.
    month = clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    late = {"metric": METRIC, "amount": "100", "customerId": CUSTOMER}
    sent = Api(stack.http, stack.api_key).track(
        **late, timestamp=(month - timedelta(hours=12)).isoformat()
    )
    assert sent.status_code == 200, sent.text
    url, bodies = received
    page = owner.open("/webhooks/new")
    page.get_by_label("URL").fill(url)
    page.get_by_label("invoice.created").check()
    page.get_by_role("button", name="Register endpoint").click()
    expect(page.locator("#secret")).to_contain_text("whsec_")
    page.get_by_role("link", name="To the endpoint").click()
    endpoint = page.url

    # It began two months ago: what has ended since is invoiced at once.
    start = (clock.now() - timedelta(days=62)).astimezone(ZoneInfo(ZONE))
    owner.open("/subscriptions/new")
    page.get_by_label("Customer").fill(CUSTOMER)
    page.get_by_label("Plan").select_option(label="Dashboard plan: $1,000.00 monthly")
    page.get_by_label("Starts").fill(start.strftime("%Y-%m-%dT00:00"))
    page.get_by_role("button", name="Subscribe").click()
    expect(page.get_by_text("The customer is subscribed")).to_be_visible()
    owner.keep("subscription")
    # 1,000 and 100 x 0.02; the invoice of the period before it comes first.
    reload_until(owner, f"/invoices?customerId={CUSTOMER}", "$1,002.00")
    billed = page.get_by_role("row", name="$1,002.00")
    billed.get_by_role("link", name=re.compile("^INV-")).click()
    page.get_by_text("How it came about").last.click()
    owner.keep("invoice")
    invoice = page.url.partition("/dashboard")[2]
    pdf = page.get_by_role("link", name="PDF").get_attribute("href")
    wait_for("the PDF", lambda: is_pdf(owner, f"{owner.url}{pdf}"), WAIT_MS // 1_000)
    page.get_by_role("link", name="The events behind it").last.click()
    expect(page.get_by_role("link", name=re.compile("^evt_"))).to_have_count(1)
    expect(page.get_by_role("cell", name="100", exact=True)).to_be_visible()
    owner.keep("invoice-line")
    owner.open(invoice)
    page.get_by_role("button", name="Mark as paid").click()
    expect(page.get_by_text("The invoice was marked as paid")).to_be_visible()
    owner.open(f"/events/{sent.json()['eventId']}")
    page.get_by_role("link", name=re.compile("^Invoice INV-.*, line [0-9]+$")).click()
    expect(page.get_by_role("heading", name=re.compile("^Invoice INV-"))).to_be_visible()
    owner.open(f"/events/{sent.json()['eventId']}")
    owner.keep("event-invoiced")
    owner.open(f"/customers/{CUSTOMER}")
    owner.keep("customer")

    path = endpoint.partition("/dashboard")[2]
    reload_until(owner, path, "Succeeded")
    assert b"invoice.created" in bodies[0]
    page.get_by_role("link", name="invoice.created").first.click()
    delivery = page.url.partition("/dashboard")[2]
    owner.keep("delivery")
    page.get_by_role("button", name="Replay").click()
    reload_until(owner, delivery, "Attempt 2")
    owner.open(path)
    owner.keep("webhook")


def test_a_subscription_is_paused_and_resumed(owner: Visitor) -> None:
    page = owner.open("/subscriptions")
    page.get_by_role("link", name=f"Subscription of {CUSTOMER}").click()
    page.get_by_text("Pause", exact=True).click()
    page.get_by_role("button", name="Pause subscription").click()
    expect(page.get_by_text("The subscription is paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("The subscription is active again")).to_be_visible()


def test_a_subscription_gets_more_seats_and_shows_what_that_costs(owner: Visitor) -> None:
    page = owner.open("/subscriptions")
    page.get_by_role("link", name=f"Subscription of {CUSTOMER}").click()
    page.get_by_role("link", name="Change", exact=True).click()
    page.get_by_label("Quantity").fill("3")
    page.get_by_label("When").select_option("PERIOD_END")
    expect(page.locator("[data-preview]")).to_contain_text("$3,000.00")
    owner.keep("subscription-change")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_text("The subscription was changed")).to_be_visible()


def test_an_event_that_is_voided_after_its_invoice_tells_both(
    owner: Visitor, stack: Connection
) -> None:
    listed = Api(stack.http, stack.api_key).get("/api/events", metric=METRIC)["data"]
    [event] = [each for each in listed if each["amount"] == "100"]
    page = owner.open(f"/events/{event['id']}")
    page.locator("summary", has_text="Void").click()
    page.get_by_label("Why").fill("By mistake")
    page.get_by_role("button", name="Void the event").click()
    way = page.locator(".steps")
    expect(way).to_contain_text("By mistake")
    expect(way).to_contain_text("comes off with the next invoice")
    expect(way.get_by_role("link", name=re.compile("^Invoice INV-"))).to_be_visible()
    owner.keep("event-voided")


def is_pdf(visitor: Visitor, url: str) -> bool:
    """Whether it is there; a machine with much to do may say that it is to be asked again."""
    answer = visitor.context.request.get(url)
    assert answer.ok or answer.status == 503, answer.text()
    return answer.ok and answer.body().startswith(b"%PDF")


def reload_until(visitor: Visitor, path: str, text: str) -> None:
    """Open the page again until it shows the text."""
    for _ in range(WAIT_MS // 500):
        page = visitor.open(path)
        if page.get_by_text(text).count():
            return
        page.wait_for_timeout(500)
    raise AssertionError(f"{path} never shows {text!r}")
