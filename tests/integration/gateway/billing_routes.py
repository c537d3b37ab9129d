"""Cases of the routes that become RPCs of invoicer."""

from typing import Any

from usageflow.invoicer.v1 import invoicer_pb2 as invoicer

from tests.integration.gateway.route_cases import Case, at, page

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
    base_price_timing=invoicer.BASE_PRICE_TIMING_IN_ADVANCE,
    setup_fee="49.00",
    billing_period=invoicer.BILLING_PERIOD_MONTHLY,
    metrics=[
        invoicer.MetricPrice(
            metric="API_CALL",
            model=invoicer.PRICING_MODEL_PER_UNIT,
            included_units="10000",
            unit_price="0.01",
            usage_limit="50000",
            usage_limit_enforcement=invoicer.USAGE_LIMIT_ENFORCEMENT_SOFT,
        )
    ],
    discounts=[
        invoicer.Discount(name="Launch", percent="10", periods=3),
        invoicer.Discount(amount="5"),
    ],
    minimum="50",
    maximum="500",
    create_time=at(1),
)
PLAN_JSON = {
    "id": "plan_1",
    "version": 2,
    "name": "Pro",
    "currency": "USD",
    "basePrice": "100.00",
    "basePriceTiming": "IN_ADVANCE",
    "setupFee": "49.00",
    "billingPeriod": "MONTHLY",
    "metrics": [
        {
            "metric": "API_CALL",
            "model": "PER_UNIT",
            "includedUnits": "10000",
            "unitPrice": "0.01",
            "usageLimit": "50000",
            "usageLimitEnforcement": "SOFT",
        }
    ],
    "discounts": [
        {"name": "Launch", "percent": "10", "amount": None, "periods": 3},
        {"name": "", "percent": None, "amount": "5", "periods": None},
    ],
    "minimum": "50",
    "maximum": "500",
    "createdAt": "2026-01-01T00:00:00Z",
}
NEW_PLAN_JSON = {
    "name": "Pro",
    "currency": "USD",
    "basePrice": 100.00,
    "basePriceTiming": "IN_ADVANCE",
    "setupFee": 49,
    "metrics": [
        {
            "metric": "API_CALL",
            "model": "PER_UNIT",
            "includedUnits": 1e4,
            "unitPrice": "0.01",
            "usageLimit": 50000,
        }
    ],
    "discounts": [{"name": "Launch", "percent": 10, "periods": 3}, {"amount": "5"}],
    "minimum": 50,
    "maximum": "500",
}
NEW_PLAN = invoicer.Plan(
    name="Pro",
    currency="USD",
    base_price="100.0",
    base_price_timing=invoicer.BASE_PRICE_TIMING_IN_ADVANCE,
    setup_fee="49",
    billing_period=invoicer.BILLING_PERIOD_MONTHLY,
    metrics=[
        invoicer.MetricPrice(
            metric="API_CALL",
            model=invoicer.PRICING_MODEL_PER_UNIT,
            included_units="10000.0",
            unit_price="0.01",
            usage_limit="50000",
            usage_limit_enforcement=invoicer.USAGE_LIMIT_ENFORCEMENT_HARD,
        )
    ],
    discounts=[
        invoicer.Discount(name="Launch", percent="10", periods=3),
        invoicer.Discount(amount="5"),
    ],
    minimum="50",
    maximum="500",
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
    quantity=5,
    trial_end_time=at(15),
    phases=[
        invoicer.SubscriptionPhase(
            start_time=at(1),
            end_time=at(15),
            exact_start_time=at(1, seconds=451),
            exact_end_time=at(15),
            kind=invoicer.PHASE_KIND_TRIAL,
            plan_id="plan_1",
            plan_version=1,
            quantity=5,
        )
    ],
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
    "quantity": 5,
    "trialEndsAt": "2026-01-15T00:00:00Z",
    "phases": [
        {
            "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "2026-01-15T00:00:00Z",
            "exactStartsAt": "2026-01-01T00:07:31Z",
            "exactEndsAt": "2026-01-15T00:00:00Z",
            "kind": "TRIAL",
            "planId": "plan_1",
            "planVersion": 1,
            "quantity": 5,
        }
    ],
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
            steps=["2,000 x 0.01 = 20"],
        )
    ],
    taxes=[
        invoicer.InvoiceTax(
            tax_rate_id="tax_1",
            name="VAT",
            percent="19",
            inclusive=True,
            taxable="100.87",
            amount="19.16",
        )
    ],
    hash="5e" * 32,
    credits_applied="20.00",
    amount_due="100.03",
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
            "steps": ["2,000 x 0.01 = 20"],
        }
    ],
    "taxes": [
        {
            "taxRateId": "tax_1",
            "name": "VAT",
            "percent": "19",
            "inclusive": True,
            "taxable": "100.87",
            "amount": "19.16",
        }
    ],
    "hash": "5e" * 32,
    "creditsApplied": "20.00",
    "amountDue": "100.03",
}
# Every field that a price can have, whether one model takes them all or not.
ALL_FIELDS = invoicer.MetricPrice(
    metric="M",
    model=invoicer.PRICING_MODEL_DIMENSIONAL,
    included_units="1",
    minimum="2",
    maximum="3",
    unit_price="4",
    tiers=[
        invoicer.PriceTier(up_to="100", unit_price="0.1", flat_price="5"),
        invoicer.PriceTier(flat_price="6"),
    ],
    package_size="7",
    package_price="8",
    rate="9",
    fixed_per_event="10",
    free_events="11",
    free_amount="12",
    min_per_event="13",
    max_per_event="14",
    prices=[invoicer.DimensionPrice(match={"model": "gpt-4"}, unit_price="15")],
)
ALL_FIELDS_JSON = {
    "metric": "M",
    "model": "DIMENSIONAL",
    "includedUnits": "1",
    "minimum": "2",
    "maximum": "3",
    "unitPrice": "4",
    "tiers": [
        {"upTo": "100", "unitPrice": "0.1", "flatPrice": "5"},
        {"upTo": None, "flatPrice": "6"},
    ],
    "packageSize": "7",
    "packagePrice": "8",
    "rate": "9",
    "fixedPerEvent": "10",
    "freeEvents": "11",
    "freeAmount": "12",
    "minPerEvent": "13",
    "maxPerEvent": "14",
    "prices": [{"match": {"model": "gpt-4"}, "unitPrice": "15"}],
}
MONTHLY = invoicer.BILLING_PERIOD_MONTHLY

