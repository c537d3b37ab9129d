"""Cases of the routes about what an organization decides for its invoices."""

from usageflow.invoicer.v1 import billing_settings_pb2 as pb

from tests.integration.gateway.route_cases import Case

SETTINGS = pb.BillingSettings(grace_seconds=7200, etag="tag")
SETTINGS_JSON = {"graceSeconds": 7200}
CASES = [
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
        pb.UpdateBillingSettingsRequest(grace_seconds=0),
        pb.UpdateBillingSettingsResponse(settings=SETTINGS),
        SETTINGS_JSON,
        {"graceSeconds": 0},
    ),
]
