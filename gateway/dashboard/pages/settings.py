"""/dashboard/settings"""

from litestar import Response, get, post
from usageflow.accounts.v1 import accounts_pb2
from usageflow.invoicer.v1 import billing_settings_pb2, documents_pb2

from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import accounts, billing_settings, issuer
from gateway.shapes.accounts import OrganizationChange
from gateway.shapes.billing_settings import BillingSettingsChange
from gateway.shapes.issuer import Issuer
from services.kit.errors import DomainError


@get("/dashboard/settings", include_in_schema=False)
async def show_settings(visit: Visited) -> Response[bytes]:
    """What the organization decides for itself."""
    calls = visit.calls
    request = accounts_pb2.GetOrganizationRequest()
    answer = await calls.call(calls.accounts.GetOrganization, request)
    organization = accounts.organization_from_proto(answer.organization)
    settings = organization.settings
    form = Form(
        [
            ("name", organization.name),
            ("settings.eventPastDays", str(settings.event_past_days)),
            ("settings.eventRetentionDays", str(settings.event_retention_days)),
            ("settings.strictMetrics", "true" if settings.strict_metrics else "false"),
            ("settings.requestsPerSecond", str(settings.requests_per_second)),
            ("settings.eventsPerSecond", str(settings.events_per_second)),
        ]
    )
    return visit.page("settings.html", form=form)


@post("/dashboard/settings", include_in_schema=False)
async def change_settings(visit: Visited) -> Response[bytes]:
    """Change them."""
    try:
        request = accounts.change_to_proto(visit.form.read(OrganizationChange))
        await visit.calls.call(visit.calls.accounts.UpdateOrganization, request)
    except DomainError as error:
        visit.form.refuse(error)
        return visit.page("settings.html", 400)
    return visit.go("/dashboard/settings", "saved")


@get("/dashboard/settings/invoices", include_in_schema=False)
async def show_issuer(visit: Visited) -> Response[bytes]:
    """What stands on invoices."""
    known = issuer.from_proto(await _issuer(visit))
    names = ("name", "address", "email", "footer")
    pairs = [*((name, getattr(known, name)) for name in names), ("taxId", known.tax_id)]
    return visit.page("issuer.html", form=Form(pairs))


@post("/dashboard/settings/invoices", include_in_schema=False)
async def change_issuer(visit: Visited) -> Response[bytes]:
    """Set it, for invoices from now on; the logo stays."""
    try:
        request = issuer.to_proto(visit.form.read(Issuer))
        request.issuer.logo = (await _issuer(visit)).logo
        await visit.calls.call(visit.calls.documents.SetIssuer, request)
    except DomainError as error:
        visit.form.refuse(error)
        return visit.page("issuer.html", 400)
    return visit.go("/dashboard/settings/invoices", "saved")


@get("/dashboard/settings/billing", include_in_schema=False)
async def show_billing_settings(visit: Visited) -> Response[bytes]:
    """How invoices come about."""
    calls = visit.calls
    request = billing_settings_pb2.GetBillingSettingsRequest()
    answer = await calls.call(calls.settings.GetBillingSettings, request)
    known = billing_settings.from_proto(answer.settings)
    form = Form(
        [
            ("graceSeconds", str(known.grace_seconds)),
            ("lateUsage", known.late_usage),
            ("paymentProvider", known.payment_provider),
            ("retryDays", ", ".join(map(str, known.retry_days))),
            ("_keyHint", known.stripe_api_key_hint or ""),
        ]
    )
    return visit.page("billing_settings.html", form=form)


@post("/dashboard/settings/billing", include_in_schema=False)
async def change_billing_settings(visit: Visited) -> Response[bytes]:
    """Change that."""
    try:
        request = billing_settings.change_to_proto(visit.form.read(BillingSettingsChange))
        await visit.calls.call(visit.calls.settings.UpdateBillingSettings, request)
    except DomainError as error:
        visit.form.refuse(error)
        return visit.page("billing_settings.html", 400)
    return visit.go("/dashboard/settings/billing", "saved")


async def _issuer(visit: Visit) -> documents_pb2.Issuer:
    request = documents_pb2.GetIssuerRequest()
    return (await visit.calls.call(visit.calls.documents.GetIssuer, request)).issuer


HANDLERS = [
    show_settings,
    change_settings,
    show_issuer,
    change_issuer,
    show_billing_settings,
    change_billing_settings,
]
