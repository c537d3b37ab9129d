"""Cases of the routes about what an organization decides for its invoices, their payment, and what
they are expected to come to.
"""

from usageflow.invoicer.v1 import billing_settings_pb2 as pb
from usageflow.invoicer.v1 import budgets_pb2 as budgets
from usageflow.invoicer.v1 import payments_pb2 as payments

from tests.integration.gateway.route_cases import Case, at

SETTINGS = pb.BillingSettings(
    grace_seconds=7200,
    retry_days=[1, 3],
    payment_provider=payments.PAYMENT_PROVIDER_STRIPE,
    stripe_api_key_hint="…4242",
    late_usage=pb.LATE_USAGE_NEXT_INVOICE,
    etag="tag",
)
SETTINGS_JSON = {
    "graceSeconds": 7200,
    "retryDays": [1, 3],
    "paymentProvider": "STRIPE",
    "stripeApiKeyHint": "…4242",
    "lateUsage": "NEXT_INVOICE",
}
METHOD = payments.PaymentMethod(stripe_customer="cus_1", stripe_payment_method="pm_1")
METHOD_JSON = {"stripeCustomer": "cus_1", "stripePaymentMethod": "pm_1"}
BUDGET = budgets.Budget(
    subscription_id="sub_1",
    amount="500.00",
    currency="USD",
    percents=[50, 120],
    create_time=at(1),
    update_time=at(2),
    etag="tag",
)
BUDGET_JSON = {
    "subscriptionId": "sub_1",
    "amount": "500.00",
    "currency": "USD",
    "percents": [50, 120],
    "createdAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-02T00:00:00Z",
}
CASES = [
    Case(
        "PUT",
        "/api/subscriptions/sub_1/budget",
        "SetBudget",
        budgets.SetBudgetRequest(subscription_id="sub_1", amount="500", percents=[120, 50]),
        budgets.SetBudgetResponse(budget=BUDGET),
        BUDGET_JSON,
        {"amount": 500, "percents": [120, 50]},
    ),
    Case(
        "PUT",
        "/api/subscriptions/sub_1/budget",
        "SetBudget",
        budgets.SetBudgetRequest(subscription_id="sub_1", amount="0.10"),
        budgets.SetBudgetResponse(budget=BUDGET),
        BUDGET_JSON,
        {"amount": "0.10"},
    ),
    Case(
        "GET",
        "/api/subscriptions/sub_1/budget",
        "GetBudget",
        budgets.GetBudgetRequest(subscription_id="sub_1"),
        budgets.GetBudgetResponse(budget=BUDGET),
        BUDGET_JSON,
    ),
    Case(
        "DELETE",
        "/api/subscriptions/sub_1/budget",
        "RemoveBudget",
        budgets.RemoveBudgetRequest(subscription_id="sub_1"),
        budgets.RemoveBudgetResponse(),
        None,
        status=204,
    ),
    Case(
        "GET",
        "/api/billing-settings",
        "GetBillingSettings",
        pb.GetBillingSettingsRequest(),
        pb.GetBillingSettingsResponse(settings=SETTINGS),
        SETTINGS_JSON,
    ),
    Case(
        "PATCH",
        "/api/billing-settings",
        "UpdateBillingSettings",
        pb.UpdateBillingSettingsRequest(
            grace_seconds=0,
            retry_days=pb.RetryDays(days=[2]),
            payment_provider=payments.PAYMENT_PROVIDER_MANUAL,
            stripe_api_key="",
            late_usage=pb.LATE_USAGE_CREDIT_NOTE,
        ),
        pb.UpdateBillingSettingsResponse(settings=SETTINGS),
        SETTINGS_JSON,
        {
            "graceSeconds": 0,
            "retryDays": [2],
            "paymentProvider": "MANUAL",
            "stripeApiKey": "",
            "lateUsage": "CREDIT_NOTE",
        },
    ),
    Case(
        "PATCH",
        "/api/billing-settings",
        "UpdateBillingSettings",
        pb.UpdateBillingSettingsRequest(retry_days=pb.RetryDays()),
        pb.UpdateBillingSettingsResponse(settings=SETTINGS),
        SETTINGS_JSON,
        {"retryDays": []},
    ),
    Case(
        "PUT",
        "/api/customers/user_1/payment-method",
        "SetPaymentMethod",
        payments.SetPaymentMethodRequest(customer_id="user_1", payment_method=METHOD),
        payments.SetPaymentMethodResponse(payment_method=METHOD),
        METHOD_JSON,
        METHOD_JSON,
    ),
    Case(
        "GET",
        "/api/customers/user_1/payment-method",
        "GetPaymentMethod",
        payments.GetPaymentMethodRequest(customer_id="user_1"),
        payments.GetPaymentMethodResponse(payment_method=METHOD),
        METHOD_JSON,
    ),
    Case(
        "DELETE",
        "/api/customers/user_1/payment-method",
        "RemovePaymentMethod",
        payments.RemovePaymentMethodRequest(customer_id="user_1"),
        payments.RemovePaymentMethodResponse(),
        None,
        status=204,
    ),
    Case(
        "GET",
        "/api/invoices/inv_1/payments",
        "ListPaymentAttempts",
        payments.ListPaymentAttemptsRequest(invoice_id="inv_1"),
        payments.ListPaymentAttemptsResponse(
            attempts=[
                payments.PaymentAttempt(
                    number=1,
                    provider=payments.PAYMENT_PROVIDER_STRIPE,
                    amount="120.00",
                    currency="USD",
                    state=payments.PAYMENT_ATTEMPT_STATE_FAILED,
                    reference="pi_1",
                    error_code="insufficient_funds",
                    error_message="Your card has insufficient funds.",
                    start_time=at(2),
                    end_time=at(3),
                ),
                payments.PaymentAttempt(
                    number=2,
                    provider=payments.PAYMENT_PROVIDER_MANUAL,
                    amount="120.00",
                    currency="USD",
                    state=payments.PAYMENT_ATTEMPT_STATE_PENDING,
                    start_time=at(4),
                ),
            ],
            next_attempt_time=at(5),
        ),
        {
            "data": [
                {
                    "number": 1,
                    "provider": "STRIPE",
                    "amount": "120.00",
                    "currency": "USD",
                    "state": "FAILED",
                    "reference": "pi_1",
                    "errorCode": "insufficient_funds",
                    "errorMessage": "Your card has insufficient funds.",
                    "startedAt": "2026-01-02T00:00:00Z",
                    "endedAt": "2026-01-03T00:00:00Z",
                },
                {
                    "number": 2,
                    "provider": "MANUAL",
                    "amount": "120.00",
                    "currency": "USD",
                    "state": "PENDING",
                    "reference": None,
                    "errorCode": None,
                    "errorMessage": None,
                    "startedAt": "2026-01-04T00:00:00Z",
                    "endedAt": None,
                },
            ],
            "nextAttemptAt": "2026-01-05T00:00:00Z",
        },
    ),
    Case(
        "POST",
        "/api/invoices/inv_1/collect",
        "CollectInvoice",
        payments.CollectInvoiceRequest(invoice_id="inv_1"),
        payments.CollectInvoiceResponse(next_attempt_time=at(5)),
        {"nextAttemptAt": "2026-01-05T00:00:00Z"},
    ),
]
