"""Cases of the routes that become RPCs of invoicer's BillingTermsService."""

from usageflow.invoicer.v1 import billing_terms_pb2 as terms
from usageflow.invoicer.v1 import invoicer_pb2 as invoicer

from tests.integration.gateway.route_cases import Case, at, page

DISCOUNT = terms.SubscriptionDiscount(
    id="disc_1",
    subscription_id="sub_1",
    discount=invoicer.Discount(name="Launch", percent="10", periods=3),
    start_time=at(1),
    create_time=at(2),
)
DISCOUNT_JSON = {
    "id": "disc_1",
    "subscriptionId": "sub_1",
    "name": "Launch",
    "percent": "10",
    "amount": None,
    "periods": 3,
    "startsAt": "2026-01-01T00:00:00Z",
    "endsAt": None,
    "createdAt": "2026-01-02T00:00:00Z",
}
CHARGE = terms.Charge(
    id="chg_1",
    customer_id="user_1",
    subscription_id="sub_1",
    description="Training",
    quantity="1.5",
    unit_price="80.00",
    currency="USD",
    amount="120.00",
    timing=terms.CHARGE_TIMING_NEXT_INVOICE,
    create_time=at(2),
)
CHARGE_JSON = {
    "id": "chg_1",
    "customerId": "user_1",
    "subscriptionId": "sub_1",
    "description": "Training",
    "quantity": "1.5",
    "unitPrice": "80.00",
    "currency": "USD",
    "amount": "120.00",
    "timing": "NEXT_INVOICE",
    "invoiceId": None,
    "createdAt": "2026-01-02T00:00:00Z",
}

CASES = [
    Case(
        "POST",
        "/api/subscriptions/sub_1/discounts",
        "CreateDiscount",
        terms.CreateDiscountRequest(
            subscription_id="sub_1",
            discount=invoicer.Discount(name="Launch", percent="10", periods=3),
        ),
        terms.CreateDiscountResponse(discount=DISCOUNT),
        DISCOUNT_JSON,
        {"name": "Launch", "percent": 10, "periods": 3},
        201,
    ),
    Case(
        "GET",
        "/api/subscriptions/sub_1/discounts",
        "ListDiscounts",
        terms.ListDiscountsRequest(subscription_id="sub_1"),
        terms.ListDiscountsResponse(discounts=[DISCOUNT]),
        {"data": [DISCOUNT_JSON]},
    ),
    Case(
        "POST",
        "/api/discounts/disc_1/end",
        "EndDiscount",
        terms.EndDiscountRequest(discount_id="disc_1"),
        terms.EndDiscountResponse(discount=DISCOUNT),
        DISCOUNT_JSON,
    ),
    Case(
        "POST",
        "/api/charges",
        "CreateCharge",
        terms.CreateChargeRequest(
            customer_id="user_1",
            subscription_id="sub_1",
            description="Training",
            quantity="1.5",
            unit_price="80",
            timing=terms.CHARGE_TIMING_NEXT_INVOICE,
        ),
        terms.CreateChargeResponse(charge=CHARGE),
        CHARGE_JSON,
        {
            "customerId": "user_1",
            "subscriptionId": "sub_1",
            "description": "Training",
            "quantity": 1.5,
            "unitPrice": "80",
        },
        201,
    ),
    Case(
        "GET",
        "/api/charges?customerId=user_1",
        "ListCharges",
        terms.ListChargesRequest(customer_id="user_1", page_size=20),
        terms.ListChargesResponse(charges=[CHARGE], next_page_token="next"),
        page(CHARGE_JSON),
    ),
    Case(
        "GET",
        "/api/charges/chg_1",
        "GetCharge",
        terms.GetChargeRequest(charge_id="chg_1"),
        terms.GetChargeResponse(charge=CHARGE),
        CHARGE_JSON,
    ),
    Case(
        "DELETE",
        "/api/charges/chg_1",
        "DeleteCharge",
        terms.DeleteChargeRequest(charge_id="chg_1"),
        terms.DeleteChargeResponse(),
        None,
        status=204,
    ),
]

RATE = terms.TaxRate(id="tax_1", name="VAT", percent="19", inclusive=True, create_time=at(1))
RATE_JSON = {
    "id": "tax_1",
    "name": "VAT",
    "percent": "19",
    "inclusive": True,
    "createdAt": "2026-01-01T00:00:00Z",
}
DEFAULT = terms.AssignedTaxRates(rates=[RATE])
DEFAULT_JSON = {"customerId": None, "inherited": False, "taxRates": [RATE_JSON]}
OWN = terms.AssignedTaxRates(customer_id="user/1", rates=[RATE], inherited=True)
OWN_JSON = {"customerId": "user/1", "inherited": True, "taxRates": [RATE_JSON]}

