"""/dashboard/settings"""

from typing import Final

from litestar import Response, get, post
from usageflow.accounts.v1 import accounts_pb2
from usageflow.invoicer.v1 import billing_settings_pb2, documents_pb2

from gateway.dashboard.forms import ETAG, Form, problem
from gateway.dashboard.visit import Visit, Visited
from gateway.routes.documents import RENDER_S
from gateway.shapes import accounts, billing_settings, issuer
from gateway.shapes.accounts import OrganizationChange
from gateway.shapes.billing_settings import BillingSettingsChange
from gateway.shapes.issuer import Issuer
from services.kit.errors import DomainError, StaleError

_PNG: Final = b"\x89PNG"


@get("/dashboard/settings", include_in_schema=False)
async def show_settings(visit: Visited) -> Response[bytes]:
    """What the organization decides for itself."""
    return visit.page("settings.html", form=await _organization(visit))


async def _organization(visit: Visit) -> Form:
    calls = visit.calls
    request = accounts_pb2.GetOrganizationRequest()
    message = (await calls.call(calls.accounts.GetOrganization, request)).organization
    organization = accounts.organization_from_proto(message)
    settings = organization.settings
    return Form(
        [
            ("name", organization.name),
            ("settings.eventPastDays", str(settings.event_past_days)),
            ("settings.eventRetentionDays", str(settings.event_retention_days)),
            ("settings.strictMetrics", "true" if settings.strict_metrics else "false"),
            ("settings.requestsPerSecond", str(settings.requests_per_second)),
            ("settings.eventsPerSecond", str(settings.events_per_second)),
            (ETAG, message.etag),
        ]
    )


@post("/dashboard/settings", include_in_schema=False)
async def change_settings(visit: Visited) -> Response[bytes]:
    """Change them."""
    try:
        request = accounts.change_to_proto(visit.form.read(OrganizationChange))
        request.if_match.extend(visit.form.if_match)
        await visit.calls.call(visit.calls.accounts.UpdateOrganization, request)
    except StaleError:
        now = await _organization(visit)
        return visit.page("settings.html", 412, form=visit.form.outdated(now))
    except DomainError as error:
        visit.form.refuse(error)
        return visit.page("settings.html", 400)
    return visit.go("/dashboard/settings", "saved")


@get("/dashboard/settings/invoices", include_in_schema=False)
async def show_issuer(visit: Visited) -> Response[bytes]:
    """What stands on invoices."""
    message = await _issuer(visit)
    return _issuer_page(visit, message, _filled(message))


def _filled(message: documents_pb2.Issuer) -> Form:
    known = issuer.from_proto(message)
    names = ("name", "address", "email", "footer")
    pairs = [*((name, getattr(known, name)) for name in names), ("taxId", known.tax_id)]
    return Form([*pairs, (ETAG, message.etag)])


def _issuer_page(
    visit: Visit, message: documents_pb2.Issuer, form: Form, status: int = 200
) -> Response[bytes]:
    logo = issuer.from_proto(message).logo
    kind = "png" if message.logo.startswith(_PNG) else "jpeg"
    url = f"data:image/{kind};base64,{logo}" if logo else ""
    return visit.page("issuer.html", status, form=form, logo_url=url)


@post("/dashboard/settings/invoices", include_in_schema=False)
async def change_issuer(visit: Visited) -> Response[bytes]:
    """Set it, for invoices from now on; the logo stays."""
    message = await _issuer(visit)
    try:
        request = issuer.to_proto(visit.form.read(Issuer))
        request.issuer.logo = message.logo
        await _set_issuer(visit, request)
    except StaleError:
        message = await _issuer(visit)
        return _issuer_page(visit, message, visit.form.outdated(_filled(message)), 412)
    except DomainError as error:
        visit.form.refuse(error)
        return _issuer_page(visit, message, visit.form, 400)
    return visit.go("/dashboard/settings/invoices", "saved")


@post("/dashboard/settings/invoices/logo", include_in_schema=False)
async def set_logo(visit: Visited) -> Response[bytes]:
    """Set the logo, for invoices from now on."""
    return await _change_logo(visit, visit.form.files.get("logo", b""))


@post("/dashboard/settings/invoices/logo/remove", include_in_schema=False)
async def remove_logo(visit: Visited) -> Response[bytes]:
    """Have none on invoices from now on."""
    return await _change_logo(visit, None)


async def _change_logo(visit: Visit, logo: bytes | None) -> Response[bytes]:
    """Everything else stays; None: no logo."""
    message = await _issuer(visit)
    changed = documents_pb2.Issuer()
    changed.CopyFrom(message)
    changed.logo = logo or b""
    try:
        if logo == b"":
            raise problem("logo", "choose a file first")
        await _set_issuer(visit, documents_pb2.SetIssuerRequest(issuer=changed))
    except DomainError as error:
        # The form beside it shows what is set.
        status = visit.form.refuse(error)
        form = _filled(await _issuer(visit))
        form.problems, form.error = visit.form.problems, visit.form.error
        return _issuer_page(visit, message, form, status)
    return visit.go("/dashboard/settings/invoices", "saved")


async def _set_issuer(visit: Visit, request: documents_pb2.SetIssuerRequest) -> None:
    request.if_match.extend(visit.form.if_match)
    await visit.calls.call(visit.calls.documents.SetIssuer, request, RENDER_S)


@get("/dashboard/settings/billing", include_in_schema=False)
async def show_billing_settings(visit: Visited) -> Response[bytes]:
    """How invoices come about."""
    return visit.page("billing_settings.html", form=await _billing(visit))


async def _billing(visit: Visit) -> Form:
    calls = visit.calls
    request = billing_settings_pb2.GetBillingSettingsRequest()
    message = (await calls.call(calls.settings.GetBillingSettings, request)).settings
    known = billing_settings.from_proto(message)
    return Form(
        [
            ("graceSeconds", str(known.grace_seconds)),
            ("lateUsage", known.late_usage),
            ("paymentProvider", known.payment_provider),
            ("retryDays", ", ".join(map(str, known.retry_days))),
            ("_keyHint", known.stripe_api_key_hint or ""),
            (ETAG, message.etag),
        ]
    )


@post("/dashboard/settings/billing", include_in_schema=False)
async def change_billing_settings(visit: Visited) -> Response[bytes]:
    """Change that."""
    try:
        request = billing_settings.change_to_proto(visit.form.read(BillingSettingsChange))
        request.if_match.extend(visit.form.if_match)
        await visit.calls.call(visit.calls.settings.UpdateBillingSettings, request)
    except StaleError:
        form = visit.form.outdated(await _billing(visit), secret=("stripeApiKey",))
        return visit.page("billing_settings.html", 412, form=form)
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
    set_logo,
    remove_logo,
    show_billing_settings,
    change_billing_settings,
]
