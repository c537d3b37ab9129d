"""/api/portal-links"""

from typing import Any

from litestar import Request, delete, get, post
from litestar.params import FromPath, JSONBody
from usageflow.accounts.v1 import portal_pb2 as pb
from usageflow.invoicer.v1 import invoicer_pb2

from gateway.calls import ApiCalls
from gateway.query import Asked, query
from gateway.sessions import scope_of, sessions_of
from gateway.shapes.portal_links import (
    NewPortalLink,
    PortalLinkPage,
    PortalLinksQuery,
    PortalLinkWithUrl,
    from_proto,
    to_proto,
    with_url,
)


@post("/api/portal-links")
async def create_portal_link(
    request: Request[Any, Any, Any], calls: ApiCalls, data: JSONBody[NewPortalLink]
) -> PortalLinkWithUrl:
    """Make a link to the customer portal: usage, subscriptions and invoices of one customer.

    Whoever has it reads what is the customer's until it expires or is revoked, and changes nothing.
    """
    known = invoicer_pb2.GetCustomerRequest(customer_id=data.customer_id)
    await calls.call(calls.invoicer.GetCustomer, known)
    answer = await calls.call(calls.portal.CreatePortalLink, to_proto(data))
    return with_url(answer, sessions_of(request).base_url(scope_of(request)))


@get("/api/portal-links", dependencies=query(PortalLinksQuery))
async def list_portal_links(calls: ApiCalls, asked: Asked[PortalLinksQuery]) -> PortalLinkPage:
    """List links to the customer portal, newest first; never their addresses."""
    request = pb.ListPortalLinksRequest(
        customer_id=asked.customer_id, page_size=asked.limit, page_token=asked.cursor
    )
    answer = await calls.call(calls.portal.ListPortalLinks, request)
    return PortalLinkPage(
        data=[from_proto(link) for link in answer.portal_links],
        next_cursor=answer.next_page_token or None,
    )


@delete("/api/portal-links/{portal_link_id:str}")
async def revoke_portal_link(calls: ApiCalls, portal_link_id: FromPath[str]) -> None:
    """End a link at once; repeating it changes nothing."""
    request = pb.RevokePortalLinkRequest(portal_link_id=portal_link_id)
    await calls.call(calls.portal.RevokePortalLink, request)


HANDLERS = [create_portal_link, list_portal_links, revoke_portal_link]