CASES += [
    Case(
        "POST",
        "/api/tax-rates",
        "CreateTaxRate",
        terms.CreateTaxRateRequest(
            tax_rate=terms.TaxRate(name="VAT", percent="19", inclusive=True)
        ),
        terms.CreateTaxRateResponse(tax_rate=RATE),
        RATE_JSON,
        {"name": "VAT", "percent": 19, "inclusive": True},
        201,
    ),
    Case(
        "GET",
        "/api/tax-rates",
        "ListTaxRates",
        terms.ListTaxRatesRequest(page_size=20),
        terms.ListTaxRatesResponse(tax_rates=[RATE], next_page_token="next"),
        page(RATE_JSON),
    ),
    Case(
        "GET",
        "/api/tax-rates/tax_1",
        "GetTaxRate",
        terms.GetTaxRateRequest(tax_rate_id="tax_1"),
        terms.GetTaxRateResponse(tax_rate=RATE),
        RATE_JSON,
    ),
    Case(
        "GET",
        "/api/tax-rates/default",
        "GetAssignedTaxRates",
        terms.GetAssignedTaxRatesRequest(),
        terms.GetAssignedTaxRatesResponse(assigned=DEFAULT),
        DEFAULT_JSON,
    ),
    Case(
        "PUT",
        "/api/tax-rates/default",
        "AssignTaxRates",
        terms.AssignTaxRatesRequest(tax_rate_ids=["tax_1"]),
        terms.AssignTaxRatesResponse(assigned=DEFAULT),
        DEFAULT_JSON,
        {"taxRateIds": ["tax_1"]},
    ),
    Case(
        "GET",
        "/api/customers/user%2F1/tax-rates",
        "GetAssignedTaxRates",
        terms.GetAssignedTaxRatesRequest(customer_id="user/1"),
        terms.GetAssignedTaxRatesResponse(assigned=OWN),
        OWN_JSON,
    ),
    Case(
        "PUT",
        "/api/customers/user%2F1/tax-rates",
        "AssignTaxRates",
        terms.AssignTaxRatesRequest(customer_id="user/1", tax_rate_ids=["tax_1"]),
        terms.AssignTaxRatesResponse(assigned=OWN),
        OWN_JSON,
        {"taxRateIds": ["tax_1"]},
    ),
    Case(
        "PUT",
        "/api/customers/user%2F1/tax-rates",
        "AssignTaxRates",
        terms.AssignTaxRatesRequest(customer_id="user/1", inherit=True),
        terms.AssignTaxRatesResponse(assigned=OWN),
        OWN_JSON,
        {"taxRateIds": None},
    ),
]

NOTE = terms.CreditNote(
    id="cn_1",
    number="CN-000001",
    invoice_id="inv_1",
    customer_id="user_1",
    currency="USD",
    amount="11.90",
    reason="Outage",
    refund_reference="re_1",
    lines=[
        terms.CreditNoteLine(line=2, description="API_CALL", amount="10.00"),
        terms.CreditNoteLine(line=3, description="VAT 19 %", amount="1.90"),
    ],
    changes=[
        invoicer.InvoiceLine(
            description="API_CALL, change of 2026-01-01 to 2026-02-01",
            metric="API_CALL",
            quantity="-1000",
            included_units="0",
            unit_price="0.01",
            amount="-10.00",
            period_start_time=at(1),
            period_end_time=at(2),
            steps=["10.00 - 20.00 billed before = -10.00"],
        )
    ],
    create_time=at(2),
    hash="5e" * 32,
)
NOTE_JSON = {
    "id": "cn_1",
    "number": "CN-000001",
    "invoiceId": "inv_1",
    "customerId": "user_1",
    "currency": "USD",
    "amount": "11.90",
    "reason": "Outage",
    "refundReference": "re_1",
    "lines": [
        {"line": 2, "description": "API_CALL", "amount": "10.00"},
        {"line": 3, "description": "VAT 19 %", "amount": "1.90"},
    ],
    "changes": [
        {
            "description": "API_CALL, change of 2026-01-01 to 2026-02-01",
            "metric": "API_CALL",
            "quantity": "-1000",
            "includedUnits": "0",
            "unitPrice": "0.01",
            "amount": "-10.00",
            "periodStart": "2026-01-01T00:00:00Z",
            "periodEnd": "2026-01-02T00:00:00Z",
            "steps": ["10.00 - 20.00 billed before = -10.00"],
        }
    ],
    "createdAt": "2026-01-02T00:00:00Z",
    "hash": "5e" * 32,
}
ALL_LEFT = terms.CreateCreditNoteRequest(invoice_id="inv_1", reason="Outage")

CASES += [
    Case(
        "POST",
        "/api/invoices/inv_1/credit-notes",
        "CreateCreditNote",
        terms.CreateCreditNoteRequest(
            invoice_id="inv_1",
            reason="Outage",
            lines=[terms.CreditNoteLineInput(line=2, amount="10.00")],
            refund_reference="re_1",
        ),
        terms.CreateCreditNoteResponse(credit_note=NOTE),
        NOTE_JSON,
        {
            "reason": "Outage",
            "lines": [{"line": 2, "amount": "10.00"}],
            "refundReference": "re_1",
        },
        201,
    ),
    Case(
        "POST",
        "/api/invoices/inv_1/credit-notes",
        "CreateCreditNote",
        ALL_LEFT,
        terms.CreateCreditNoteResponse(credit_note=NOTE),
        NOTE_JSON,
        {"reason": "Outage"},
        201,
    ),
    Case(
        "GET",
        "/api/credit-notes?customerId=user_1&invoiceId=inv_1",
        "ListCreditNotes",
        terms.ListCreditNotesRequest(customer_id="user_1", invoice_id="inv_1", page_size=20),
        terms.ListCreditNotesResponse(credit_notes=[NOTE], next_page_token="next"),
        page(NOTE_JSON),
    ),
    Case(
        "GET",
        "/api/credit-notes/cn_1",
        "GetCreditNote",
        terms.GetCreditNoteRequest(credit_note_id="cn_1"),
        terms.GetCreditNoteResponse(credit_note=NOTE),
        NOTE_JSON,
    ),
]
