"""A request body of each operation that people write first; shown at /docs, tried by a test."""

from typing import Any, Final

_PRO: Final[dict[str, Any]] = {
    "name": "Pro",
    "currency": "USD",
    "basePrice": "100.00",
    "billingPeriod": "MONTHLY",
    "metrics": [
        {
            "metric": "API_CALL",
            "model": "PER_UNIT",
            "includedUnits": "10000",
            "unitPrice": "0.01",
        }
    ],
}
_EVENT: Final[dict[str, Any]] = {
    "metric": "API_CALL",
    "amount": 1,
    "customerId": "user_123",
    "metadata": {"region": "eu"},
}
# By operationId.
BODIES: Final[dict[str, dict[str, Any]]] = {
    "track": _EVENT,
    "trackBatch": {"events": [{**_EVENT, "idempotencyKey": "order-1"}]},
    "createKey": {"name": "back end", "scopes": ["track", "read"]},
    "createMetric": {"key": "API_CALL", "name": "Calls", "unit": "calls"},
    "createPlan": _PRO,
    "createPlanVersion": _PRO,
    "quotePlan": {"plan": _PRO, "quantities": {"API_CALL": "12000"}},
    "simulatePlan": {"plan": _PRO, "from": "2026-01", "to": "2026-01"},
    "putCustomer": {
        "id": "user_123",
        "name": "Ada",
        "email": "ada@example.com",
        "timezone": "Europe/Berlin",
    },
    "changeCustomer": {"name": "Ada Lovelace"},
    "createSubscription": {"customerId": "user_123", "planId": "plan_..."},
    "createCharge": {
        "customerId": "user_123",
        "description": "Setup",
        "unitPrice": "25.00",
    },
    "createDiscount": {"percent": "10"},
    "createTaxRate": {"name": "VAT", "percent": "19"},
    "createWebhook": {
        "url": "https://example.com/hooks",
        "events": ["invoice.created"],
    },
    "changeWebhook": {"events": ["invoice.created", "invoice.paid"]},
    "setQuota": {"metric": "API_CALL", "customerId": "user_123", "limit": "10000"},
    "reserveQuota": {"metric": "API_CALL", "customerId": "user_123", "amount": "10"},
    "voidEvent": {"reason": "Sent twice"},
}
