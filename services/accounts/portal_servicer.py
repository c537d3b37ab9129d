"""Translates between proto and domain: links to the customer portal."""

from datetime import timedelta

from usageflow.accounts.v1 import portal_pb2 as pb
from usageflow.accounts.v1.portal_pb2_grpc import (
    PortalInternalServiceServicer,
    PortalServiceServicer,
)

from services.accounts.keys import principal_of_link
from services.accounts.portal import Portals
from services.accounts.portal_repository import PortalLink
from services.accounts.proto import timestamp
from services.kit.auth import current_principal, require_scope
from services.kit.signatures import Signatures


class PortalServicer(PortalServiceServicer):
    """Makes links for customers, in the caller's organization and mode, and says whose one is."""

    def __init__(self, portals: Portals, signatures: Signatures) -> None:
        self._portals = portals
        self._signatures = signatures

    async def CreatePortalLink(
        self, request: pb.CreatePortalLinkRequest, context: object
    ) -> pb.CreatePortalLinkResponse:
        """A new link, its signed token shown once; scope admin."""
        principal = require_scope("admin")
        given = request.HasField("expires_in_seconds")
        link, token = await self._portals.create(
            principal.tenant,
            request.customer_id,
            timedelta(seconds=request.expires_in_seconds) if given else None,
            by=principal.actor_id,
        )
        signed = self._signatures.portal_link(token, link.expire_time)
        return pb.CreatePortalLinkResponse(portal_link=_message(link), token=signed)

    async def ListPortalLinks(
        self, request: pb.ListPortalLinksRequest, context: object
    ) -> pb.ListPortalLinksResponse:
        """A page of links, never their tokens; scope read."""
        links, next_page_token = await self._portals.list(
            require_scope("read").tenant,
            request.customer_id,
            request.page_size,
            request.page_token,
        )
        return pb.ListPortalLinksResponse(
            portal_links=[_message(link) for link in links], next_page_token=next_page_token
        )

    async def RevokePortalLink(
        self, request: pb.RevokePortalLinkRequest, context: object
    ) -> pb.RevokePortalLinkResponse:
        """End a link at once; scope admin."""
        principal = require_scope("admin")
        link = await self._portals.revoke(
            principal.tenant, request.portal_link_id, by=principal.actor_id
        )
        return pb.RevokePortalLinkResponse(portal_link=_message(link))

    async def GetCurrentPortal(
        self, request: pb.GetCurrentPortalRequest, context: object
    ) -> pb.GetCurrentPortalResponse:
        """Whom the calling link is for."""
        portal = await self._portals.current(current_principal())
        return pb.GetCurrentPortalResponse(
            organization_name=portal.organization_name,
            customer_id=portal.customer_id,
            expire_time=timestamp(portal.expire_time),
        )


class PortalInternalServicer(PortalInternalServiceServicer):
    """What UsageFlow's own processes may do; the interceptor has checked the internal token."""

    def __init__(self, portals: Portals) -> None:
        self._portals = portals

    async def ResolvePortalLink(
        self, request: pb.ResolvePortalLinkRequest, context: object
    ) -> pb.ResolvePortalLinkResponse:
        """Who a link's token stands for."""
        resolved = await self._portals.resolve(request.token)
        return pb.ResolvePortalLinkResponse(principal=principal_of_link(resolved))


def _message(link: PortalLink) -> pb.PortalLink:
    return pb.PortalLink(
        id=link.id,
        customer_id=link.customer_id,
        created_by=link.created_by,
        create_time=timestamp(link.create_time),
        expire_time=timestamp(link.expire_time),
        revoke_time=timestamp(link.revoke_time),
    )
