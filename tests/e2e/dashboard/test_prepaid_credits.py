"""Credit is granted, pays an invoice, is refunded and taken back, in a browser."""

from cli.connection import Connection
from tests.e2e.api import Api
from tests.e2e.dashboard.conftest import Visitor

CUSTOMER = "credited_customer"
CREDITS = f"/customers/{CUSTOMER}/credits"


def test_credit_is_granted_pays_an_invoice_and_comes_back(
    owner: Visitor, stack: Connection
) -> None:
    api = Api(stack.http, stack.api_key)
    api.post("/api/customers", {"id": CUSTOMER, "currency": "USD"})
    page = owner.open(f"/customers/{CUSTOMER}")
    page.get_by_role("link", name="Grants and ledger").click()
    page.get_by_label("Amount", exact=True).fill("-1")
    page.get_by_role("button", name="Grant credit").click()
    assert "at least 0" in page.locator(".problem").first.inner_text()
    page.get_by_label("Amount", exact=True).fill("100")
    page.get_by_label("Expires").fill("2099-01-01T00:00")
    page.get_by_label("Description").fill("Welcome")
    page.get_by_role("button", name="Grant credit").click()
    page.get_by_text("The credit was granted").wait_for()
    assert "Welcome" in page.get_by_role("row").nth(1).inner_text()

    charge = {"customerId": CUSTOMER, "description": "D", "unitPrice": "30", "timing": "NOW"}
    invoice_id = api.post("/api/charges", charge)["invoiceId"]
    charge["unitPrice"] = "80"
    larger = api.post("/api/charges", charge)["invoiceId"]
    page = owner.open(f"/invoices/{larger}")
    assert "$10.00" in page.get_by_role("row", name="Amount due").inner_text()
    owner.keep("invoice-with-credits")

    page = owner.open(f"/invoices/{invoice_id}")
    page.get_by_text("Credit this invoice").click()
    page.get_by_label("Reason", exact=True).fill("Outage")
    page.get_by_label("Refund to prepaid credits").check()
    page.get_by_role("button", name="Issue credit note").click()
    page.get_by_text("The credit note was issued").wait_for()

    page = owner.open(CREDITS)
    page.get_by_text("Tell me when it is low").click()
    page.get_by_label("Balance").fill("5")
    page.get_by_role("button", name="Set threshold").click()
    page.get_by_text("Told at $5.00").wait_for()
    page.get_by_text("Take credit off by hand").click()
    page.get_by_label("Take off", exact=True).fill("31")
    page.get_by_label("Reason").fill("Paid back <b>")
    page.get_by_role("button", name="Take off").click()
    page.get_by_text("Of the credit only 30.00 is left").wait_for()
    page.get_by_label("Take off", exact=True).fill("12.5")
    page.get_by_role("button", name="Take off").click()
    page.get_by_text("The credit was taken off").wait_for()
    owner.keep("customer-credits")
    ledger = page.locator("section", has=page.get_by_role("heading", name="Ledger"))
    shown = [row.inner_text().split("\t")[-2:] for row in ledger.get_by_role("row").all()[1:]]
    assert [[text.strip() for text in row] for row in shown] == [
        ["\N{MINUS SIGN}$12.50", "$17.50"],
        ["$30.00", "$30.00"],
        ["\N{MINUS SIGN}$70.00", "$0.00"],
        ["\N{MINUS SIGN}$30.00", "$70.00"],
        ["$100.00", "$100.00"],
    ]
    grants = page.locator("section", has=page.get_by_role("heading", name="Grants", exact=True))
    grants.locator("summary", has_text="Void").click()
    grants.get_by_label("Why, optional").fill("Ended early")
    grants.get_by_role("button", name="Void grant").click()
    page.get_by_text("The grant was voided").wait_for()
    assert ledger.get_by_text("Ended early").is_visible()
    assert ledger.get_by_text("Paid back <b>").is_visible()
    assert api.get(f"/api/customers/{CUSTOMER}/credits")["data"][0]["balance"] == "0.00"
