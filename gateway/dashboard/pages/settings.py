"""/dashboard/settings"""

from litestar import Response, get, post
from usageflow.accounts.v1 import accounts_pb2

from gateway.dashboard.forms import Form
from gateway.dashboard.visit import Visited
from gateway.shapes import accounts
from gateway.shapes.accounts import OrganizationChange
from services.kit.errors import DomainError


@get("/dashboard/settings", include_in_schema=False)
async def show_settings(visit: Visited) -> Response[bytes]:
    """What the organization decides for itself."""
    request = accounts_pb2.GetOrganizationRequest()
    answer = await visit.calls.call(visit.calls.accounts.GetOrganization, request)
    organization = accounts.organization_from_proto(answer.organization)
    settings = organization.settings
    form = Form(
        [
            ("name", organization.name),
            ("settings.eventPastDays", str(settings.event_past_days)),
            ("settings.eventRetentionDays", str(settings.event_retention_days)),
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


HANDLERS = [show_settings, change_settings]
