"""/dashboard/customers/{id}/portal-links"""

from typing import Final
from urllib.parse import quote

from litestar import Response, get, post
from litestar.params import FromPath
from usageflow.accounts.v1 import portal_pb2
from usageflow.invoicer.v1 import invoicer_pb2

from gateway.dashboard.visit import Visit, Visited
from gateway.shapes import portal_links
from gateway.shapes.portal_links import NewPortalLink, PortalLinkWithUrl
from services.kit.errors import DomainError

LATEST: Final = 50
LIVES: Final = (
    ("3600", "An hour"),
    ("86400", "A day"),
    ("604800", "A week"),
    ("2592000", "30 days"),
)


@get("/dashboard/customers/{customer_id:str}/portal-links", include_in_schema=False)
async def show_portal_links(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """The customer's links to the portal."""
    return await _show(visit, customer_id)


@post("/dashboard/customers/{customer_id:str}/portal-links", include_in_schema=False)
async def make_portal_link(visit: Visited, customer_id: FromPath[str]) -> Response[bytes]:
    """Make a link, which is shown only on the page that answers."""
    try:
        known = invoicer_pb2.GetCustomerRequest(customer_id=customer_id)
        await visit.calls.call(visit.calls.invoicer.GetCustomer, known)
        request = portal_links.to_proto(visit.form.read(NewPortalLink, customerId=customer_id))
        answer = await visit.calls.call(visit.calls.portal.CreatePortalLink, request)
    except DomainError as error:
        visit.form.refuse(error)
        return await _show(visit, customer_id, 400)
    made = portal_links.with_url(answer, visit.base_url)
    return await _show(visit, customer_id, made=made)


@post(
    "/dashboard/customers/{customer_id:str}/portal-links/{link_id:str}/revoke",
    include_in_schema=False,
)
async def revoke_portal_link(
    visit: Visited, customer_id: FromPath[str], link_id: FromPath[str]
) -> Response[bytes]:
    """End a link at once."""
    request = portal_pb2.RevokePortalLinkRequest(portal_link_id=link_id)
    await visit.calls.call(visit.calls.portal.RevokePortalLink, request)
    return visit.go(
        f"/dashboard/customers/{quote(customer_id, safe='')}/portal-links", "link-revoked"
    )


async def _show(
    visit: Visit, customer_id: str, status: int = 200, made: PortalLinkWithUrl | None = None
) -> Response[bytes]:
    request = portal_pb2.ListPortalLinksRequest(customer_id=customer_id, page_size=LATEST)
    answer = await visit.calls.call(visit.calls.portal.ListPortalLinks, request)
    return visit.page(
        "portal_links.html",
        status,
        customer_id=customer_id,
        made=made,
        lives=LIVES,
        links=[portal_links.from_proto(each) for each in answer.portal_links],
    )


HANDLERS = [show_portal_links, make_portal_link, revoke_portal_link]