PROJECTED = invoicer.Invoice(
    customer_id="user_1",
    subscription_id="sub_1",
    status=invoicer.INVOICE_STATUS_DRAFT,
    currency="USD",
    amount="30.00",
    credits_applied="0.00",
    amount_due="30.00",
    period_start_time=at(1),
    period_end_time=at(31),
)
PROJECTED_JSON = INVOICE_JSON | {
    "id": None,
    "number": None,
    "status": "DRAFT",
    "amount": "30.00",
    "createdAt": None,
    "lines": [],
    "taxes": [],
    "hash": None,
    "creditsApplied": "0.00",
    "amountDue": "30.00",
}
# The field's name is a keyword of Python.
FROM: dict[str, Any] = {"from": at(1)}
CASES = [
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
                base_price_timing=invoicer.BASE_PRICE_TIMING_IN_ARREARS,
                setup_fee="0",
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
        "/api/plans/quote",
        "QuotePlan",
        invoicer.QuotePlanRequest(
            plan=invoicer.Plan(
                currency="USD",
                base_price="0",
                base_price_timing=invoicer.BASE_PRICE_TIMING_IN_ARREARS,
                setup_fee="0",
                billing_period=MONTHLY,
                metrics=[ALL_FIELDS],
            ),
            events={"PAYOUT": invoicer.EventAmounts(amounts=["10.00", "250.00"])},
            groups={
                "M": invoicer.GroupQuantities(
                    groups=[invoicer.GroupQuantity(group={"model": "gpt-4"}, value="5")]
                )
            },
        ),
        invoicer.QuotePlanResponse(currency="USD", amount="0.00"),
        {"currency": "USD", "amount": "0.00", "lines": []},
        {
            "plan": {"currency": "USD", "metrics": [ALL_FIELDS_JSON]},
            "events": {"PAYOUT": ["10.00", "250.00"]},
            "groups": {"M": [{"group": {"model": "gpt-4"}, "value": 5}]},
        },
    ),
    Case(
        "POST",
        "/api/plans",
        "CreatePlan",
        invoicer.CreatePlanRequest(
            plan=invoicer.Plan(
                name="P",
                currency="USD",
                base_price="0",
                base_price_timing=invoicer.BASE_PRICE_TIMING_IN_ARREARS,
                setup_fee="0",
                billing_period=MONTHLY,
                metrics=[ALL_FIELDS],
            )
        ),
        invoicer.CreatePlanResponse(
            plan=invoicer.Plan(
                id="plan_1",
                version=1,
                name="P",
                currency="USD",
                base_price="0.00",
                base_price_timing=invoicer.BASE_PRICE_TIMING_IN_ARREARS,
                setup_fee="0.00",
                billing_period=MONTHLY,
                metrics=[ALL_FIELDS],
                create_time=at(1),
            )
        ),
        PLAN_JSON
        | {"version": 1, "name": "P", "basePrice": "0.00", "metrics": [ALL_FIELDS_JSON]}
        | {"basePriceTiming": "IN_ARREARS", "setupFee": "0.00"}
        | {"discounts": [], "minimum": None, "maximum": None},
        {"name": "P", "currency": "USD", "metrics": [ALL_FIELDS_JSON]},
        201,
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
            trial_days=14,
            quantity=5,
        ),
        invoicer.CreateSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
        {
            "customerId": "user_1",
            "planId": "plan_1",
            "startsAt": "2026-01-01T05:45:00+05:45",
            "billingAnchor": "ANNIVERSARY",
            "trialDays": 14,
            "quantity": 5,
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
        invoicer.CancelSubscriptionRequest(
            subscription_id="sub_1", timing=invoicer.CHANGE_TIMING_PERIOD_END
        ),
        invoicer.CancelSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
    ),
    Case(
        "POST",
        "/api/subscriptions/sub_1/cancel",
        "CancelSubscription",
        invoicer.CancelSubscriptionRequest(
            subscription_id="sub_1", timing=invoicer.CHANGE_TIMING_NOW
        ),
        invoicer.CancelSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
        {"at": "NOW"},
    ),
    Case(
        "POST",
        "/api/subscriptions/sub_1/pause",
        "PauseSubscription",
        invoicer.PauseSubscriptionRequest(
            subscription_id="sub_1",
            timing=invoicer.CHANGE_TIMING_PERIOD_END,
            resume_time=at(3),
        ),
        invoicer.PauseSubscriptionResponse(subscription=SUBSCRIPTION),
        SUBSCRIPTION_JSON,
        {"at": "PERIOD_END", "resumesAt": "2026-01-03T00:00:00Z"},
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
        "/api/invoices?customerId=user_1&subscriptionId=sub_1&status=PAID"
        "&from=2026-01-01T00:00:00Z&to=2026-01-31T00:00:00Z",
        "ListInvoices",
        invoicer.ListInvoicesRequest(
            customer_id="user_1",
            subscription_id="sub_1",
            status=invoicer.INVOICE_STATUS_PAID,
            to=at(31),
            page_size=20,
            **FROM,
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
                credits_applied="0.00",
                amount_due="1.00",
                period_start_time=at(1),
                period_end_time=at(31),
            ),
            projected=PROJECTED,
            as_of=at(2),
        ),
        PROJECTED_JSON
        | {"amount": "1.00", "amountDue": "1.00", "asOf": "2026-01-02T00:00:00Z"}
        | {"projected": PROJECTED_JSON},
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
        invoicer.FailInvoiceRequest(invoice_id="inv_1", reference="R1"),
        invoicer.FailInvoiceResponse(invoice=INVOICE),
        INVOICE_JSON,
        {"reference": "R1"},
    ),
    Case(
        "POST",
        "/api/invoices/inv_1/void",
        "VoidInvoice",
        invoicer.VoidInvoiceRequest(invoice_id="inv_1"),
        invoicer.VoidInvoiceResponse(invoice=INVOICE),
        INVOICE_JSON,
    ),
]
